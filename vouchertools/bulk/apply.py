"""Applying plans: through every guard, under a lock, into the journal; and finishing what was cut off.

Nothing is sent before all of this holds: the environment is the plan's, the number of codes is the one
that the caller expects, no row must stop it, no code to delete can still be used (or the caller says that
it may), no other run is under way, and the plan was never applied before. ``work.py`` does the rest.
"""

import os
import secrets
from typing import Any

import pandas as pd

from vouchertools.bulk.actions import Action, Addition, Deletion
from vouchertools.bulk.check import is_rehearsal, refuse_unfit, refuse_usable
from vouchertools.bulk.journal import Journal, already_spent
from vouchertools.bulk.live import read_estate
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.records import (
    Code,
    Record,
    Row,
    RunFacts,
    micros,
    nones,
    to_codes,
    to_frame,
    to_micros,
)
from vouchertools.bulk.run import Run, make_run
from vouchertools.bulk.work import Work
from vouchertools.client import Client
from vouchertools.contract import ACTIVE, COLUMNS
from vouchertools.errors import ApiError, IncompleteReadError, InputError, JournalError, PlanError, RunError
from vouchertools.pace import Stopped
from vouchertools.progress import bar


def apply_plan(
    client: Client,
    plan: Plan,
    *,
    confirm: int,
    allow_valid: bool = False,
    progress: bool = True,
    journal: str | os.PathLike[str] | None = None,
) -> Run:
    """Do what a plan says, once, journaled and proved.

    Parameters
    ----------
    client
        The connection. A sandbox takes a plan of any environment: that is a rehearsal, and the plan can
        still be applied.
    plan
        The plan.
    confirm
        The number of codes that you expect to change: ``len(plan)``.
    allow_valid
        Whether codes may be deleted that can still be used; holds for this one call.
    progress
        Whether to show a bar that counts codes.
    journal
        The journal's file; None: the one in the data folder.

    Returns
    -------
    Run
        What became of each code. An interrupt returns too: the run is then ``interrupted``, and true.

    Raises
    ------
    PlanError
        A guard stopped it, or it was applied before; nothing was sent.
    RunError
        It had to stop on the way; ``error.run`` is what was done, and ``resume_run`` goes on.
    JournalError
        The journal cannot be written, or another run is under way.
    """
    if not isinstance(plan, Plan):
        raise InputError(
            f"plan must be a Plan, not {type(plan).__name__}. Make one with vt.plan_delete or vt.plan_add."
        )
    rehearsal = is_rehearsal(client, plan)
    if isinstance(confirm, bool) or not isinstance(confirm, int):
        raise InputError(
            f"confirm={confirm!r} is no number. Give the number of codes that you expect to change."
        )
    if confirm != len(plan):
        raise PlanError(
            f"You confirm {confirm:,} codes, the plan has {len(plan):,}. Look at it again; nothing was sent."
        )
    refuse_unfit(plan)
    estate = read_estate(client)
    if plan.kind == "delete":
        refuse_usable(client, plan.frame, tz=plan.tz, estate=estate, allow_valid=allow_valid)
    environment = client.environment
    with Journal(journal) as book, book.lock(environment):
        spent_by = None if rehearsal else book.spent_by(plan.digest, environment)
        if spent_by is not None:
            raise PlanError(already_spent(spent_by))
        now = to_micros(client.now())
        facts = RunFacts(
            id=f"{client.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            kind=plan.kind,
            environment=environment,
            rehearsal=rehearsal,
            digest=plan.digest,
            reason=plan.reason,
            undo_of=plan.undo_of,
            tz=plan.tz,
            allow_valid=allow_valid,
            selected=now if plan.as_of is None else min(now, to_micros(plan.as_of)),
            started=now,
            seen=now,
        )
        record = Record(facts, _rows(plan))
        book.begin(facts, record.rows)
        return _carry_out(client, book, record, estate, progress=progress)


