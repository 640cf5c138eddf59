"""The two things a run can do, to some of its rows at a time: delete codes, add codes.

Each action knows how to check rows right before they are sent, to send them, to find out afterwards what
became of a request whose answer was lost, and to prove an outcome. It changes the rows that it is given
and nothing else; the journal and the order of things are ``work.py``'s.

A code that appears after a request to add it was sent is taken for ours when it has the row's voucher,
value and window, and when its id did not hold them before. A colleague who adds the very same code at
that very moment cannot be told apart, and then one code exists, not two.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import pandas as pd

from vouchertools.bulk.live import Holdings, read_codes
from vouchertools.bulk.records import Code, Row, Sending, times, to_codes
from vouchertools.client import Client
from vouchertools.contract import COLUMNS
from vouchertools.errors import UnreadableAnswerError

_READ_BACK: Final = "Its answer was lost; read back as {}."


class Action(Protocol):
    """What a run does to its rows."""

    def prepare(self, *, progress: bool) -> None:
        """Read what is needed once."""

    def check(self, rows: Sequence[Row]) -> list[Row]:
        """Hold rows against the live state: give those not to be sent their outcome, return the others."""

    def send(self, rows: Sequence[Row], enterprise_id: str | None) -> None:
        """Send one request; on success the rows have their outcome."""

    def read_back(self, sendings: Sequence[Sending], rows: dict[int, Row]) -> None:
        """Give the rows of ambiguous sendings that took effect their outcome."""

    def prove(self, rows: Sequence[Row]) -> list[Row]:
        """Read rows back that are done; those that the server does not show as done return."""


class Deletion:
    """Deletes the codes of its rows.

    Parameters
    ----------
    client
        The connection.
    selected, started
        When the codes were selected, and when the run began.
    """

    def __init__(self, client: Client, *, selected: int, started: int) -> None:
        self._client = client
        self._selected = selected
        self._started = started

    def prepare(self, *, progress: bool) -> None:
        """Nothing: codes are read by id, batch by batch."""

    def check(self, rows: Sequence[Row]) -> list[Row]:
        """Leave alone what is gone, deleted or touched."""
        live = read_codes(self._client, [row.code for row in rows], since=self._selected)
        for row in rows:
            code = live.get(row.code.id.lower())
            if code is None:
                row.outcome, row.message = "missing", "The server shows no code with this id."
            elif code.is_deleted:
                row.new = code
                if row.tried:
                    row.outcome, row.proved, row.message = "deleted", True, _READ_BACK.format("deleted")
                else:
                    row.outcome, row.message = "already deleted", _when("It was deleted", code.updated)
            elif not code.same_as(row.code):
                row.outcome = "changed"
                row.message = f"Touched since it was selected ({_differences(row.code, code)}): left alone."
        return [row for row in rows if row.outcome is None]

    def send(self, rows: Sequence[Row], enterprise_id: str | None) -> None:
        """Send one request."""
        self._client.delete([row.code.id for row in rows], enterprise_id=enterprise_id)
        for row in rows:
            row.outcome, row.request_id = "deleted", self._client.last_request_id

    def read_back(self, sendings: Sequence[Sending], rows: dict[int, Row]) -> None:
        """Find what is deleted after all."""
        for sending in sendings:
            asked = [rows[number] for number in sending.rows if rows[number].outcome is None]
            if not asked:
                continue
            live = read_codes(self._client, [row.code for row in asked], since=sending.intended)
            for row in asked:
                code = live.get(row.code.id.lower())
                if code is not None and code.is_deleted:
                    row.outcome, row.new, row.proved = "deleted", code, True
                    row.message = _READ_BACK.format("deleted")

    def prove(self, rows: Sequence[Row]) -> list[Row]:
        """Read back whether it is deleted."""
        codes = [row.new or row.code._replace(updated=None) for row in rows]
        live = read_codes(self._client, codes, since=self._started)
        odd = []
        for row in rows:
            code = live.get(row.code.id.lower())
            if code is None or not code.is_deleted:
                odd.append(row)
            else:
                row.new, row.proved = code, True
        return odd


class Addition:
    """Adds the codes of its rows.

    Parameters
    ----------
    client
        The connection.
    rows
        All rows of the run.
    """

    def __init__(self, client: Client, rows: Sequence[Row]) -> None:
        self._client = client
        self._holdings = Holdings(client, (row.code for row in rows if row.outcome is None))
        self._twins: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
        for row in rows:
            self._twins[row.code.key].append(row)
        self._lock = threading.Lock()
        #: Codes that some row of this run has been given.
        self._taken = {row.new.id.lower() for row in rows if row.new is not None}

    def prepare(self, *, progress: bool) -> None:
        """Read the vouchers in full: who holds the values."""
        self._holdings.read_all(progress=progress)

    def check(self, rows: Sequence[Row]) -> list[Row]:
        """Leave alone what the voucher has already."""
        self._holdings.look(row.code for row in rows)
        with self._lock:
            self._credit([row for row in rows if row.tried])
            for row in rows:
                if row.outcome is None:
                    self._check(row)
            return [row for row in rows if row.outcome is None and not self._has_doubtful_twin(row)]

    def send(self, rows: Sequence[Row], enterprise_id: str | None) -> None:
        """Send one request, and match its answer by voucher and value."""
        frame = pd.DataFrame(
            {
                "VoucherId": [row.code.voucher_id for row in rows],
                "Value": [row.code.value for row in rows],
                "ValidityStartUtc": times(row.code.start for row in rows),
                "ValidityEndUtc": times(row.code.end for row in rows),
            }
        )
        answer = self._client.add(frame, enterprise_id=enterprise_id)
        given = match_codes(rows, to_codes(answer[list(COLUMNS)]))
        if len(given) < len(rows):
            raise UnreadableAnswerError(
                f"The answer names {len(given):,} of the {len(rows):,} codes to add.",
                request_id=self._client.last_request_id,
            )
        with self._lock:
            for row in rows:
                self._give(row, given[row.n])
                row.request_id = self._client.last_request_id

    def read_back(self, sendings: Sequence[Sending], rows: dict[int, Row]) -> None:
        """Find what was added after all."""
        asked = [rows[number] for sending in sendings for number in sending.rows]
        self._holdings.look_back((row.code for row in asked), since=min(s.intended for s in sendings))
        for sending in sendings:
            self._credit([rows[number] for number in sending.rows if rows[number].outcome is None])

    def prove(self, rows: Sequence[Row]) -> list[Row]:
        """Read back whether it is there, windows included."""
        codes = [row.new for row in rows if row.new is not None]
        live = read_codes(
            self._client, codes, since=min((c.created for c in codes if c.created), default=None)
        )
        odd = []
        for row in rows:
            code = None if row.new is None else live.get(row.new.id.lower())
            if code is None or code.key != row.code.key:
                odd.append(row)
                continue
            row.new, row.proved = code, True
            if code.window != row.code.window:
                row.outcome = "changed"
                row.message = f"It was added, but the server shows another {_differences(row.code, code)}."
            elif code.is_deleted:
                row.message = _when("It was added, and somebody deleted it", code.updated)
        return odd

    def _check(self, row: Row) -> None:
        """Decide about a row that no code stands for yet."""
        if self._has_doubtful_twin(row):
            return
        holders = self._holdings.of(row.code)
        others = [code for code in holders if not code.is_deleted and code.id.lower() not in self._taken]
        if row.former_deleted is not None:
            # It restores one of several equal values: only what came after the deletion replaces it.
            others = [code for code in others if code.created is None or code.created >= row.former_deleted]
        if others:
            oldest = min(others, key=lambda code: (code.created or 0, code.id))
            row.outcome, row.new = "exists", oldest
            row.message = f"The voucher has an active code of this value: {oldest.id}."
            if row.former_deleted is not None:
                self._taken.add(oldest.id.lower())
        elif row.held is None:
            row.held = frozenset(code.id.lower() for code in holders)

    def _has_doubtful_twin(self, row: Row) -> bool:
        """Whether an equal row was sent and is not settled: then this one waits."""
        twins = self._twins[row.code.key]
        return any(twin is not row and twin.doubtful and twin.outcome is None for twin in twins)

    def _credit(self, rows: Sequence[Row]) -> None:
        """Give rows the codes that appeared since they were sent first."""
        found = {
            code.id.lower(): code
            for row in rows
            for code in self._holdings.of(row.code)
            if code.id.lower() not in (row.held or ()) and code.id.lower() not in self._taken
        }
        given = match_codes(rows, found.values(), same_window=True)
        for row in rows:
            if row.n in given:
                self._give(row, given[row.n])
                row.message = _READ_BACK.format("added")

    def _give(self, row: Row, code: Code) -> None:
        row.outcome, row.new = "added", code
        self._taken.add(code.id.lower())


def match_codes(rows: Iterable[Row], codes: Iterable[Code], *, same_window: bool = False) -> dict[int, Code]:
    """Which code stands for which row, by the row's number.

    Voucher and value are the same, and the window if there is a choice. Of several equal codes the one is
    taken that was created when most others were: a request creates all its codes at one instant.
    """
    rows, codes = list(rows), list(codes)
    stamps = Counter(code.created for code in codes)
    by_key: defaultdict[tuple[str, str | None], list[Code]] = defaultdict(list)
    for code in sorted(codes, key=lambda code: (-stamps[code.created], code.id)):
        by_key[code.key].append(code)
    given: dict[int, Code] = {}
    for loose in (False,) if same_window else (False, True):
        for row in rows:
            if row.n in given:
                continue
            choice = next(
                (code for code in by_key[row.code.key] if loose or code.window == row.code.window), None
            )
            if choice is not None:
                by_key[row.code.key].remove(choice)
                given[row.n] = choice
    return given


def _differences(expected: Code, live: Code) -> str:
    names = [
        name
        for name, was, now in zip(COLUMNS[2:], expected[2:], live[2:], strict=True)
        if was != now and not (name in ("CreatedUtc", "UpdatedUtc", "ActivityState") and not expected.id)
    ]
    return ", ".join(names) or "record"


def _when(what: str, number: int | None) -> str:
    return (
        f"{what}." if number is None else f"{what} at {times([number])[0].strftime('%Y-%m-%d %H:%M:%S')} UTC."
    )
