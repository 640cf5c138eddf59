"""The command line for changing codes: ``plan``, ``check``, ``apply``, ``runs``, ``resume``, ``undo``.

Made for scheduled use too: with ``--json`` standard output is one JSON document, and the exit code says
how it went.

Terms
-----
exit code
    Those of ``cli.py``, and 3: it was done, and something is not as planned: a check found reasons for
    concern, or a run has codes that are neither changed nor were so before.
"""

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import pandas as pd
import typer

from vouchertools.bulk.apply import apply_plan, resume_run
from vouchertools.bulk.check import check_plan
from vouchertools.bulk.judge import count_checks
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import names_of, plan_add, plan_delete, plan_undo
from vouchertools.bulk.run import Run, get_run, list_runs
from vouchertools.bulk.selections import deleted, duplicates_but_oldest, expired_for, values_in
from vouchertools.bulk.show import count_by
from vouchertools.bulk.values import read_rows
from vouchertools.cache import Cache
from vouchertools.client import Client
from vouchertools.connect import connect
from vouchertools.console import short_path, table
from vouchertools.errors import InputError, RunError
from vouchertools.settings import data_folder

#: Exit code: done, and something is not as planned.
NOT_AS_PLANNED: Final = 3
#: Exit code: interrupted.
INTERRUPTED: Final = 130
#: Outcomes after which a code is as the plan wants it.
_AS_PLANNED: Final = {"deleted", "added", "already deleted", "exists"}