def resume_run(
    client: Client,
    run_id: str,
    *,
    progress: bool = True,
    journal: str | os.PathLike[str] | None = None,
) -> Run:
    """Finish a run that was interrupted, stopped or killed, or whose codes are not all settled.

    What is done stays done; requests whose answer is not known are settled first, then what is open is
    checked and sent through the same guards. A run with nothing left to do is returned as it is.

    Parameters
    ----------
    client
        A connection to the run's environment.
    run_id
        As in ``list_runs()``.
    progress
        Whether to show a bar that counts codes.
    journal
        The journal's file; None: the one in the data folder.

    Returns
    -------
    Run
        What became of each code.

    Raises
    ------
    PlanError
        A guard stopped it: another environment, codes that can still be used, a plan that another run has
        spent.
    RunError
        It had to stop again; ``error.run`` is what was done.
    JournalError
        The journal cannot be written, or a run is under way.
    """
    with Journal(journal, create=False) as book:
        environment = book.load(run_id).facts.environment
        if client.environment != environment:
            raise PlanError(
                f"Run {run_id} belongs to {environment}; this client is connected to {client.environment}. "
                "Connect to the right one."
            )
        with book.lock(environment):
            record = book.load(run_id)
            facts = record.facts
            for row in record.rows:
                if row.outcome == "unknown":
                    # Accepted, yet not shown: a code added is looked for again, one to delete is sent again.
                    row.outcome = "added" if facts.kind == "add" else None
            undecided = [row for row in record.rows if row.outcome is None]
            unproved = any(row.outcome in ("deleted", "added") and not row.proved for row in record.rows)
            if not undecided and not unproved:
                return make_run(record)
            spent_by = None if facts.rehearsal else book.spent_by(facts.digest, environment)
            if spent_by not in (None, facts.id):
                raise PlanError(already_spent(spent_by))
            estate = read_estate(client)
            if facts.kind == "delete":
                frame = to_frame(row.code for row in undecided)
                refuse_usable(client, frame, tz=facts.tz, estate=estate, allow_valid=facts.allow_valid)
            return _carry_out(client, book, record, estate, progress=progress)


def _carry_out(
    client: Client, book: Journal, record: Record, estate: pd.DataFrame | None, *, progress: bool
) -> Run:
    facts = record.facts
    action: Action = (
        Deletion(client, selected=facts.selected, started=facts.started)
        if facts.kind == "delete"
        else Addition(client, record.rows)
    )
    doing = {"delete": "Deleting", "add": "Adding"}[facts.kind] + " voucher codes"
    with bar(doing, "codes", total=len(record.rows), show=progress) as shown:
        work = Work(client, book, record, action, enterprises=_enterprises(estate), bar=shown)
        book.end(facts, "running", "", now=facts.seen)
        try:
            work.run(progress=progress)
        except KeyboardInterrupt:
            return _end(book, client, facts, "interrupted", "")
        except (ApiError, IncompleteReadError, RunError, Stopped) as error:
            run = _end(book, client, facts, "stopped", str(error) or "Another thread stopped it.")
            raise RunError(
                f"Run {facts.id} stopped: {run.note} Go on with vt.resume_run(client, {facts.id!r}).", run=run
            ) from error
        except (PlanError, JournalError) as error:
            _end(book, client, facts, "stopped", str(error))
            raise
    _note_end(book, client, facts, "finished", "")
    return make_run(Record(facts, record.rows, work.sendings))


def _end(book: Journal, client: Client, facts: RunFacts, state: str, note: str) -> Run:
    """A run that did not come to its end: as the journal has it, which is all that is sure."""
    _note_end(book, client, facts, state, note)
    return make_run(book.load(facts.id))


def _note_end(book: Journal, client: Client, facts: RunFacts, state: str, note: str) -> None:
    book.end(facts, state, note, now=max(facts.seen, to_micros(client.now())))


def _rows(plan: Plan) -> list[Row]:
    """The plan's rows; codes to add have no id yet."""
    frame = plan.frame
    if plan.kind == "delete":
        return [Row(n, code) for n, code in enumerate(to_codes(frame[list(COLUMNS)]))]
    codes = zip(
        nones(frame["VoucherId"]),
        nones(frame["Value"]),
        micros(frame["ValidityStartUtc"]),
        micros(frame["ValidityEndUtc"]),
        strict=True,
    )
    former: list[Any] = micros(frame["DeletedUtc"]) if plan.undo_of is not None else [None] * len(frame)
    return [
        Row(n, Code("", voucher or "", value, start, end, None, None, ACTIVE), former[n])
        for n, (voucher, value, start, end) in enumerate(codes)
    ]


def _enterprises(estate: pd.DataFrame | None) -> dict[str, str] | None:
    """Enterprise by voucher id in lower case."""
    if estate is None:
        return None
    known = estate[estate["EnterpriseId"].notna()]
    return dict(zip(known["Id"].str.lower(), known["EnterpriseId"], strict=True))
