"""A run as one sees it afterwards, from any kernel: what became of each code.

==================  ==================================================================================
outcome             meaning
==================  ==================================================================================
``deleted``         deleted by this run
``added``           added by this run; ``Id`` is the new code's
``already deleted`` somebody had deleted it before
``exists``          the voucher already had an active code of this value; nothing was added
``changed``         to be deleted: somebody touched it since it was selected, and it was left alone;
                    to be added: it was added, but the server shows another window than asked for
``missing``         the server shows no such code, or no such voucher
``refused``         the server refused it; its own words are the message
``unknown``         sent, and not yet settled whether it was done; ``resume_run`` tries again
``open``            not done: the run stood still before; ``resume_run`` does it
==================  ==================================================================================
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from vouchertools.bulk import show
from vouchertools.bulk.journal import Journal, default_path
from vouchertools.bulk.records import Record, Row, from_micros
from vouchertools.bulk.show import Notice, Panel

OUTCOMES: Final = (
    "deleted",
    "added",
    "already deleted",
    "exists",
    "changed",
    "missing",
    "refused",
    "unknown",
    "open",
)
_TONES: Final = {
    "unknown": "bad",
    "refused": "bad",
    "missing": "careful",
    "changed": "careful",
    "open": "careful",
}
_WORDS: Final = {
    "already deleted": "had been deleted before; nothing was to be done",
    "exists": "exist already; nothing was added",
    "changed": "changed meanwhile; see the messages",
    "missing": "are not there",
    "refused": "were refused by the server; its words are in .frame",
    "unknown": "were sent and not settled; vt.resume_run(client, {id!r}) tries again",
    "open": "are not done; vt.resume_run(client, {id!r}) goes on",
}


@dataclass(frozen=True, eq=False)
class Run:
    """One application of a plan, as the journal has it.

    Attributes
    ----------
    id
        What ``get_run`` and ``resume_run`` take.
    kind
        ``delete`` or ``add``.
    environment
        Where it took place.
    rehearsal
        Whether that was a sandbox and the plan was made for another environment.
    state
        ``finished``, ``stopped`` (see `note`), ``interrupted``, ``running``, or ``cut off``: its process
        ended without a word.
    reason
        The plan's.
    digest
        The plan's.
    undo_of
        The run that this one undoes.
    started_utc, ended_utc
        The server's clock; `ended_utc` is None while it runs.
    note
        Why it stopped.
    frame
        One row a code, in the plan's order: ``Id``, ``VoucherId``, ``Value``, ``Outcome``, ``Message``,
        ``RequestId``.
    """

    id: str
    kind: str
    environment: str
    rehearsal: bool
    state: str
    reason: str
    digest: str
    undo_of: str | None
    started_utc: pd.Timestamp
    ended_utc: pd.Timestamp | None
    note: str
    frame: pd.DataFrame
    record: Record = field(repr=False)

    @property
    def counts(self) -> Counter[str]:
        """Number of codes by outcome; outcomes that did not occur count 0."""
        found = self.frame["Outcome"].value_counts()
        return Counter({outcome: int(found[outcome]) for outcome in OUTCOMES if outcome in found.index})

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return self._panel().to_text()

    def _repr_html_(self) -> str:
        return self._panel().to_html()

    def _panel(self) -> Panel:
        counts = self.counts
        done = {"delete": "deleted", "add": "added"}[self.kind]
        rehearsal = " (rehearsal)" if self.rehearsal else ""
        notices = [Notice("bad", self.note)] if self.note else []
        if not self.note and self.state in ("interrupted", "cut off"):
            notices.append(Notice("careful", f"It was {self.state} before its end."))
        notices += [
            Notice(_TONES.get(outcome, "plain"), f"{counts[outcome]:,} {words.format(id=self.id)}")
            for outcome, words in _WORDS.items()
            if counts[outcome]
        ]
        if not notices:
            notices = [Notice("good", "Every code is as planned, read back from the server.")]
        return Panel(
            f"{counts[done]:,} of {len(self):,} codes {done}",
            {
                "in": f"{self.environment}{rehearsal}",
                "run": self.id,
                "state": self.state,
                "reason": self.reason,
                "undo of": self.undo_of or "",
            },
            notices,
            {"Outcome": dict(counts)},
            show.pick_sample(self.frame[["Id", "VoucherId", "Value", "Outcome", "Message"]]),
        )


def make_run(record: Record, *, is_alive: bool = False) -> Run:
    """The run that a journal's record describes; `is_alive` says whether its process still holds the lock."""
    facts, rows = record.facts, record.rows
    unsettled = {number for sending in record.sendings if sending.is_open for number in sending.rows}
    frame = pd.DataFrame(
        {
            "Id": pd.array([_id(row, facts.kind) for row in rows], dtype="str"),
            "VoucherId": pd.array([row.code.voucher_id for row in rows], dtype="str"),
            "Value": pd.array([row.code.value for row in rows], dtype="str"),
            "Outcome": pd.array(
                [row.outcome or ("unknown" if row.n in unsettled else "open") for row in rows], dtype="str"
            ),
            "Message": pd.array([row.message for row in rows], dtype="str"),
            "RequestId": pd.array([row.request_id for row in rows], dtype="str"),
        }
    )
    frame.attrs["environment"] = facts.environment
    return Run(
        id=facts.id,
        kind=facts.kind,
        environment=facts.environment,
        rehearsal=facts.rehearsal,
        state="cut off" if facts.state == "running" and not is_alive else facts.state,
        reason=facts.reason,
        digest=facts.digest,
        undo_of=facts.undo_of,
        started_utc=from_micros(facts.started),
        ended_utc=None if facts.ended is None else from_micros(facts.ended),
        note=facts.note,
        frame=frame,
        record=record,
    )


