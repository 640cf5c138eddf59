"""The guards before a run, and the check of a plan against the live state. Reads only.

A code is *usable* when its status is valid or future at the server's clock. Both the plan's time zones
and those that the server names for the vouchers are asked, and either can call it usable: a wrong zone in
a plan deletes nothing early.
"""

from typing import Any, Final

import numpy as np
import pandas as pd

from vouchertools.bulk.judge import USABLE, judge_add, merge, pick, whole
from vouchertools.bulk.live import read_codes, read_estate
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.records import Code, to_codes, to_micros
from vouchertools.client import Client
from vouchertools.contract import ACTIVE, COLUMNS, chunks, format_utc
from vouchertools.errors import InputError, PlanError
from vouchertools.fetch import fetch
from vouchertools.status import status

#: Checks that are made again at the server's clock and against what it holds.
_JUDGED_ANEW: Final = ("already deleted", "exists", "expired", "other case", "still usable", "no time zone")


def check_plan(client: Client, plan: Plan, *, progress: bool = True) -> pd.DataFrame:
    """Hold a plan against the live state: what ``apply_plan`` would find now. Changes nothing.

    Parameters
    ----------
    client
        The connection.
    plan
        The plan.
    progress
        Whether to show a bar.

    Returns
    -------
    DataFrame
        The columns of ``Plan.checks``: its checks, judged anew at the server's clock, and what only the
        server knows: ``environment``, ``missing``, ``changed``, ``already deleted``, ``exists``,
        ``unknown voucher``.
    """
    _require_plan(plan)
    found = [plan.checks[~plan.checks["Check"].isin(_JUDGED_ANEW)]]
    try:
        rehearsal = is_rehearsal(client, plan)
    except PlanError as error:
        found.append(whole("environment", "stop", str(error)))
    else:
        if rehearsal:
            found.append(whole("rehearsal", "warning", f"On {client.environment} it would be a rehearsal."))
    estate = read_estate(client)
    frame = plan.frame
    if estate is not None:
        unknown = ~frame["VoucherId"].str.lower().isin(set(estate["Id"].str.lower()))
        found.append(pick(frame, unknown, "unknown voucher", "warning", "The token sees no such voucher."))
        inactive = estate.loc[estate["IsActive"].eq(False), "Id"].str.lower()
        asleep = frame["VoucherId"].str.lower().isin(set(inactive)) & (plan.kind == "add")
        found.append(pick(frame, asleep, "inactive voucher", "warning", "Its voucher is inactive."))
    found += (
        _check_delete(client, plan, estate) if plan.kind == "delete" else _check_add(client, plan, progress)
    )
    checks = merge(found)
    return checks.drop_duplicates(["Row", "Check"], keep="last", ignore_index=True)


def is_rehearsal(client: Client, plan: Plan) -> bool:
    """Whether applying a plan here is a rehearsal.

    Raises
    ------
    PlanError
        The plan is for another environment, and this is no sandbox.
    """
    if plan.environment == client.environment or (plan.environment is None and client.is_sandbox):
        return False
    if client.is_sandbox:
        return True
    if plan.environment is None:
        raise PlanError(
            f"The plan names no environment. Make it anew with environment={client.environment!r}."
        )
    raise PlanError(
        f"The plan was made for {plan.environment}, and this client is connected to {client.environment}. "
        "Connect to the right one, or make a plan from what this one holds."
    )


def refuse_unfit(plan: Plan) -> None:
    """Refuse a plan that holds rows that must not be sent.

    Raises
    ------
    PlanError
        A check has the level ``stop``; judged anew, whatever the plan says of itself.
    """
    stops = plan.checks
    if plan.kind == "add":
        anew = judge_add(plan.frame, existing=None, is_undo=plan.undo_of is not None, cut=[False] * len(plan))
        stops = merge([stops, anew])
    stops = stops[stops["Level"] == "stop"].drop_duplicates(["Row", "Check"])
    if len(stops):
        first = stops.iloc[0]
        raise PlanError(
            f"{len(stops):,} rows cannot be applied, the first one ({first['Value']!r}): {first['Message']} "
            "See plan.checks; make the plan anew without them."
        )


def refuse_usable(
    client: Client, frame: pd.DataFrame, *, tz: Any, estate: pd.DataFrame | None, allow_valid: bool
) -> None:
    """Refuse to delete codes that can still be used; `frame` has the columns of the contract.

    Raises
    ------
    PlanError
        There are some, and `allow_valid` is not given.
    """
    if allow_valid or not len(frame):
        return
    usable = find_usable(client, frame, tz=tz, estate=estate)
    if usable.any():
        example = frame.iloc[int(usable.argmax())]
        raise PlanError(
            f"{int(usable.sum()):,} of {len(frame):,} can still be used at the server's clock "
            f"{client.now():%Y-%m-%d %H:%M} UTC, such as {example['Value']!r} ({example['Id']}). "
            "Nothing was sent. Select others, or say allow_valid=True for this one call."
        )


def find_usable(
    client: Client, frame: pd.DataFrame, *, tz: Any, estate: pd.DataFrame | None
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which codes are usable at the server's clock, by the plan's time zones or the server's own."""
    now = client.now()
    zones = [tz] if estate is None else [tz, estate] if tz is not None else [estate]
    usable = np.zeros(len(frame), dtype=bool)
    for zone in zones:
        usable |= status(frame, as_of=now, tz=zone).isin(USABLE).to_numpy(dtype=bool)
    return usable


def _check_delete(client: Client, plan: Plan, estate: pd.DataFrame | None) -> list[pd.DataFrame]:
    frame = plan.frame
    codes = to_codes(frame[list(COLUMNS)])
    selected = None if plan.as_of is None else to_micros(plan.as_of)
    live: dict[str, Code] = {}
    for piece in chunks(sorted(codes, key=lambda code: (code.updated or 0, code.id))):
        live |= read_codes(client, piece, since=selected)
    now = [live.get(code.id.lower()) for code in codes]
    gone = [code is not None and code.is_deleted for code in now]
    changed = [
        code is not None and not code.is_deleted and not code.same_as(old)
        for code, old in zip(now, codes, strict=True)
    ]
    usable = find_usable(client, frame, tz=plan.tz, estate=estate) & ~np.array(gone, dtype=bool)
    return [
        pick(
            frame, [code is None for code in now], "missing", "skip", "The server shows no code with this id."
        ),
        pick(frame, gone, "already deleted", "skip", "It is deleted already."),
        pick(frame, changed, "changed", "skip", "Somebody touched it since it was selected."),
        pick(frame, usable, "still usable", "allow_valid", "It can still be used at the server's clock."),
    ]


def _check_add(client: Client, plan: Plan, progress: bool) -> list[pd.DataFrame]:
    frame = plan.frame
    existing = fetch(client, list(frame["VoucherId"].unique()), progress=progress)
    undo = plan.undo_of is not None
    if undo:
        # What was there beside the deleted codes does not stand in their way.
        later = existing["CreatedUtc"].isna() | (existing["CreatedUtc"] >= frame["DeletedUtc"].min())
        existing = existing[later & (existing["ActivityState"] == ACTIVE)]
    existing.attrs["read_utc"] = format_utc(client.now())
    return [judge_add(frame, existing=existing, is_undo=undo, cut=[False] * len(frame))]


def _require_plan(plan: Any) -> None:
    if not isinstance(plan, Plan):
        raise InputError(
            f"plan must be a Plan, not {type(plan).__name__}. Make one with vt.plan_delete or vt.plan_add."
        )
