"""Carrying out a pull: what is walked, and the closing reads that prove it complete.

The threads are in `pool.py`, the decisions in `walk.py`, the argument for completeness in `fetch.py`.
"""

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from vouchertools import contract
from vouchertools.client import Client
from vouchertools.contract import Interval
from vouchertools.errors import IncompleteReadError
from vouchertools.pool import Closing, Pool
from vouchertools.walk import Scope, Walk, merge

#: Closing reads reach back this much further than the instant that they close from: a server's clocks may
#: differ, and a change may become visible a moment after its timestamp.
CLOSING_MARGIN: Final = timedelta(seconds=5)
#: Most closing reads of one pull.
MAX_CLOSINGS: Final = 20
#: Intervals end this far ahead of the server's clock, so that nothing is too new.
AHEAD: Final = timedelta(days=1)


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