plan_commands = typer.Typer(
    no_args_is_help=True, help="Plan a change and write it into a file; changes nothing."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for other programs.")]
VoucherIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[VOUCHER_ID]...", help="Only these vouchers; none given: all of them."),
]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The file that 'plan' wrote.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, as 'runs' shows it.")]
To = Annotated[Path, typer.Option("--to", help="The file to write the plan to (.parquet).")]
Reason = Annotated[str, typer.Option(help="Why; a plan with another reason is another plan.")]
Confirm = Annotated[int, typer.Option(help="The number of codes that you expect to change.")]
AllowValid = Annotated[
    bool, typer.Option("--allow-valid", help="Also delete codes that can still be used; for this one call.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(plan_commands, name="plan")
    for function in (check, apply, runs, resume, undo):
        app.command()(function)


@plan_commands.command("delete")
def plan_deletion(
    to: To,
    voucher_ids: VoucherIds = None,
    expired_days: Annotated[
        float | None, typer.Option("--expired-for", min=0, help="Codes expired for so many days.")
    ] = None,
    duplicates: Annotated[
        bool,
        typer.Option("--duplicates", help="Codes whose voucher has an older active one of the same value."),
    ] = False,
    values: Annotated[
        Path | None, typer.Option(help="Codes whose value stands in this text file, one a line.")
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Plan to delete the codes that fit all conditions; at least one is needed."""
    if expired_days is None and not duplicates and values is None:
        raise InputError("Say which codes: --expired-for, --duplicates or --values; no word never means all.")
    wanted = None if values is None else _lines(values)
    with _connect() as client:
        vouchers = choose_vouchers(client.vouchers(), voucher_ids)
        codes = Cache(data_folder() / "cache").refresh(client, vouchers)
    selected = codes.drop(deleted(codes).index)
    if wanted is not None:
        selected = values_in(selected, wanted)
        _say_absent(wanted, selected, f"{values}")
    if duplicates:
        selected = duplicates_but_oldest(selected)
    if expired_days is not None:
        selected = expired_for(selected, expired_days, tz=vouchers)
    _save(plan_delete(selected, tz=vouchers, reason=reason), to, as_json)


@plan_commands.command("add")
def plan_addition(
    rows: Annotated[Path, typer.Argument(help="The rows to add: .csv, .xlsx or .parquet.")],
    to: To,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Plan to add the rows of a file: VoucherId, Value; where wanted, ValidityStartUtc and ValidityEndUtc."""
    wanted = read_rows(rows)
    with _connect() as client:
        vouchers = choose_vouchers(client.vouchers(), wanted["VoucherId"].unique().tolist())
        existing = Cache(data_folder() / "cache").refresh(client, vouchers)
    plan = plan_add(wanted, existing=existing, reason=reason)
    _save(replace(plan, names=names_of(vouchers, wanted)), to, as_json)


def check(plan: PlanFile, as_json: AsJson = False) -> None:
    """Hold a plan against the live state; changes nothing."""
    loaded = Plan.load(plan)
    with _connect() as client:
        checks = check_plan(client, loaded)
    _print_checks(checks, {"codes": len(loaded), "digest": loaded.digest}, as_json)
    if len(checks):
        raise typer.Exit(NOT_AS_PLANNED)


def apply(
    plan: PlanFile,
    confirm: Confirm,
    allow_valid: AllowValid = False,
    as_json: AsJson = False,
) -> None:
    """Do what a plan says, once; each code is journaled, proved and can be taken back."""
    _apply(Plan.load(plan), confirm=confirm, allow_valid=allow_valid, as_json=as_json)


def runs(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Only this run, with what became of its codes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was ever applied from here, the latest first."""
    if run_id is not None:
        run = get_run(run_id)
        frame = run.frame.astype("object").where(run.frame.notna(), None)
        _print_run(run, as_json, codes=frame.to_dict("records"))
        return
    listed = list_runs()
    if as_json:
        _say_json(json.loads(listed.to_json(orient="records", date_format="iso")))
    elif listed.empty:
        typer.echo("Nothing was ever applied from here.")
    else:
        listed["State"] = listed["State"].where(~listed["Rehearsal"], listed["State"] + " rehearsal")
        undone = listed["UndoOf"].fillna("")
        listed["Reason"] = listed["Reason"].where(undone == "", "undoes " + undone + " " + listed["Reason"])
        typer.echo(table(listed.drop(columns=["StartedUtc", "EndedUtc", "Rehearsal", "UndoOf", "Note"])))


def resume(run_id: RunId, as_json: AsJson = False) -> None:
    """Finish a run that was interrupted, stopped or killed."""
    with _connect() as client:
        _finish(lambda: resume_run(client, run_id), as_json)


def undo(
    run_id: RunId,
    to: Annotated[Path | None, typer.Option("--to", help="Write the plan to this file.")] = None,
    confirm: Annotated[
        int | None, typer.Option(help="Apply it at once; the number of codes that you expect to change.")
    ] = None,
    allow_valid: AllowValid = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Plan to take a run back; with --confirm, do it."""
    plan = plan_undo(get_run(run_id), reason=reason)
    if confirm is None:
        _save(plan, to, as_json)
    else:
        if to is not None:
            plan.save(to)
        _apply(plan, confirm=confirm, allow_valid=allow_valid, as_json=as_json)


def choose_vouchers(vouchers: pd.DataFrame, chosen: list[str] | None) -> pd.DataFrame:
    """The vouchers with some ids, or all of them.

    Raises
    ------
    InputError
        There are none, or one of the ids is not among them.
    """
    if not chosen:
        if vouchers.empty:
            raise InputError("This access token sees no vouchers, so there are no codes to read.")
        return vouchers
    wanted = {voucher_id.lower() for voucher_id in chosen}
    found = vouchers[vouchers["Id"].str.lower().isin(wanted)]
    if missing := sorted(wanted - set(found["Id"].str.lower())):
        raise InputError(f"This access token sees no voucher {missing[0]}. Check the id.")
    return found.reset_index(drop=True)


def _connect() -> Client:
    """Connect; what that prints is no part of the result."""
    with contextlib.redirect_stdout(sys.stderr):
        return connect()


def _apply(plan: Plan, *, confirm: int, allow_valid: bool, as_json: bool) -> None:
    with _connect() as client:
        _finish(lambda: apply_plan(client, plan, confirm=confirm, allow_valid=allow_valid), as_json)


def _finish(act: Any, as_json: bool) -> None:
    """Carry a run out, print it, and leave with the code that says how it went."""
    try:
        run: Run = act()
    except RunError as error:
        if as_json and error.run is not None:
            _print_run(error.run, as_json)
        raise
    _print_run(run, as_json)
    if run.state == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if set(run.counts) - _AS_PLANNED:
        raise typer.Exit(NOT_AS_PLANNED)


def _save(plan: Plan, path: Path | None, as_json: bool) -> None:
    if path is not None:
        plan.save(path)
    if as_json:
        _say_json(
            {
                "kind": plan.kind,
                "codes": len(plan),
                "environment": plan.environment,
                "reason": plan.reason,
                "undo_of": plan.undo_of,
                "digest": plan.digest,
                "statuses": count_by(plan.frame["Status"]) if "Status" in plan.frame.columns else {},
                "checks": _counted(plan.checks),
                "path": None if path is None else str(path),
            }
        )
        return
    typer.echo(repr(plan))
    if path is not None:
        typer.echo(f"\nWritten to {short_path(path)}. Next:")
        typer.echo(f"  vouchertools check {short_path(path)}")
        allowed = " --allow-valid" if (plan.checks["Level"] == "allow_valid").any() else ""
        typer.echo(f"  vouchertools apply {short_path(path)} --confirm {len(plan)}{allowed}")


def _print_checks(checks: pd.DataFrame, facts: dict[str, Any], as_json: bool) -> None:
    counted = _counted(checks)
    if as_json:
        _say_json({**facts, "checks": counted})
    elif counted:
        typer.echo(table(pd.DataFrame(counted)))
    else:
        typer.echo(f"Nothing to worry about was found in {facts['codes']:,} codes.")


def _counted(checks: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"Check": check, "Level": level, "Codes": number, "Message": message}
        for level, check, number, message in count_checks(checks)
    ]


def _print_run(run: Run, as_json: bool, **more: Any) -> None:
    if not as_json:
        typer.echo(repr(run))
        return
    _say_json(
        {
            "id": run.id,
            "kind": run.kind,
            "environment": run.environment,
            "rehearsal": run.rehearsal,
            "state": run.state,
            "reason": run.reason,
            "undo_of": run.undo_of,
            "codes": len(run),
            "counts": dict(run.counts),
            "note": run.note,
            **more,
        }
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not lines:
        raise InputError(f"{path} holds no values. Write one a line.")
    return lines


def _say_absent(wanted: list[str], selected: pd.DataFrame, file: str) -> None:
    """Say which of the values asked for no active code has, letter by letter."""
    absent = sorted(set(wanted) - set(selected["Value"]))
    if absent:
        shown = ", ".join(map(repr, absent[:3])) + (", ..." if len(absent) > 3 else "")
        typer.echo(
            f"Note: {len(absent):,} of {len(set(wanted)):,} values in {file} belong to no active code, "
            f"case and blanks counting: {shown}",
            err=True,
        )


def _say_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