def get_run(run_id: str, *, journal: str | os.PathLike[str] | None = None) -> Run:
    """A run from the journal, also one that is under way or was cut off.

    Parameters
    ----------
    run_id
        As in ``list_runs()``.
    journal
        The journal's file; None: the one in the data folder.
    """
    with Journal(journal, create=False) as book:
        record = book.load(run_id)
        return make_run(record, is_alive=book.is_locked(record.facts.environment))


def list_runs(*, journal: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Every run of the journal, the latest first.

    Parameters
    ----------
    journal
        The journal's file; None: the one in the data folder.

    Returns
    -------
    DataFrame
        ``Id``, ``StartedUtc``, ``EndedUtc``, ``Environment``, ``Rehearsal``, ``Kind``, ``State``,
        ``Codes``, ``Done`` (deleted or added), ``Open``, ``Unknown``, ``Refused``, ``Reason``,
        ``UndoOf``, ``Note``.
    """
    columns: dict[str, list[object]] = {
        name: []
        for name in (
            "Id",
            "StartedUtc",
            "EndedUtc",
            "Environment",
            "Rehearsal",
            "Kind",
            "State",
            "Codes",
            "Done",
            "Open",
            "Unknown",
            "Refused",
            "Reason",
            "UndoOf",
            "Note",
        )
    }
    path = default_path() if journal is None else journal
    if os.path.exists(path):
        with Journal(path, create=False) as book:
            for facts, counts in book.runs():
                alive = facts.state == "running" and book.is_locked(facts.environment)
                cells = (
                    facts.id,
                    from_micros(facts.started),
                    pd.NaT if facts.ended is None else from_micros(facts.ended),
                    facts.environment,
                    facts.rehearsal,
                    facts.kind,
                    "cut off" if facts.state == "running" and not alive else facts.state,
                    sum(counts.values()),
                    counts.get("deleted", 0) + counts.get("added", 0),
                    counts.get("open", 0),
                    counts.get("unknown", 0),
                    counts.get("refused", 0),
                    facts.reason,
                    facts.undo_of,
                    facts.note,
                )
                for column, cell in zip(columns.values(), cells, strict=True):
                    column.append(cell)
    frame = pd.DataFrame(columns)
    for name in frame.columns:
        if name.endswith("Utc"):
            frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
        elif name == "Rehearsal":
            frame[name] = frame[name].astype("bool")
        elif name in ("Codes", "Done", "Open", "Unknown", "Refused"):
            frame[name] = frame[name].astype("int64")
        else:
            frame[name] = frame[name].astype("str")
    return frame


def _id(row: Row, kind: str) -> str | None:
    if kind == "delete":
        return row.code.id
    return row.new.id if row.new is not None and row.outcome != "exists" else None
