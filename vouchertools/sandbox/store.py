"""The codes in SQLite: rows in, pages out, every call one transaction.

A row is ``(seq, id, voucher, value, starts, ends, created, updated, active)``; instants are whole
microseconds, ``times.NEVER`` where there is none; ``voucher`` is the voucher's place in the estate. Pages are
newest first by the ordering column, and by ``seq``, the order of arrival, where that is equal.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import Literal, TypeAlias

Row: TypeAlias = tuple[int, str, int, str | None, int, int, int, int, int]
#: A row to be: without ``seq``.
NewRow: TypeAlias = tuple[str, int, str | None, int, int, int, int, int]

COLUMNS = "seq, id, voucher, value, starts, ends, created, updated, active"
#: Bounds below and above every instant and every ``seq``.
LOWEST, HIGHEST = -(1 << 62), 1 << 62
#: Up to this many codes in an interval are fetched by ``updated`` and sorted, whatever orders the pages.
FEW_IN_INTERVAL = 20_000
#: Vouchers that hold at least this share of all codes are read from the order of all codes.
LARGE_SHARE = 0.1

_TABLES = """
CREATE TABLE IF NOT EXISTS codes (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL COLLATE NOCASE, voucher INTEGER NOT NULL, value TEXT,
    starts INTEGER NOT NULL, ends INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,
    active INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS past (
    seq INTEGER, id TEXT, voucher INTEGER, value TEXT, starts INTEGER, ends INTEGER, created INTEGER,
    updated INTEGER, active INTEGER);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, fact TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Wanted:
    """Which codes a page is for: what ``voucherCodes/getAll`` can filter by.

    Attributes
    ----------
    vouchers
        Places of vouchers in the estate.
    low, high
        Bounds of ``updated``, both inclusive; None for no interval.
    ids
        Ids of codes; None for any.
    """

    vouchers: Sequence[int]
    low: int | None = None
    high: int | None = None
    ids: Sequence[str] | None = None


class Store:
    """The table of codes, and a few facts about this sandbox that outlive it.

    Parameters
    ----------
    path
        The SQLite file; None for memory.
    order
        The column that orders pages.
    unique_values
        Whether values will be looked up often.
    keep_history
        Whether a row that changes is kept as it was.

    Raises
    ------
    OSError
        The file is no store, or another process uses it.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        order: Literal["updated", "created"],
        unique_values: bool = False,
        keep_history: bool = False,
    ) -> None:
        self.lock = RLock()
        self._order = order
        self._unique_values = unique_values
        self._keep_history = keep_history
        self._held: Counter[int] = Counter()
        self._db = _connect(path)
        self._make_indexes()

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the store alone; all that is written inside is kept, or nothing of it."""
        with self.lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def get_fact(self, name: str) -> str | None:
        """Read a fact; None where there is none."""
        with self.lock:
            found = self._db.execute("SELECT fact FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def set_fact(self, name: str, fact: str) -> None:
        """Keep a fact."""
        with self.transaction():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, fact))

    def load(self, rows: Iterable[NewRow]) -> None:
        """Fill an empty store at once, indexes last."""
        with self.transaction():
            for name in self._indexes():
                self._db.execute(f"DROP INDEX IF EXISTS {name}")
            self._insert(rows)
        self._make_indexes()

    def page(self, wanted: Wanted, *, after: tuple[int, int] | None, count: int) -> list[Row]:
        """Read the newest codes that are wanted, older than the `place` ``after``."""
        with self.lock:
            if wanted.ids is not None:
                return self._sorted_page("codes_id", *_any_of("id", wanted.ids), wanted, after, count)
            if self._order != "updated" and self._is_narrow(wanted):
                return self._sorted_page("codes_updated", "TRUE", [], wanted, after, count)
            held = sum(self._held[voucher] for voucher in wanted.vouchers)
            if len(wanted.vouchers) > 1 and held >= LARGE_SHARE * self._held.total():
                everything = held == self._held.total()
                part = ("TRUE", []) if everything else _any_of("voucher", wanted.vouchers)
                return list(islice(self._walk(f"codes_{self._order}", *part, wanted, after, count), count))
            walks = [
                self._walk("codes_voucher", "voucher = ?", [voucher], wanted, after, count)
                for voucher in wanted.vouchers
                if self._held[voucher]
            ]
            at = 7 if self._order == "updated" else 6
            return list(islice(merge(*walks, key=lambda row: (row[at], row[0]), reverse=True), count))

    def place(self, row: Row) -> tuple[int, int]:
        """Tell where a code stands in the order of pages."""
        return (row[7] if self._order == "updated" else row[6]), row[0]

    def find(self, ids: Sequence[str]) -> dict[str, Row]:
        """Look codes up; the keys are their ids in lower case, those that do not exist are missing."""
        where, values = _any_of("id", ids)
        with self.lock:
            rows = self._db.execute(f"SELECT {COLUMNS} FROM codes WHERE {where}", values)
            return {row[1].lower(): row for row in rows}

    def holds_active(self, voucher: int, value: str) -> bool:
        """Tell whether a voucher has an active code of exactly this value."""
        with self.lock:
            query = "SELECT 1 FROM codes WHERE voucher = ? AND value = ? AND active LIMIT 1"
            return self._db.execute(query, (voucher, value)).fetchone() is not None

    def random_id(self, share: float) -> str | None:
        """Pick the code that stands at this share (0 to 1) of all that ever arrived."""
        with self.lock:
            last = self._db.execute("SELECT max(seq) FROM codes").fetchone()[0] or 0
            query = "SELECT id FROM codes WHERE seq >= ? LIMIT 1"
            found = self._db.execute(query, (int(share * last),)).fetchone()
        return None if found is None else str(found[0])

    def add(self, rows: Sequence[NewRow]) -> list[Row]:
        """Add codes and return them as stored."""
        with self.transaction():
            last = self._db.execute("SELECT max(seq) FROM codes").fetchone()[0] or 0
            self._insert(rows)
            self._held.update(row[1] for row in rows)
        return [(last + number, *row) for number, row in enumerate(rows, start=1)]

    def change(self, ids: Sequence[str], *, updated: int, **columns: int | None) -> int:
        """Set columns of the codes with these ids, ``updated`` among them; return how many there were."""
        where, values = _any_of("id", ids)
        sets = ", ".join(f"{name} = ?" for name in columns)
        with self.transaction():
            if self._keep_history:
                self._db.execute(f"INSERT INTO past SELECT {COLUMNS} FROM codes WHERE {where}", values)
            query = f"UPDATE codes SET updated = ?{', ' if sets else ''}{sets} WHERE {where}"
            return self._db.execute(query, [updated, *columns.values(), *values]).rowcount

    def rows(self) -> list[Row]:
        """Read every code, by id."""
        with self.lock:
            return self._db.execute(f"SELECT {COLUMNS} FROM codes ORDER BY id").fetchall()

    def past_rows(self) -> list[Row]:
        """Read every state that a code was in before its present one."""
        with self.lock:
            return self._db.execute(f"SELECT {COLUMNS} FROM past").fetchall()

    def _insert(self, rows: Iterable[NewRow]) -> None:
        self._db.executemany("INSERT INTO codes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _indexes(self) -> dict[str, str]:
        indexes = {
            "codes_id": "UNIQUE INDEX IF NOT EXISTS codes_id ON codes (id)",
            "codes_updated": "INDEX IF NOT EXISTS codes_updated ON codes (updated, seq, voucher)",
            "codes_voucher": f"INDEX IF NOT EXISTS codes_voucher ON codes (voucher, {self._order}, seq)",
        }
        if self._order != "updated":
            order = "INDEX IF NOT EXISTS codes_created ON codes (created, seq, updated, voucher)"
            indexes["codes_created"] = order
        if self._unique_values:
            indexes["codes_value"] = "INDEX IF NOT EXISTS codes_value ON codes (voucher, value)"
        return indexes

    def _make_indexes(self) -> None:
        with self.transaction():
            for definition in self._indexes().values():
                self._db.execute(f"CREATE {definition}")
            counts = self._db.execute("SELECT voucher, count(*) FROM codes GROUP BY voucher").fetchall()
        self._held = Counter(dict(counts))

    def _is_narrow(self, wanted: Wanted) -> bool:
        if wanted.low is None or wanted.high is None:
            return False
        some = "SELECT 1 FROM codes INDEXED BY codes_updated WHERE updated BETWEEN ? AND ? LIMIT ?"
        query = f"SELECT count(*) FROM ({some})"
        counted = self._db.execute(query, (wanted.low, wanted.high, FEW_IN_INTERVAL + 1)).fetchone()[0]
        return bool(counted <= FEW_IN_INTERVAL)

    def _sorted_page(
        self,
        index: str,
        where: str,
        values: list[object],
        wanted: Wanted,
        after: tuple[int, int] | None,
        count: int,
    ) -> list[Row]:
        if wanted.low is not None:
            where, values = f"{where} AND updated BETWEEN ? AND ?", [*values, wanted.low, wanted.high]
        if after is not None:
            where, values = f"{where} AND ({self._order}, seq) < (?, ?)", [*values, *after]
        which, vouchers = _any_of("voucher", wanted.vouchers)
        query = (
            f"SELECT {COLUMNS} FROM codes INDEXED BY {index} WHERE {where} AND {which} "
            f"ORDER BY {self._order} DESC, seq DESC LIMIT ?"
        )
        return self._db.execute(query, [*values, *vouchers, count]).fetchall()

    def _walk(
        self,
        index: str,
        where: str,
        values: list[object],
        wanted: Wanted,
        after: tuple[int, int] | None,
        count: int,
    ) -> Iterator[Row]:
        """Read in the order of an index: what is as old as ``after`` first, then what is older."""
        order = self._order
        low, high = (
            (LOWEST, HIGHEST) if wanted.low is None or wanted.high is None else (wanted.low, wanted.high)
        )
        spans = [(LOWEST, HIGHEST, HIGHEST)]
        if after is not None:
            spans = [(after[0], after[0], after[1] - 1), (LOWEST, after[0] - 1, HIGHEST)]
        for oldest, newest, last in spans:
            if order == "updated":
                span, bounds = "TRUE", [max(low, oldest), min(high, newest)]
            else:
                span, bounds = "updated BETWEEN ? AND ?", [low, high, oldest, newest]
            if last != HIGHEST:
                span, bounds = f"seq <= ? AND {span}", [last, *bounds]
            query = (
                f"SELECT {COLUMNS} FROM codes INDEXED BY {index} WHERE {where} AND {span} "
                f"AND {order} BETWEEN ? AND ? ORDER BY {order} DESC, seq DESC LIMIT ?"
            )
            yield from self._db.execute(query, [*values, *bounds, count])


def _connect(path: Path | None) -> sqlite3.Connection:
    """Open a database with the tables; a file belongs to this process alone, and to this user."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    db = sqlite3.connect(path or ":memory:", timeout=1, check_same_thread=False, isolation_level=None)
    try:
        if path is not None:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_TABLES)
    except sqlite3.DatabaseError as error:
        db.close()
        raise OSError(f"The store {path} cannot be used ({error}): is another sandbox using it?") from error
    return db


def _any_of(column: str, values: Iterable[object]) -> tuple[str, list[object]]:
    return f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(list(values))]
