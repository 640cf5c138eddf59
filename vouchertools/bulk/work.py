"""Carrying a run out: batches in flight, refusals halved, ambiguous requests settled, outcomes proved.

Rounds of three steps, until nothing is open: settle what is ambiguous, cut what is open into batches,
check and send each batch. Then everything is read back.

A *batch* is at most 1000 rows of one enterprise. Its intent is in the journal before the request leaves,
its answer after. What the server refuses is halved until the offending row is alone. What is ambiguous is
set aside, and looked at again only when everything else has been sent; a request that was never answered
is given up as not done ``settle_s`` of server time after it was sent, no sooner.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Final, Literal

from vouchertools.bulk.actions import Action
from vouchertools.bulk.journal import Journal
from vouchertools.bulk.records import Record, Row, Sending, to_micros
from vouchertools.client import Client
from vouchertools.contract import MAX_ITEMS
from vouchertools.errors import (
    ApiError,
    BadRequestError,
    ForbiddenError,
    InputError,
    NoAnswerError,
    NotFoundError,
    RateLimitedError,
    RunError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
)
from vouchertools.pace import Stopped

#: Batches in flight at the same time.
WORKERS: Final = 8
#: A check older than this many seconds is made again before the next piece of a refused batch is sent.
FRESH_S: Final = 10.0
#: So many rows refused alone for the same reason, none accepted, stop the run.
HOPELESS: Final = 10
#: So many rounds in a row that decide nothing stop the run.
MAX_STALLS: Final = 8
#: The run's sign of life in the journal comes this often, in seconds.
BEAT_S: Final = 5.0
#: Rows that were accepted and do not show are read back once more after so many seconds.
REREAD_S: Final = 5.0
#: How often the main thread looks up from waiting, in seconds.
_TICK_S: Final = 0.1
_SECOND: Final = 1_000_000

_Answer = Literal["accepted", "aside"] | ApiError


@dataclass
class Batch:
    """Rows that are sent together, and when they were last held against the live state."""

    rows: list[Row]
    enterprise_id: str | None
    checked: float = 0.0


class Work:
    """One run under way.

    Parameters
    ----------
    client
        The connection.
    journal
        The open journal, its lock held.
    record
        The run.
    action
        What it does.
    enterprises
        Enterprise by voucher id in lower case; None where it is not known, and the server has to judge.
    bar
        Counts decided codes.

    Attributes
    ----------
    sendings
        Every request that writes, in the order of the intents.
    """

    def __init__(
        self,
        client: Client,
        journal: Journal,
        record: Record,
        action: Action,
        *,
        enterprises: dict[str, str] | None,
        bar: Any,
    ) -> None:
        self._client = client
        self._journal = journal
        self._facts = record.facts
        self._rows = {row.n: row for row in record.rows}
        self.sendings = list(record.sendings)
        self._action = action
        self._enterprises = enterprises
        distinct = set((enterprises or {}).values())
        # With one enterprise alone, the server has the last word about a voucher that is not known.
        self._only_enterprise = distinct.pop() if len(distinct) == 1 else None
        self._bar = bar
        self._lock = threading.Lock()
        self._decided = sum(row.outcome is not None for row in record.rows)
        self._accepted = any(sending.answer == "accepted" for sending in record.sendings)
        self._refused_alone: Counter[str] = Counter()
        self._halted = False
        self._next_beat = client.monotonic() + BEAT_S
        # A process that was killed may have sent its last requests until a little after its last sign of
        # life.
        self._last_seen = record.facts.seen + int(2 * BEAT_S * _SECOND)

    def run(self, *, progress: bool) -> None:
        """Do all that is left to do.

        Raises
        ------
        RunError
            It had to stop.
        ApiError
            The server refused to go on, or cannot be reached.
        """
        self._action.prepare(progress=progress)
        stalls, before = 0, -1
        while True:
            self._settle()
            batches = self._batches()
            if not batches:
                break
            stalls = stalls + 1 if self._decided == before else 0
            before = self._decided
            if stalls == MAX_STALLS:
                raise RunError(
                    f"The server failed {MAX_STALLS} times in a row, and nothing could be settled. "
                    f"Try again later: vt.resume_run(client, {self._facts.id!r})."
                )
            if stalls:
                self._wait(min(2.0**stalls, 30.0), "the server fails")
            if not self._accepted:
                # The first batch goes alone: what is wrong with all of them is found at the price of one.
                self._each(self._carry_out, batches[:1])
                batches = batches[1:]
            self._each(self._carry_out, batches)
        self._prove()

    # ---- batches ----

    def _batches(self) -> list[Batch]:
        """What is open, cut by enterprise; the rows of a batch lie close together for the server."""
        groups: dict[str | None, list[Row]] = {}
        lost: list[Row] = []
        for row in self._rows.values():
            if row.outcome is None:
                known, enterprise_id = self._enterprise(row)
                (groups.setdefault(enterprise_id, []) if known else lost).append(row)
        for row in lost:
            row.outcome = "missing"
            row.message = "Its voucher belongs to no enterprise that this access token can see."
        self._decide(lost)
        batches = []
        for enterprise_id, rows in groups.items():
            rows.sort(key=_order)
            batches += [Batch(piece, enterprise_id) for piece in _pieces(rows)]
        return batches

    def _enterprise(self, row: Row) -> tuple[bool, str | None]:
        """Whether the row can be sent, and to which enterprise."""
        if self._enterprises is None:
            return True, None
        found = self._enterprises.get(row.code.voucher_id.lower(), self._only_enterprise)
        return found is not None, found

    def _carry_out(self, batch: Batch) -> None:
        """Check and send a batch; find the bad rows if it is refused."""
        batch.rows = self._check(batch, batch.rows)
        if not batch.rows:
            return
        answer = self._send(batch, batch.rows)
        if not isinstance(answer, ApiError):
            return
        left = batch.rows
        if len(left) > 1:
            left = self._check(batch, left)
            if 0 < len(left) < len(batch.rows):
                answer = self._send(batch, left)
                if not isinstance(answer, ApiError):
                    return
        if len(left) == 1:
            self._note_refused(batch, left[0], answer)
        elif left:
            self._halve(batch, left, answer)

    def _halve(self, batch: Batch, rows: list[Row], refusal: ApiError) -> None:
        """Send the halves of rows that were refused together, then the halves of the refused ones.

        If the first half is accepted, the second would be refused, and is halved without being sent. Halves
        come before quarters, so that what can go through does so before the run could be called hopeless.
        """
        middle = len(rows) // 2
        first, second = rows[:middle], rows[middle:]
        answer = self._send_piece(batch, first)
        parts = [(first, answer)]
        if answer == "accepted" and len(second) > 1 and not isinstance(refusal, TooLargeError):
            parts.append((second, refusal))
        else:
            parts.append((second, self._send_piece(batch, second)))
        for part, answer in parts:
            left = [row for row in part if row.outcome is None]
            if isinstance(answer, ApiError) and left:
                self._halve(batch, left, answer) if len(left) > 1 else self._note_refused(
                    batch, left[0], answer
                )

    def _send_piece(self, batch: Batch, rows: list[Row]) -> _Answer:
        """Send part of a refused batch, held against the live state anew if that was some time ago."""
        if self._client.monotonic() - batch.checked > FRESH_S:
            rows = self._check(batch, rows)
        return self._send(batch, rows) if rows else "accepted"

    def _note_refused(self, batch: Batch, row: Row, error: ApiError) -> None:
        """Note that a row was refused alone, unless somebody else did meanwhile what it was to do."""
        if not self._check(batch, [row]):
            return
        row.outcome, row.message, row.request_id = "refused", error.message, error.request_id
        self._decide([row])
        reason = _reason(row, error)
        with self._lock:
            self._refused_alone[reason] += 1
            hopeless = not self._accepted and self._refused_alone[reason] >= HOPELESS
        if hopeless:
            raise RunError(
                f"{HOPELESS} codes were refused one by one for the same reason, and none accepted: "
                f"{error.message} Nothing more was sent."
            )

    def _check(self, batch: Batch, rows: list[Row]) -> list[Row]:
        self._go_on()
        batch.checked = self._client.monotonic()
        left = self._action.check(rows)
        self._decide([row for row in rows if row.outcome is not None])
        return left

    def _send(self, batch: Batch, rows: list[Row]) -> _Answer:
        """Send one request, with its intent and its answer in the journal."""
        self._go_on()
        sending = self._journal.intend(self._facts, rows, batch.enterprise_id, now=self._now())
        with self._lock:
            self.sendings.append(sending)
        try:
            self._action.send(rows, batch.enterprise_id)
        except BaseException as error:
            sending.answer, sending.message = classify(error), str(error)
            sending.request_id = getattr(error, "request_id", None)
            if sending.is_open:
                for row in rows:
                    row.tried, row.doubtful, row.request_id = True, True, sending.request_id
            self._journal.conclude(self._facts, sending, rows, now=self._now())
            if sending.is_open and isinstance(error, ApiError):
                return "aside"
            if sending.answer == "refused" and isinstance(error, ApiError) and not _ends_the_run(error):
                return error
            raise
        sending.answer, sending.request_id = "accepted", self._client.last_request_id
        self._journal.conclude(self._facts, sending, rows, now=self._now())
        with self._lock:
            self._accepted = True
            self._decided += len(rows)
        return "accepted"

    # ---- what is ambiguous ----

    def _settle(self) -> None:
        """Find out what became of every sending whose answer is not known."""
        doubtful = [sending for sending in self.sendings if sending.is_open]
        if not doubtful:
            return
        for row in (self._rows[number] for sending in doubtful for number in sending.rows):
            row.tried, row.doubtful = True, True
        left = self._read_back(doubtful)
        if left:
            deadline = max(self._deadline(sending) for sending in left)
            self._wait((deadline - self._now()) / _SECOND, "an answer was lost, the server may be at work")
            left = self._read_back(left)
        if left:
            raise RunError(
                f"{len(left)} requests could not be settled, though their time had passed: the clock "
                f"of the server goes back. Try again: vt.resume_run(client, {self._facts.id!r})."
            )

    def _read_back(self, doubtful: list[Sending]) -> list[Sending]:
        """Settle what can be settled now; what the server may still be at work on returns."""
        began = self._now()
        self._action.read_back(doubtful, self._rows)
        for sending in doubtful:
            is_over = sending.answer == "answered" or began >= self._deadline(sending)
            sending.settled = is_over or all(self._rows[n].outcome is not None for n in sending.rows)
            for number in sending.rows:
                self._rows[number].doubtful = not sending.settled
        rows = [self._rows[number] for sending in doubtful for number in sending.rows]
        self._journal.settle(self._facts, doubtful, rows)
        self._count()
        return [sending for sending in doubtful if not sending.settled]

    def _deadline(self, sending: Sending) -> int:
        """When a request that was never answered cannot come into effect any more."""
        sent_before = self._last_seen if sending.concluded is None else sending.concluded
        return sent_before + int(self._client.settle_s * _SECOND)

    def _wait(self, seconds: float, why: str) -> None:
        until = self._client.monotonic() + seconds
        while (left := until - self._client.monotonic()) > 0:
            self._bar.set_postfix_str(f"waiting {left:.0f} s: {why}")
            self._client.wait(min(left, 1.0))
        self._bar.set_postfix_str("")

    # ---- proof ----

    def _prove(self) -> None:
        """Read back everything that is done; what the server does not show so is unknown."""
        done = [row for row in self._rows.values() if row.outcome in ("deleted", "added") and not row.proved]
        if not done:
            return
        self._bar.set_postfix_str("reading back")
        odd = self._prove_rows(done)
        if odd:
            self._wait(REREAD_S, "some codes do not show yet")
            odd = self._prove_rows(odd)
        for row in odd:
            row.message = f"The server said that it was {row.outcome}, but does not show it so."
            row.outcome = "unknown"
        self._journal.decide(self._facts, odd)
        self._bar.set_postfix_str("")

    def _prove_rows(self, rows: list[Row]) -> list[Row]:
        rows.sort(key=lambda row: (row.new.updated or 0 if row.new else 0, _order(row)))
        odd: list[Row] = []

        def prove(piece: list[Row]) -> None:
            odd.extend(self._action.prove(piece))
            self._journal.decide(self._facts, piece)

        self._each(prove, [rows[i : i + MAX_ITEMS] for i in range(0, len(rows), MAX_ITEMS)])
        return odd

    # ---- threads ----

    def _each(self, function: Callable[[Any], None], items: Sequence[Any]) -> None:
        """Call a function for each item, several at a time; the first failure or an interrupt ends it."""
        if not items:
            return
        with ThreadPoolExecutor(min(WORKERS, len(items)), thread_name_prefix="vouchertools-run") as pool:
            futures: list[Future[None]] = [pool.submit(function, item) for item in items]
            left = set(futures)
            try:
                while left:
                    done, left = wait(left, timeout=_TICK_S, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    self._tick()
            except BaseException as error:
                self._halted = True
                if isinstance(error, KeyboardInterrupt):
                    self._bar.set_postfix_str("interrupted: finishing what is under way")
                self._halt(left, at_once=False)
                raise _cause(error, futures) from None

    def _halt(self, left: Iterable[Future[None]], *, at_once: bool) -> None:
        """End every wait, let requests that are under way finish; an interrupt meanwhile breaks them off."""
        running = [future for future in left if not future.cancel()]
        while any(not future.done() for future in running):
            try:
                self._client.stop(requests=at_once)
                wait(running, timeout=_TICK_S)
            except KeyboardInterrupt:
                at_once = True

    def _tick(self) -> None:
        self._bar.update(self._decided - self._bar.n)
        if self._client.monotonic() >= self._next_beat:
            self._journal.beat(self._facts, now=self._now())
            self._next_beat = self._client.monotonic() + BEAT_S

    def _go_on(self) -> None:
        if self._halted:
            raise Stopped

    def _decide(self, rows: list[Row]) -> None:
        if rows:
            self._journal.decide(self._facts, rows)
            with self._lock:
                self._decided += len(rows)

    def _count(self) -> None:
        self._decided = sum(row.outcome is not None for row in self._rows.values())
        self._tick()

    def _now(self) -> int:
        return to_micros(self._client.now())


def classify(error: BaseException) -> str:
    """What an error says about a request that writes: one of the journal's answers.

    An answer that names no request is a proxy's, and says nothing about the server behind it.
    """
    if isinstance(error, (Stopped, UnreachableError, RateLimitedError, InputError)):
        return "unsent"
    refusals = (BadRequestError, ForbiddenError, TooLargeError, UnauthorizedError, NotFoundError)
    if isinstance(error, refusals):
        return "refused"
    if isinstance(error, ApiError) and not isinstance(error, NoAnswerError) and error.request_id is not None:
        return "answered"
    return "unanswered"


def _ends_the_run(error: ApiError) -> bool:
    """Whether a refusal is about the connection rather than about a row."""
    return isinstance(error, (UnauthorizedError, NotFoundError)) or "EnterpriseId" in error.message


def _reason(row: Row, error: ApiError) -> str:
    """A refusal without what belongs to the one row."""
    text = error.message if row.code.value is None else error.message.replace(row.code.value, "…")
    return re.sub(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\d+", "…", text)


def _cause(error: BaseException, futures: Iterable[Future[None]]) -> BaseException:
    """What ended the run: not that a thread was told to stop, but why."""
    if not isinstance(error, Stopped):
        return error
    failures = (future.exception() for future in futures if future.done() and not future.cancelled())
    return next((other for other in failures if other is not None and not isinstance(other, Stopped)), error)


def _order(row: Row) -> tuple[int, str, str, int]:
    """Rows in this order lie close together in the server's time, equal values side by side."""
    return row.code.updated or 0, row.code.voucher_id.lower(), row.code.value or "", row.n


def _pieces(rows: list[Row]) -> list[list[Row]]:
    """Sorted rows in batches; equal rows to add stay together, and more of those than a batch holds wait."""
    pieces: list[list[Row]] = []
    for _, equal in groupby(rows, key=lambda row: row.code.id or row.code.key):
        group = list(islice(equal, MAX_ITEMS))
        if not pieces or len(pieces[-1]) + len(group) > MAX_ITEMS:
            pieces.append([])
        pieces[-1] += group
    return pieces
