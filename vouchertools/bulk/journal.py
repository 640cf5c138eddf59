"""The journal: what was intended, sent and confirmed, in one SQLite file that outlives a kernel.

A *run* is one application of a plan. Its *rows* are the plan's codes; a row's *outcome* is what became of
it, none as long as that is open. A *sending* is one request that writes: its *intent* is committed before
the request leaves, its *answer* after. A sending without an answer is the trace of a process that was
killed: the server may have acted.

=============  ========================================================================================
answer         meaning
=============  ========================================================================================
``accepted``   the server did it
``refused``    the server did not do it and said why
``unsent``     the request never reached the server
``answered``   the server is done, but whether it acted is not known
``unanswered`` the server may even still be at work
=============  ========================================================================================

Every transaction is on disk when its call returns (WAL, ``synchronous=FULL``), so killing the process, or
the machine, at any instant loses nothing that was known. A *digest* is spent by the first intent of a run
that is no rehearsal. Other processes may read while a run writes. The file holds values, which are money,
and is readable by its owner alone; it never holds a token.
"""

import json
import os
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from vouchertools.bulk.records import Code, Record, Row, RunFacts, Sending
from vouchertools.errors import InputError, JournalError, PlanError
from vouchertools.settings import data_folder

#: Raised when the tables change.
VERSION: Final = 1

_CODE: Final = "id, voucher_id, value, start, end, created, updated, state"
_NEW: Final = ", ".join(f"new_{name}" for name in _CODE.split(", "))
_CODE_TYPES: Final = ("TEXT", "TEXT", "TEXT", "INTEGER", "INTEGER", "INTEGER", "INTEGER", "TEXT")


def _columns(names: str) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in zip(names.split(", "), _CODE_TYPES, strict=True))


_TABLES: Final = f"""
CREATE TABLE run (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, environment TEXT NOT NULL, rehearsal INTEGER NOT NULL,
    digest TEXT NOT NULL, reason TEXT NOT NULL, undo_of TEXT, tz TEXT NOT NULL, allow_valid INTEGER NOT NULL,
    selected INTEGER NOT NULL, started INTEGER NOT NULL, seen INTEGER NOT NULL, ended INTEGER,
    state TEXT NOT NULL, note TEXT NOT NULL, counts TEXT);
CREATE TABLE spent (
    digest TEXT NOT NULL, environment TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (digest, environment))
    WITHOUT ROWID;
CREATE TABLE row (
    run TEXT NOT NULL, n INTEGER NOT NULL, {_columns(_CODE)}, former_deleted INTEGER, held TEXT,
    tried INTEGER NOT NULL DEFAULT 0, outcome TEXT, message TEXT, request_id TEXT,
    proved INTEGER NOT NULL DEFAULT 0, {_columns(_NEW)}, PRIMARY KEY (run, n)) WITHOUT ROWID;
CREATE TABLE sending (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, rows TEXT NOT NULL, enterprise TEXT, intended INTEGER NOT NULL,
    concluded INTEGER, answer TEXT, request_id TEXT, message TEXT, settled INTEGER NOT NULL DEFAULT 0);
CREATE INDEX sending_run ON sending (run);
PRAGMA user_version = {VERSION};
"""


def default_path() -> Path:
    """Where the journal lies unless told otherwise: in the data folder."""
    return data_folder() / "journal.sqlite"


