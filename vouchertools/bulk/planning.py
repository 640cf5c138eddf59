"""Making plans: from rows to delete, from rows to add, from a run to take back. Pure: nothing is sent."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from vouchertools.bulk.judge import judge_add, judge_delete, merge, whole
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.records import Row, times, to_frame
from vouchertools.bulk.run import Run
from vouchertools.bulk.values import WINDOW, normalize_rows
from vouchertools.contract import (
    COLUMNS,
    MAX_VALUE_LENGTH,
    TIME_COLUMNS,
    require_columns,
    require_ids,
    to_arrow,
    to_pandas,
    to_utc,
)
from vouchertools.errors import InputError, PlanError
from vouchertools.status import read_zones, status

#: Outcomes of codes that a run changed; one that was added with another window is still of its making.
_DONE: Final = {"delete": ("deleted",), "add": ("added", "changed")}


def plan_delete(
    codes: pd.DataFrame,
    *,
    reason: str = "",
    as_of: Any = None,
    tz: Any = None,
    environment: str | None = None,
) -> Plan:
    """Plan the deletion of codes; changes nothing.

    Parameters
    ----------
    codes
        The selected rows, with all columns of ``fetch``.
    reason
        Why; a plan with another reason is another plan.
    as_of
        The instant to judge the codes at, aware; None: when they were read (``attrs["read_utc"]``).
    tz
        As for ``status``: one zone, a mapping from voucher id to zone, or the frame from
        ``Client.vouchers()``.
    environment
        Where they are to be deleted; None: where they were read (``attrs["environment"]``).

    Raises
    ------
    InputError
        Nothing is selected, a code is selected twice, a column is missing, or neither `codes` nor the
        arguments say when and where it was read (``merge`` loses that).
    """
    if not isinstance(codes, pd.DataFrame):
        raise InputError(f"codes must be a DataFrame, not {type(codes).__name__}.")
    if not len(codes):
        raise InputError("No codes are selected, which never means all. Check the filter.")
    environment = _environment(codes, environment)
    as_of = codes.attrs.get("read_utc") if as_of is None else as_of
    for name, value in {"environment": environment, "as_of": as_of}.items():
        if value is None:
            raise InputError(
                f"{name} is missing: codes has lost it (merge does that). "
                "Give environment=client.environment and as_of=client.now()."
            )
    instant = pd.Timestamp(to_utc(as_of, "as_of")).as_unit("us")
    for name in TIME_COLUMNS:
        if name in codes.columns and not isinstance(codes[name].dtype, pd.DatetimeTZDtype):
            raise InputError(f"codes[{name!r}] holds {codes[name].dtype}, not times with a time zone.")
    frame = to_pandas(to_arrow(codes))
    require_ids(frame["Id"].tolist(), "codes: Id")
    twice = int(frame["Id"].str.lower().duplicated().sum())
    if twice:
        raise InputError(f"{twice:,} codes are selected more than once. Use codes.drop_duplicates('Id').")
    zones = _zones(tz, frame)
    frame["Status"] = status(frame, as_of=instant, tz=zones).to_numpy()
    frame["Status"] = frame["Status"].astype("str")
    checks = judge_delete(frame, as_of=instant, tz=zones)
    return Plan(
        "delete", frame, checks, environment, _text(reason), instant, zones, names=names_of(tz, frame)
    )


def plan_add(
    rows: pd.DataFrame,
    *,
    existing: pd.DataFrame | None = None,
    reason: str = "",
    environment: str | None = None,
) -> Plan:
    """Plan the addition of codes; changes nothing.

    Parameters
    ----------
    rows
        ``VoucherId``, ``Value``, and where wanted ``ValidityStartUtc`` and ``ValidityEndUtc``; as from
        ``read_rows``.
    existing
        The codes that the vouchers have, as from ``fetch``: then values that exist are found.
    reason
        Why; a plan with another reason is another plan.
    environment
        Where they are to be added; None: where `existing`, or else `rows`, was read.

    Raises
    ------
    InputError
        There are no rows, or one has an id that is no UUID, a value that is missing or no text, a time
        without a zone, or the voucher and value of another row.
    """
    frame = normalize_rows(rows)
    if existing is not None:
        require_columns(existing, COLUMNS, "existing")
        environment = _environment(existing, environment)
    frame, cut = _whole_seconds(frame)
    checks = judge_add(frame, existing=existing, is_undo=False, cut=cut)
    environment = _environment(rows, environment)
    frame.attrs = {}
    return Plan("add", frame, checks, environment, _text(reason))


def plan_undo(run: Run, *, reason: str = "") -> Plan:
    """Plan to take a run back; changes nothing.

    Undoing a delete adds the same values and windows to the same vouchers again, with new ids. Undoing an add
    deletes exactly what was added; as those codes are in use, applying it needs ``allow_valid=True``.

    Parameters
    ----------
    run
        From ``apply_plan`` or ``get_run``.
    reason
        Why; needed only to undo the same run once more.

    Raises
    ------
    PlanError
        The run changed nothing, or nothing that can be taken back.
    """
    done = [row for row in run.record.rows if row.outcome in _DONE[run.kind]]
    plan = _undo_delete(run, done, reason) if run.kind == "delete" else _undo_add(run, done, reason)
    unsettled = run.counts["unknown"]
    if not unsettled:
        return plan
    message = f"{unsettled:,} codes are not settled and left out: vt.resume_run(client, {run.id!r}) first."
    return replace(plan, _checks=merge([plan.checks, whole("unsettled", "warning", message)]))


def _undo_delete(run: Run, done: list[Row], reason: str) -> Plan:
    lost = [row for row in done if not _can_be_added(row.code.value)]
    kept = [row for row in done if _can_be_added(row.code.value)]
    if not kept:
        why = "what it deleted has no values" if lost else "it deleted nothing"
        raise PlanError(f"Run {run.id} cannot be undone: {why}.")
    frame = pd.DataFrame(
        {
            "VoucherId": pd.array([row.code.voucher_id for row in kept], dtype="str"),
            "Value": pd.array([row.code.value for row in kept], dtype="str"),
            "ValidityStartUtc": times(row.code.start for row in kept),
            "ValidityEndUtc": times(row.code.end for row in kept),
            "FormerId": pd.array([row.code.id for row in kept], dtype="str"),
            "DeletedUtc": times(_deleted_at(run, row) for row in kept),
        }
    )
    frame, cut = _whole_seconds(frame)
    found = [judge_add(frame, existing=None, is_undo=True, cut=cut)]
    if lost:
        message = f"{len(lost):,} deleted codes have no value that can be added again, and stay deleted."
        found.append(whole("no way back", "warning", message))
    facts = run.record.facts
    return Plan("add", frame, merge(found), run.environment, _text(reason), tz=facts.tz, undo_of=run.id)


def _undo_add(run: Run, done: list[Row], reason: str) -> Plan:
    codes = [row.new for row in done if row.new is not None]
    if not codes:
        raise PlanError(f"Run {run.id} cannot be undone: it added nothing.")
    facts = run.record.facts
    as_of = pd.Timestamp(run.ended_utc or run.started_utc)
    frame = to_frame(codes)
    frame["Status"] = status(frame, as_of=as_of, tz=facts.tz).to_numpy()
    frame["Status"] = frame["Status"].astype("str")
    checks = judge_delete(frame, as_of=as_of, tz=facts.tz)
    return Plan("delete", frame, checks, run.environment, _text(reason), as_of, facts.tz, run.id)


def _can_be_added(value: str | None) -> bool:
    return value is not None and 0 < len(value) <= MAX_VALUE_LENGTH


def _deleted_at(run: Run, row: Row) -> int:
    """When a code was deleted, as the server showed it, else when the request left."""
    if row.new is not None and row.new.updated is not None:
        return row.new.updated
    sent = [sending.intended for sending in run.record.sendings if row.n in sending.rows]
    return max(sent, default=run.record.facts.started)


def _whole_seconds(frame: pd.DataFrame) -> tuple[pd.DataFrame, Iterable[bool]]:
    """Rows with their windows cut to whole seconds, and of each whether that changed it."""
    cut = pd.Series(False, index=frame.index)
    frame = frame.copy()
    for column in WINDOW:
        floor = frame[column].dt.floor("s").astype("datetime64[us, UTC]")
        cut |= frame[column].notna() & (floor != frame[column])
        frame[column] = floor
    return frame, cut.tolist()


def _environment(frame: pd.DataFrame, given: str | None) -> str | None:
    environment = frame.attrs.get("environment") if given is None else given
    if environment is not None and not (isinstance(environment, str) and environment.strip()):
        raise InputError(f"environment={environment!r} is no environment. Take client.environment.")
    return environment


def _zones(tz: Any, frame: pd.DataFrame) -> Any:
    """`tz` as one name, or for the vouchers of the frame alone."""
    zones = read_zones(tz)
    if not isinstance(zones, dict):
        return zones
    wanted = set(frame["VoucherId"])
    return {voucher: zone for voucher, zone in sorted(zones.items()) if voucher in wanted}


def names_of(tz: Any, frame: pd.DataFrame) -> dict[str, str]:
    """Names of vouchers, where `tz` is the frame that has them."""
    if not isinstance(tz, pd.DataFrame) or "Name" not in tz.columns:
        return {}
    wanted = tz[tz["Id"].isin(frame["VoucherId"].unique()) & tz["Name"].notna()]
    return dict(zip(wanted["Id"], wanted["Name"], strict=True))


def _text(reason: str) -> str:
    if not isinstance(reason, str):
        raise InputError(f"reason must be text, not {type(reason).__name__}.")
    return reason
