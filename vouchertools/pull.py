"""Carrying out a pull: worker threads over one queue of walks, and the closing reads that prove it complete.

The decisions are in `walk.py`, the argument for completeness in `fetch.py`.
"""

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from vouchertools import contract
from vouchertools.client import Client
from vouchertools.contract import Interval
from vouchertools.errors import BadRequestError, IncompleteReadError, InputError, ServerTimeoutError
from vouchertools.pace import Stopped
from vouchertools.walk import Position, Scope, Walk, again, divide, merge

#: Closing reads reach back this much further than the instant that they close from: a server's clocks may
#: differ, and a change may become visible a moment after its timestamp.
CLOSING_MARGIN: Final = timedelta(seconds=5)
#: Most closing reads of one pull.
MAX_CLOSINGS: Final = 20
#: Intervals end this far ahead of the server's clock, so that nothing is too new.
AHEAD: Final = timedelta(days=1)
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


class Pull:
    """One complete read of some scopes from an instant to the present.

    Parameters
    ----------
    client
        The connection.
    starts
        For each scope the instant from which its codes are asked for, by ``UpdatedUtc``.
    until
        The last instant asked for; None: the present.
    workers
        Number of threads.
    progress
        A bar that counts codes.
    checkpoint
        Called every `checkpoint_s` seconds, as far as it can be proved, with the codes read so far, and the
        instant up to which they are complete.
    """

    def __init__(
        self,
        client: Client,
        starts: dict[Scope, datetime],
        *,
        until: datetime | None = None,
        workers: int = 8,
        progress: Any = None,
        count: int = contract.MAX_ITEMS,
        checkpoint: Callable[[pa.Table, datetime], None] | None = None,
        checkpoint_s: float = 10.0,
    ) -> None:
        self._pool = Pool(client, workers)
        self._client = client
        self._progress = progress
        self._count = count
        self._checkpoint = checkpoint
        self._checkpoint_s = checkpoint_s
        self._next_checkpoint: float | None = None
        #: The server's clock when the pull began, UTC, asked for before the first page.
        self.began = self._ask_clock(next(iter(starts)))
        # A server may leave the end of an interval out, and stores finer times than it shows.
        end = self.began + AHEAD if until is None else until + timedelta(seconds=1)
        self._walks = [
            Walk(scope, interval, count)
            for scope, since in starts.items()
            for interval in contract.intervals(min(since, end), end)
        ]
        self._reaches_now = until is None
        self._open = dict.fromkeys(starts, self.began)
        self._shown = 0

    def run(self) -> pa.Table:
        """Read everything and prove it complete.

        Raises
        ------
        IncompleteReadError
            The codes changed faster than they could be read, or the pages cannot be trusted.
        """
        pool = self._pool
        with pool:
            walks = self._self_closing(self._walks)
            pool.run(walks, self._tick)
            self._checkpoint = None
            for closing in pool.closings:
                if closing.atomic:
                    del self._open[closing.scope]
            for number in range(MAX_CLOSINGS):
                if not self._open:
                    break
                self._close(last=number == MAX_CLOSINGS - 1)
            merged = self._merged()
            pool.pages.clear()
            return merged

    def _self_closing(self, walks: list[Walk]) -> list[Walk]:
        """The walks, those marked that close their scope should they end after one page.

        Such a walk is the only one of its scope and reaches from before the pull to the present.
        """
        number_of = Counter(walk.scope for walk in walks)
        marked = []
        for walk in walks:
            early = walk.interval.start <= self.began - CLOSING_MARGIN
            if self._reaches_now and number_of[walk.scope] == 1 and early:
                walk = replace(walk, closing=self._pool.open_closing(walk.scope))
            marked.append(walk)
        return marked

    def _close(self, *, last: bool) -> None:
        """One round: what was updated since, and again what a touched cursor may have hidden."""
        pool, mark = self._pool, self._client.now().to_pydatetime()
        numbers = {scope: pool.open_closing(scope) for scope in self._open}
        pool.run(
            [
                Walk(scope, interval, self._count, closing=number)
                for scope, number in numbers.items()
                for interval in contract.intervals(self._open[scope] - CLOSING_MARGIN, mark + AHEAD)
            ],
            self._tick,
        )
        disturbed: list[Walk] = []
        moving: list[Closing] = []
        for closing in [pool.closings[number] for number in numbers.values()]:
            del self._open[closing.scope]
            hidden = pool.take_used(closing.touched)
            disturbed += hidden
            if closing.atomic and not hidden:
                continue
            moving.append(closing)
            for scope in [closing.scope] if closing.atomic else closing.scope.halves():
                self._open[scope] = mark
        if not moving:
            return
        if last:
            raise IncompleteReadError(
                f"{sum(len(closing.touched) for closing in moving):,} codes were still changing "
                f"after {MAX_CLOSINGS} closing reads, so the pull cannot be proved complete. "
                "Nothing partial is returned. Try again when fewer changes are made."
            )
        pool.run(disturbed, self._tick)
        self._let_settle(max((c.newest for c in moving if c.newest is not None), default=None))

    def _let_settle(self, newest: datetime | None) -> None:
        """Wait until the latest change lies further back than the next closing read reaches."""
        if newest is not None:
            ahead = newest - self._client.now().to_pydatetime()
            wait = ahead + CLOSING_MARGIN + timedelta(seconds=1)
            if timedelta(0) < wait and ahead <= CLOSING_MARGIN:
                self._client.wait(wait.total_seconds())

    def _ask_clock(self, scope: Scope) -> datetime:
        first = Interval(contract.EARLIEST, contract.EARLIEST + timedelta(seconds=1))
        self._client.page(
            scope.voucher_ids,
            updated=first,
            enterprise_ids=scope.enterprise_ids,
            voucher_code_ids=scope.voucher_code_ids,
            count=1,
        )
        return self._client.now().to_pydatetime()

    def _tick(self) -> None:
        if self._progress is not None and self._pool.codes > self._shown:
            self._progress.update(self._pool.codes - self._shown)
            self._shown = self._pool.codes
        if self._checkpoint is not None:
            self._try_checkpoint(self._checkpoint)

    def _try_checkpoint(self, checkpoint: Callable[[pa.Table, datetime], None]) -> None:
        """Hand over the contiguous part, if a single-page read shows that no cursor in it was touched."""
        clock = self._client.monotonic
        if self._next_checkpoint is None:
            self._next_checkpoint = clock() + self._checkpoint_s
        if clock() < self._next_checkpoint:
            return
        began = clock()
        frontier = self._pool.frontier()
        cursors = self._pool.used.keys()
        if frontier is not None and all(
            untouched(self._client, scope, self.began, cursors) for scope in self._open
        ):
            checkpoint(self._merged(), min(frontier, self.began))
        self._next_checkpoint = clock() + max(self._checkpoint_s, 20 * (clock() - began))

    def _merged(self) -> pa.Table:
        pages = list(self._pool.pages)
        order = sorted(range(len(pages)), key=lambda number: pages[number][0])
        return merge([pages[number][1] for number in order], order)


def untouched(client: Client, scope: Scope, since: datetime, cursors: Set[str]) -> bool:
    """Whether a read of one page shows that none of these cursors was touched since an instant.

    Where more changed than one page holds, nothing is shown.
    """
    end = client.now().to_pydatetime() + AHEAD
    page = client.page(
        scope.voucher_ids,
        updated=Interval(contract.floor_second(since - CLOSING_MARGIN), contract.ceil_second(end)),
        enterprise_ids=scope.enterprise_ids,
        voucher_code_ids=scope.voucher_code_ids,
    )
    return len(page) < contract.MAX_ITEMS and cursors.isdisjoint(page.table.column("Id").to_pylist())
