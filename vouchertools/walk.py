"""What to walk, and how a walk is cut in two. Pure decisions; `pool.py` and `pull.py` carry them out.

A *walk* reads the codes of one *scope* (some vouchers) within one *interval* of ``UpdatedUtc``, page by page,
newest first. Intervals are cut in whole seconds and share their boundary, so a cut is right whether the
server takes the end of an interval as part of it or not; what is then read twice is dropped by `Id`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouchertools import contract
from vouchertools.contract import Interval
from vouchertools.errors import IncompleteReadError

#: How often one walk may be cut or begun again before the pull gives up on it.
MAX_ATTEMPTS: Final = 12
#: A worker that hands over work keeps what it expects to read in so many more pages. Measured: shorter pieces
#: end in more half-empty pages, longer ones leave workers idle.
HORIZON_PAGES: Final = 16
#: Less than so many pages are not worth handing over.
MIN_PAGES: Final = 8
#: Into so many shares the vouchers of one walk are divided at most: each share begins with what is known
#: already.
MAX_SHARES: Final = 4
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Scope:
    """What a walk is restricted to, besides its interval: at most 1000 ids of each kind, in lower case."""

    voucher_ids: tuple[str, ...]
    enterprise_ids: tuple[str, ...] | None = None
    voucher_code_ids: tuple[str, ...] | None = None

    def halves(self) -> "list[Scope]":
        """The scope as two with half of the vouchers each; itself where it has only one."""
        middle = len(self.voucher_ids) // 2
        if middle == 0:
            return [self]
        return [
            replace(self, voucher_ids=self.voucher_ids[:middle]),
            replace(self, voucher_ids=self.voucher_ids[middle:]),
        ]


def scopes(
    voucher_ids: Sequence[str],
    enterprise_ids: Sequence[str] | None = None,
    voucher_code_ids: Sequence[str] | None = None,
) -> list[Scope]:
    """Scopes of at most 1000 ids of each kind that together cover all combinations; ids in lower case."""

    def groups(ids: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(map(str.lower, chunk)) for chunk in contract.chunks(ids)]

    enterprises = [None] if enterprise_ids is None else groups(enterprise_ids)
    codes = [None] if voucher_code_ids is None else groups(voucher_code_ids)
    return [Scope(*ids) for ids in product(groups(voucher_ids), enterprises, codes)]


@dataclass(frozen=True)
class Walk:
    """One thing to be walked.

    Attributes
    ----------
    count
        Codes asked for at once.
    attempt
        How often it was cut or begun again.
    share
        Into how many shares its vouchers were divided, to be read at the same time.
    closing
        Number of the read, of those that may prove their scope complete, that it is part of; None: of none.
    """

    scope: Scope
    interval: Interval
    count: int = contract.MAX_ITEMS
    attempt: int = 0
    share: int = 1
    closing: int | None = None


def again(walk: Walk, reason: str, *, smaller_pages: bool = False) -> list[Walk]:
    """The walks that replace one which made no progress: the same, cut into two shorter intervals.

    Where time cannot be cut any more, vouchers are; a second of one voucher is walked again as it is.

    Raises
    ------
    IncompleteReadError
        It has been tried `MAX_ATTEMPTS` times.
    """
    if walk.attempt >= MAX_ATTEMPTS:
        raise IncompleteReadError(
            f"The codes updated from {contract.format_utc(walk.interval.start)} to "
            f"{contract.format_utc(walk.interval.end)} could not be read completely in "
            f"{MAX_ATTEMPTS} attempts: {reason}. "
            "Nothing partial is returned. Try again; if it stays, report it to Mews support."
        )
    walk = replace(
        walk, attempt=walk.attempt + 1, count=max(1, walk.count // 2) if smaller_pages else walk.count
    )
    start, end = walk.interval.start, walk.interval.end
    if walk.interval.seconds >= 2:
        middle = start + timedelta(seconds=walk.interval.seconds // 2)
        return [
            replace(walk, interval=Interval(start, middle)),
            replace(walk, interval=Interval(middle, end)),
        ]
    return [replace(walk, scope=scope) for scope in walk.scope.halves()]


@dataclass
class Position:
    """How far a walk has come: what `divide` decides on."""

    pages: int = 0
    newest: datetime | None = None
    oldest: datetime | None = None
    middle: datetime | None = None
    ordered: bool = True
    voucher_id: str = ""

    @property
    def of_one_second(self) -> bool:
        """Whether all codes seen were updated within one second."""
        return (
            self.ordered
            and self.newest is not None
            and self.oldest is not None
            and self.newest - self.oldest < _SECOND
        )

    def see(self, page: pa.Table) -> None:
        """Take in one more page."""
        updated = page.column("UpdatedUtc")
        if updated.null_count:
            self.ordered, self.middle = False, None
            return
        self.pages += 1
        times = updated.combine_chunks().cast(pa.int64())
        first = updated[0].as_py()
        older = self.oldest is None or first <= self.oldest
        self.ordered = self.ordered and older and not pc.any(pc.less(times[:-1], times[1:])).as_py()
        self.newest = self.newest or first
        self.oldest = updated[-1].as_py()
        self.middle = (
            None if self.ordered else updated[pc.sort_indices(times)[len(times) // 2].as_py()].as_py()
        )
        self.voucher_id = page.column("VoucherId")[-1].as_py().lower()


def divide(walk: Walk, position: Position, *, idle: bool) -> tuple[Walk, bool, Walk] | None:
    """Cut what is left of a walk: what it keeps, whether its cursor still serves, what it hands over.

    Where a first page is all of one second, a bulk import, vouchers are divided, whether or not a worker is
    idle. Otherwise time is, for an idle worker: where pages come by ``UpdatedUtc``, the rest is older than
    the cursor's code, so the walk keeps its cursor and the next `HORIZON_PAGES` pages at the rate seen so
    far, at most half of the time, and hands over what is older. Where they come by something else, only a
    first page is cut, in its middle. None means: not worth it.
    """
    if position.of_one_second and position.pages == 1 and walk.share < MAX_SHARES:
        return _divide_vouchers(walk, position)
    cut = _cut(walk, position) if idle else None
    if cut is None or not walk.interval.start < cut < walk.interval.end:
        return None
    assert position.oldest is not None
    return (
        replace(walk, interval=Interval(cut, walk.interval.end)),
        position.oldest >= cut,
        replace(walk, interval=Interval(walk.interval.start, cut)),
    )


def _cut(walk: Walk, position: Position) -> datetime | None:
    """Where to cut a walk in time; None where that is not worth it."""
    if position.newest is None or position.oldest is None:
        return None
    if not position.ordered:
        return contract.floor_second(position.middle) if position.pages == 1 and position.middle else None
    if position.of_one_second:
        return contract.floor_second(position.oldest) - _SECOND
    left = position.oldest - walk.interval.start
    page = (position.newest - position.oldest) / position.pages
    if left < MIN_PAGES * page:
        return None
    return contract.floor_second(position.oldest - min(left / 2, HORIZON_PAGES * page))


def _divide_vouchers(walk: Walk, position: Position) -> tuple[Walk, bool, Walk] | None:
    if len(walk.scope.voucher_ids) < 2:
        return None
    walk = replace(walk, share=2 * walk.share)
    mine, other = walk.scope.halves()
    if position.voucher_id not in mine.voucher_ids:
        mine, other = other, mine
    return replace(walk, scope=mine), True, replace(walk, scope=other)


def merge(tables: Sequence[pa.Table], reads: Sequence[int]) -> pa.Table:
    """One table without repeated ids: the newest `UpdatedUtc` wins, a tie goes to the later read.

    Parameters
    ----------
    tables
        Codes, in the order that the result shall have.
    reads
        For each table, when it was read: any increasing number.
    """
    if not tables:
        return contract.empty_table()
    table = pa.concat_tables(tables)
    ids = table.column("Id")
    rows = _with_repeated_hash(ids)
    if not len(rows):
        return table
    read = pa.concat_arrays(
        [pa.repeat(number, len(part)) for number, part in zip(reads, tables, strict=True)]
    )
    rivals = pa.table(
        {
            "Id": ids.take(rows),
            "UpdatedUtc": table.column("UpdatedUtc").take(rows),
            "read": read.take(rows),
            "row": rows,
        }
    ).sort_by(
        [("Id", "ascending"), ("UpdatedUtc", "descending"), ("read", "descending"), ("row", "ascending")]
    )
    sorted_ids = rivals.column("Id").combine_chunks()
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(sorted_ids[1:], sorted_ids[:-1])])
    losers = rivals.filter(pc.invert(first)).column("row").combine_chunks()
    keep = np.ones(table.num_rows, dtype=bool)
    keep[losers.to_numpy()] = False
    return table.filter(pa.array(keep))


def _with_repeated_hash(ids: pa.ChunkedArray) -> pa.Array:
    """The rows whose id has the same hash as another row's: every repeated id, hardly any other.

    Counting the distinct ids instead would take some 100 bytes an id, at the moment when a pull needs most.
    """
    hashes = np.empty(len(ids), np.int64)
    filled = 0
    for chunk in ids.chunks:
        texts = chunk.to_numpy(zero_copy_only=False)
        hashes[filled : filled + len(chunk)] = np.fromiter(map(hash, texts), np.int64, len(chunk))
        filled += len(chunk)
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return pa.array([], pa.int64())
    places = np.searchsorted(repeated, hashes).clip(max=len(repeated) - 1)
    return pa.array(np.flatnonzero(repeated[places] == hashes))
