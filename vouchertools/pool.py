"""Worker threads over one queue of walks: they read, divide their work, and note what a proof needs.

What they have to walk, and when that is complete, is decided in `pull.py`.
"""

import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from vouchertools.client import Client
from vouchertools.errors import BadRequestError, IncompleteReadError, InputError, ServerTimeoutError
from vouchertools.pace import Stopped
from vouchertools.walk import Position, Scope, Walk, again, divide

#: How often the main thread looks up from waiting, in seconds.
_TICK_S: Final = 0.1


@dataclass
class Closing:
    """What one read of a scope that may prove it complete found, whatever it was cut into on the way."""

    scope: Scope
    requests: int = 0
    touched: set[str] = field(default_factory=set)
    newest: datetime | None = None

    @property
    def atomic(self) -> bool:
        """Whether it was a single page: the one thing that the server shows at one instant."""
        return self.requests == 1


class Pool:
    """Worker threads over one queue of walks, oldest first.

    Parameters
    ----------
    client
        The connection.
    workers
        Number of threads.
    """

    def __init__(self, client: Client, workers: int) -> None:
        if workers < 1:
            raise InputError(f"workers={workers}: at least 1 is needed.")
        self._client = client
        self._changed = threading.Condition()
        self._queue: list[tuple[datetime, int, Walk]] = []
        self._running: dict[int, Walk] = {}
        self._idle = 0
        self._number = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"vouchertools-walk-{i}", daemon=True)
            for i in range(workers)
        ]
        #: Pages read, each with the key that orders them newest first.
        self.pages: list[tuple[tuple[float, str, int], pa.Table]] = []
        self.codes = 0
        self.used: dict[str, list[Walk]] = {}
        #: By `Walk.closing`; none is ever taken out, since a walk of an old one may be walked again.
        self.closings: list[Closing] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        while any(thread.is_alive() for thread in self._threads):
            if kind is not None:
                self._client.stop()
            for thread in self._threads:
                thread.join(_TICK_S)

    def run(self, walks: Sequence[Walk], tick: Callable[[], None] = lambda: None) -> None:
        """Carry out walks, and whatever they are cut into, to the end; `tick` is called every so often."""
        with self._changed:
            for walk in walks:
                self._push(walk)
            self._changed.notify_all()
        while True:
            with self._changed:
                if self._failure is None and (self._queue or self._running):
                    self._changed.wait(_TICK_S)
                if self._failure is not None:
                    raise self._failure
                done = not self._queue and not self._running
            tick()
            if done:
                return

    def frontier(self) -> datetime | None:
        """The instant up to which everything has been walked; None when nothing is left."""
        with self._changed:
            left = [walk.interval.start for _, _, walk in self._queue]
            left += [walk.interval.start for walk in self._running.values()]
            return min(left, default=None)

    def open_closing(self, scope: Scope) -> int:
        """The number, for `Walk.closing`, of a new read that may prove a scope complete."""
        self.closings.append(Closing(scope))
        return len(self.closings) - 1

    def take_used(self, touched: set[str]) -> list[Walk]:
        """The walks that used one of these codes as a cursor, to be walked again from the start."""
        with self._changed:
            walks = [walk for cursor in touched & self.used.keys() for walk in self.used.pop(cursor)]
        return list(dict.fromkeys(walks))

    def _push(self, walk: Walk) -> None:
        self._number += 1
        heapq.heappush(self._queue, (walk.interval.start, self._number, walk))

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            with self._changed:
                self._idle += 1
                while not self._queue and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if self._closed:
                    return
                self._running[me] = heapq.heappop(self._queue)[2]
            try:
                self._walk(me)
            except Stopped:
                with self._changed:
                    if not self._closed:  # not by this pool: without this walk the pull is incomplete
                        self._failure = IncompleteReadError(
                            "This read was ended by another call that stopped the same client. Try again."
                        )
                        self._closed = True
                return
            except BaseException as error:
                with self._changed:
                    self._failure = self._failure or error
                    self._closed = True
            finally:
                with self._changed:
                    del self._running[me]
                    self._changed.notify_all()

    def _walk(self, me: int) -> None:
        """Walk what `_running[me]` says, to its end."""
        walk = self._running[me]
        cursor: str | None = None
        seen: set[str] = set()
        used: set[str] = set()
        position = Position()
        while not self._closed:
            try:
                page = self._client.page(
                    walk.scope.voucher_ids,
                    updated=walk.interval,
                    enterprise_ids=walk.scope.enterprise_ids,
                    voucher_code_ids=walk.scope.voucher_code_ids,
                    count=walk.count,
                    cursor=cursor,
                    retry_408=False,
                )
            except ServerTimeoutError as error:
                return self._replace(again(walk, str(error), smaller_pages=True))
            except BadRequestError as error:
                if cursor is None:
                    raise
                return self._replace(again(walk, f"the cursor {cursor} was refused: {error}"))
            ids = page.table.column("Id").to_pylist()
            self._keep(walk, page.table, ids)
            if page.cursor is None or 0 < len(ids) < walk.count or (not ids and page.cursor in used):
                return None
            if page.cursor in used:
                return self._replace(again(walk, f"the cursor {page.cursor} was answered twice"))
            if ids and seen.issuperset(ids):
                return self._replace(again(walk, f"the page after the cursor {cursor} brought nothing new"))
            cursor = page.cursor
            if ids:
                seen.update(ids)
                position.see(page.table)
            idle = self._idle > 0 and not self._queue
            if ids and (pieces := divide(walk, position, idle=idle)):
                walk, cursor_stays, handed = pieces
                with self._changed:
                    self._running[me] = walk
                    self._push(handed)
                    self._changed.notify()
                if not cursor_stays:
                    cursor, position = None, Position()
                    seen.clear()
                    used.clear()
                    continue
            used.add(cursor)
            with self._changed:
                self.used.setdefault(cursor, []).append(walk)
        raise Stopped

    def _replace(self, walks: list[Walk]) -> None:
        with self._changed:
            for walk in walks:
                self._push(walk)
            self._changed.notify_all()

    def _keep(self, walk: Walk, table: pa.Table, ids: list[str]) -> None:
        with self._changed:
            if table.num_rows:
                order = (-walk.interval.end.timestamp(), walk.scope.voucher_ids[0], len(self.pages))
                self.pages.append((order, table))
                self.codes += table.num_rows
            if walk.closing is not None:
                closing = self.closings[walk.closing]
                closing.requests += 1
                closing.touched.update(ids)
                newest = pc.max(table.column("UpdatedUtc")).as_py()
                closing.newest = max((t for t in (newest, closing.newest) if t is not None), default=None)
