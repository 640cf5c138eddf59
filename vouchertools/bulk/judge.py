"""Every reason to think twice about a plan, found without the network.

A *check* is one reason about one code, or about the plan as a whole. Its *level* says what follows:

===============  =====================================================================
level            what ``apply_plan`` does
===============  =====================================================================
``stop``         refuses the plan
``allow_valid``  refuses the plan, unless ``allow_valid=True`` says so for that one call
``skip``         leaves this code alone
``warning``      goes on
===============  =====================================================================
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pandas as pd

from vouchertools.contract import ACTIVE, MAX_VALUE_LENGTH, to_utc
from vouchertools.status import LONGEST_DAY, status

#: A code whose status is one of these can still be used, now or later.
USABLE: Final = ("valid", "future")
#: Columns of the frame of checks.
CHECK_COLUMNS: Final = ("Row", "Check", "Level", "Id", "VoucherId", "Value", "Message")


def judge_delete(frame: pd.DataFrame, *, as_of: Any, tz: Any) -> pd.DataFrame:
    """Checks of rows to delete; `frame` has their ``Status``."""
    states, values = frame["Status"], frame["Value"]
    found = [
        pick(frame, states == "deleted", "already deleted", "skip", "It is deleted already."),
        pick(
            frame, states.isin(USABLE), "still usable", "allow_valid", "It can still be used, now or later."
        ),
        pick(
            frame,
            values.isna() | (values.fillna("").str.strip() == "") | (values.str.len() > MAX_VALUE_LENGTH),
            "no way back",
            "warning",
            "It has no value that could be added again, so its deletion cannot be undone.",
        ),
    ]
    if tz is None:
        now = pd.Timestamp(to_utc(as_of, "as_of"))
        unsure = frame["ValidityEndUtc"].between(now - LONGEST_DAY, now) & (states == "valid")
        if unsure.any():
            found.append(
                whole(
                    "no time zone",
                    "warning",
                    f"Without tz, {int(unsure.sum()):,} codes that ended within 25 hours count as usable.",
                )
            )
    return merge(found)


def judge_add(
    frame: pd.DataFrame, *, existing: pd.DataFrame | None, is_undo: bool, cut: Iterable[bool], tz: Any = None
) -> pd.DataFrame:
    """Checks of rows to add; `cut` says of each whether fractions of a second were cut off its window."""
    values = frame["Value"]
    longer = f"The value has more than {MAX_VALUE_LENGTH} characters."
    blanks = "The value has blanks around it, which guests will not type."
    found = [
        pick(frame, values.str.len() > MAX_VALUE_LENGTH, "too long", "stop", longer),
        pick(frame, values != values.str.strip(), "blanks", "warning" if is_undo else "stop", blanks),
        pick(
            frame,
            frame["ValidityEndUtc"] < frame["ValidityStartUtc"],
            "inverted",
            "warning",
            "The window ends before it begins, so the code never works.",
        ),
        pick(
            frame,
            np.array(list(cut), dtype=bool),
            "fraction",
            "warning",
            "The window is cut to whole seconds, which is all that the API carries.",
        ),
        pick(
            frame,
            _other_case(frame, frame) if not is_undo else np.zeros(len(frame), dtype=bool),
            "other case",
            "warning",
            "Another row differs only in letter case.",
        ),
    ]
    if existing is not None:
        found += _judge_against(frame, existing, tz)
    if is_undo:
        found.append(whole("new ids", "warning", "What is restored gets new ids; values and windows stay."))
    return merge(found)


def pick(frame: pd.DataFrame, where: Any, check: str, level: str, message: str) -> pd.DataFrame:
    """One check of the rows where a condition holds."""
    rows = np.flatnonzero(np.asarray(where, dtype=bool))
    part = frame.iloc[rows]
    return pd.DataFrame(
        {
            "Row": rows.astype("int64"),
            "Check": check,
            "Level": level,
            "Id": part["Id"].to_numpy() if "Id" in part.columns else None,
            "VoucherId": part["VoucherId"].to_numpy(),
            "Value": part["Value"].to_numpy(),
            "Message": message,
        }
    )


def whole(check: str, level: str, message: str) -> pd.DataFrame:
    """One check of a plan as a whole."""
    return pd.DataFrame({"Row": [None], "Check": [check], "Level": [level], "Message": [message]})


def merge(found: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Checks as one frame with stable columns and dtypes, by row."""
    parts = [part for part in found if len(part)]
    frame = pd.DataFrame(columns=list(CHECK_COLUMNS))
    if parts:
        typed = [_typed(part) for part in parts]
        frame = pd.concat(typed, ignore_index=True).sort_values("Row", kind="stable", ignore_index=True)
    return _typed(frame)


def count_checks(checks: pd.DataFrame) -> list[tuple[str, str, int, str]]:
    """Level, check, number of codes and a message of each kind of check, the gravest first."""
    order = {"stop": 0, "allow_valid": 1, "skip": 2, "warning": 3}
    groups = [
        (str(level), str(check), int(part["Row"].notna().sum()), str(part["Message"].iloc[0]))
        for (level, check), part in checks.groupby(["Level", "Check"], sort=False)
    ]
    return sorted(groups, key=lambda group: order[group[0]])


def _typed(part: pd.DataFrame) -> pd.DataFrame:
    part = part.reindex(columns=list(CHECK_COLUMNS))
    return part.astype({name: "Int64" if name == "Row" else "str" for name in CHECK_COLUMNS})


def _judge_against(frame: pd.DataFrame, existing: pd.DataFrame, tz: Any) -> list[pd.DataFrame]:
    active = existing[(existing["ActivityState"] == ACTIVE) & existing["Value"].notna()]
    keys = pd.MultiIndex.from_frame(_keys(active))
    exists = np.asarray(pd.MultiIndex.from_frame(_keys(frame)).isin(keys), dtype=bool)
    message = "The voucher has an active code of this value already."
    found = [
        pick(frame, exists, "exists", "skip", message),
        pick(
            frame,
            _other_case(frame, active),
            "other case",
            "warning",
            "The voucher has an active code that differs only in letter case.",
        ),
    ]
    read_utc = existing.attrs.get("read_utc")
    if read_utc is not None:
        states = status(frame.assign(ActivityState=ACTIVE), as_of=read_utc, tz=tz)
        message = "Its window is over already."
        found.append(pick(frame, states == "expired", "expired", "warning", message))
    return found


def _keys(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"VoucherId": frame["VoucherId"].str.lower(), "Value": frame["Value"]})


def _other_case(frame: pd.DataFrame, others: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Whether others hold a value of the same voucher that is equal but for letter case, and not equal."""
    spellings: dict[tuple[str, str], set[str]] = {}
    for voucher, value in zip(others["VoucherId"].str.lower(), others["Value"], strict=True):
        spellings.setdefault((voucher, value.casefold()), set()).add(value)
    return np.array(
        [
            bool(spellings.get((voucher, value.casefold()), set()) - {value})
            for voucher, value in zip(frame["VoucherId"].str.lower(), frame["Value"], strict=True)
        ],
        dtype=bool,
    )