class Journal:
    """The open journal; a context manager, safe to use from several threads.

    Parameters
    ----------
    path
        The SQLite file; None: `default_path`. It is made when it is missing.
    create
        Whether it may be made; otherwise a missing one is an error.

    Raises
    ------
    JournalError
        It cannot be opened, or is of another version.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, create: bool = True) -> None:
        self.path = Path(path) if path is not None else default_path()
        self._lock = threading.RLock()
        if not create and not self.path.exists():
            raise JournalError(f"There is no journal at {self.path}: nothing was ever applied from here.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite gives its side files the mode of the main one.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"The journal {self.path} cannot be opened: {error}.") from error

    def _prepare(self) -> None:
        if self._version() == 0:
            with self._transaction() as db:
                if self._version() == 0:
                    for statement in _TABLES.split(";\n"):
                        db.execute(statement)
        if self._version() != VERSION:
            raise JournalError(
                f"The journal {self.path} is of version {self._version()}, not {VERSION}. "
                "Update vouchertools, or move the file away to begin a new one."
            )

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def lock(self, environment: str) -> Iterator[None]:
        """Keep every other run in an environment away, also of another process, as long as this one lives.

        Raises
        ------
        JournalError
            Another run is under way.
        """
        lock = self._file_lock(environment)
        try:
            # A look by `is_locked` holds it for an instant too.
            lock.acquire(timeout=1.0, poll_interval=0.01)
        except Timeout:
            raise JournalError(
                f"Another run is under way in {environment}. Wait for its end; vt.list_runs() shows it."
            ) from None
        except OSError as error:
            raise JournalError(f"The journal {self.path} cannot be locked: {error}.") from error
        try:
            yield
        finally:
            lock.release()

    def is_locked(self, environment: str) -> bool:
        """Whether a run is under way in an environment."""
        lock = self._file_lock(environment)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def begin(self, facts: RunFacts, rows: Sequence[Row]) -> None:
        """Note a new run and all its rows."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    facts.id,
                    facts.kind,
                    facts.environment,
                    facts.rehearsal,
                    facts.digest,
                    facts.reason,
                    facts.undo_of,
                    json.dumps(facts.tz),
                    facts.allow_valid,
                    facts.selected,
                    facts.started,
                    facts.seen,
                    facts.ended,
                    facts.state,
                    facts.note,
                ),
            )
            db.executemany(
                f"INSERT INTO row (run, n, {_CODE}, former_deleted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(facts.id, row.n, *row.code, row.former_deleted) for row in rows],
            )

    def intend(self, facts: RunFacts, rows: Sequence[Row], enterprise_id: str | None, *, now: int) -> Sending:
        """Note that a request is about to leave; on disk when this returns.

        Raises
        ------
        PlanError
            Another run has spent the plan's digest meanwhile.
        JournalError
            It could not be written; nothing may be sent.
        """
        numbers = [row.n for row in rows]
        with self._transaction() as db:
            if not facts.rehearsal:
                db.execute(
                    "INSERT OR IGNORE INTO spent VALUES (?, ?, ?)",
                    (facts.digest, facts.environment, facts.id),
                )
                spent_by = self.spent_by(facts.digest, facts.environment)
                if spent_by != facts.id:
                    raise PlanError(already_spent(spent_by))
            cursor = db.execute(
                "INSERT INTO sending (run, rows, enterprise, intended) VALUES (?, ?, ?, ?)",
                (facts.id, json.dumps(numbers), enterprise_id, now),
            )
            db.executemany(
                "UPDATE row SET held = ? WHERE run = ? AND n = ?",
                [(json.dumps(sorted(row.held)), facts.id, row.n) for row in rows if row.held],
            )
            self._see(facts, now)
        assert cursor.lastrowid is not None
        return Sending(cursor.lastrowid, numbers, enterprise_id, now)

    def conclude(self, facts: RunFacts, sending: Sending, rows: Iterable[Row] = (), *, now: int) -> None:
        """Note the answer to a sending, and what it makes of its rows."""
        sending.concluded = now
        with self._transaction() as db:
            db.execute(
                "UPDATE sending SET concluded = ?, answer = ?, request_id = ?, message = ? WHERE id = ?",
                (now, sending.answer, sending.request_id, sending.message, sending.id),
            )
            self._save(facts, rows)
            self._see(facts, now)

    def settle(self, facts: RunFacts, sendings: Iterable[Sending], rows: Iterable[Row]) -> None:
        """Note what was found out about ambiguous sendings."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE sending SET settled = ? WHERE id = ?", [(item.settled, item.id) for item in sendings]
            )
            self._save(facts, rows)

    def decide(self, facts: RunFacts, rows: Iterable[Row]) -> None:
        """Note what became of rows."""
        with self._transaction():
            self._save(facts, rows)

    def beat(self, facts: RunFacts, *, now: int) -> None:
        """Note that the run is alive: no request of it left much later than its last sign of life."""
        with self._transaction():
            self._see(facts, now)

    def end(self, facts: RunFacts, state: str, note: str, *, now: int) -> None:
        """Note how a run came to stand still; ``running`` begins it again."""
        facts.state, facts.note = state, note
        facts.ended = None if state == "running" else now
        with self._transaction() as db:
            # Counted once, so that a list of all runs need not look at their rows again.
            counts = None if state == "running" else json.dumps(self._count(facts.id))
            db.execute(
                "UPDATE run SET state = ?, note = ?, ended = ?, counts = ? WHERE id = ?",
                (state, note, facts.ended, counts, facts.id),
            )
            self._see(facts, now)

    def _save(self, facts: RunFacts, rows: Iterable[Row]) -> None:
        sets = ", ".join(f"{name} = ?" for name in _NEW.split(", "))
        self._db.executemany(
            "UPDATE row SET tried = ?, outcome = ?, message = ?, request_id = ?, proved = ?, "
            f"{sets} WHERE run = ? AND n = ?",
            [
                (
                    row.tried,
                    row.outcome,
                    row.message,
                    row.request_id,
                    row.proved,
                    *(row.new or (None,) * len(_CODE_TYPES)),
                    facts.id,
                    row.n,
                )
                for row in rows
            ],
        )

    def _see(self, facts: RunFacts, now: int) -> None:
        facts.seen = max(facts.seen, now)
        self._db.execute("UPDATE run SET seen = ? WHERE id = ?", (facts.seen, facts.id))

    def spent_by(self, digest: str, environment: str) -> str | None:
        """The run that has spent a digest."""
        found = self._query("SELECT run FROM spent WHERE digest = ? AND environment = ?", digest, environment)
        return found[0][0] if found else None

    def runs(self) -> list[tuple[RunFacts, dict[str, int]]]:
        """Every run, the latest first, with the number of rows by outcome, open and unknown ones too."""
        kept = dict(self._query("SELECT id, counts FROM run WHERE counts IS NOT NULL"))
        return [
            (facts, json.loads(kept[facts.id]) if facts.id in kept else self._count(facts.id))
            for facts in self._facts("ORDER BY rowid DESC")
        ]

    def _count(self, run_id: str) -> dict[str, int]:
        query = "SELECT outcome, count(*) FROM row WHERE run = ? AND outcome IS NOT NULL GROUP BY 1"
        counts = Counter(dict(self._query(query, run_id)))
        unsettled = {n for sending in self._sendings(run_id) if sending.is_open for n in sending.rows}
        for (n,) in self._query("SELECT n FROM row WHERE run = ? AND outcome IS NULL", run_id):
            counts["unknown" if n in unsettled else "open"] += 1
        return dict(counts)

    def load(self, run_id: str) -> Record:
        """All that is known of a run.

        Raises
        ------
        InputError
            There is no such run.
        """
        found = self._facts("WHERE id = ?", run_id)
        if not found:
            raise InputError(f"There is no run {run_id!r} in {self.path}. vt.list_runs() shows all.")
        sendings = self._sendings(run_id)
        sent = {number for sending in sendings for number in sending.rows}
        query = (
            f"SELECT n, former_deleted, held, tried, outcome, message, request_id, proved, {_CODE}, {_NEW} "
            "FROM row WHERE run = ? ORDER BY n"
        )
        rows = []
        for n, former_deleted, held, tried, outcome, message, request_id, proved, *codes in self._query(
            query, run_id
        ):
            row = Row(n, Code(*codes[:8]), former_deleted)
            if n in sent:
                row.held = frozenset(json.loads(held)) if held else frozenset()
            row.tried, row.proved = bool(tried), bool(proved)
            row.outcome, row.message, row.request_id = outcome, message or "", request_id
            row.new = None if codes[8] is None else Code(*codes[8:])
            rows.append(row)
        return Record(found[0], rows, sendings)

    def _facts(self, where: str, *values: Any) -> list[RunFacts]:
        found = []
        for *row, _ in self._query(f"SELECT * FROM run {where}", *values):
            facts = RunFacts(*row)
            facts.rehearsal, facts.allow_valid = bool(facts.rehearsal), bool(facts.allow_valid)
            facts.tz = json.loads(facts.tz)
            found.append(facts)
        return found

    def _sendings(self, run_id: str) -> list[Sending]:
        query = (
            "SELECT id, rows, enterprise, intended, concluded, answer, request_id, message, settled "
            "FROM sending WHERE run = ? ORDER BY id"
        )
        found = []
        for id_, rows, enterprise, intended, concluded, answer, request_id, message, settled in self._query(
            query, run_id
        ):
            sent = Sending(id_, json.loads(rows), enterprise, intended, concluded, answer, request_id)
            sent.message, sent.settled = message or "", bool(settled)
            found.append(sent)
        return found

    def _query(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"The journal {self.path} cannot be read: {error}.") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise JournalError(f"The journal {self.path} cannot be written: {error}.") from error

    def _file_lock(self, environment: str) -> FileLock:
        place = re.sub(r"[^A-Za-z0-9.-]", "_", environment)
        return FileLock(f"{self.path}.{place}.lock", mode=0o600)


def already_spent(run_id: str | None) -> str:
    """What to say when a plan is applied twice."""
    return (
        f"This plan was already applied: run {run_id}. If that run was cut off, vt.resume_run(client, "
        f"{run_id!r}) finishes it; to do the same again on purpose, make the plan anew with another reason."
    )
