"""Frames of codes to rows of the store, and back."""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pandas as pd

from vouchertools.sandbox.store import NewRow, Row
from vouchertools.sandbox.times import NEVER, SECOND

COLUMNS = [
    "Id",
    "VoucherId",
    "Value",
    "ValidityStartUtc",
    "ValidityEndUtc",
    "CreatedUtc",
    "UpdatedUtc",
    "ActivityState",
]
TIMES = COLUMNS[3:7]

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def check_uuids(ids: Sequence[object], name: str) -> list[str]:
    """Return the ids; refuse what is no UUID.

    Raises
    ------
    ValueError
        The first item that is no UUID.
    """
    for item in ids:
        if not isinstance(item, str) or not _UUID.fullmatch(item):
            raise ValueError(f"{name} holds {item!r}, which is no UUID.")
    return [str(item) for item in ids]


def rows_from_frame(codes: pd.DataFrame, place: dict[str, int], *, now: int) -> Iterator[NewRow]:
    """Turn a frame of codes into rows.

    Parameters
    ----------
    codes
        ``VoucherId`` and as many of the other columns of a code as there are. Without ``Id``, ids are made
        up; without ``CreatedUtc``, codes are created now; without ``UpdatedUtc``, they were last updated when
        they were created; without ``ActivityState``, they are active. Nulls in a given column stay null.
    place
        Of each voucher by its id in lower case, its place in the estate.
    now
        Microseconds since 1970.

    Raises
    ------
    ValueError
        An unknown voucher, an id that is no UUID or is there twice, a naive timestamp, an unknown state.
    """
    count = len(codes)
    if "Id" in codes.columns:
        ids = check_uuids(codes["Id"].tolist(), "Id")
        if len({item.lower() for item in ids}) < count:
            raise ValueError("codes holds an Id twice.")
    else:
        ids = [str(uuid4()) for _ in range(count)]
    vouchers = [place.get(voucher.lower(), -1) for voucher in codes["VoucherId"].tolist()]
    if -1 in vouchers:
        raise ValueError(f"There is no voucher {codes['VoucherId'].iloc[vouchers.index(-1)]}.")
    starts, ends = (_micros(codes, name, [NEVER] * count) for name in TIMES[:2])
    created = _micros(codes, "CreatedUtc", [now] * count)
    updated = _micros(codes, "UpdatedUtc", created)
    yield from zip(ids, vouchers, _values(codes), starts, ends, created, updated, _active(codes), strict=True)


def voucher_ids_of(codes: pd.DataFrame) -> list[str]:
    """List the vouchers that codes belong to, in the order of their first code.

    Raises
    ------
    ValueError
        No column ``VoucherId``, or an id that is no UUID.
    """
    if "VoucherId" not in codes.columns:
        raise ValueError("codes has no column VoucherId.")
    return check_uuids(codes["VoucherId"].drop_duplicates().tolist(), "VoucherId")


def frame_from_rows(rows: Sequence[Row], voucher_ids: Sequence[str]) -> pd.DataFrame:
    """Make the frame that shows rows as the API does: timestamps in whole seconds."""
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(9)]
    _, ids, vouchers, values, *times, active = columns
    made = {
        "Id": pd.array(ids, dtype="str"),
        "VoucherId": pd.array([voucher_ids[voucher] for voucher in vouchers], dtype="str"),
        "Value": pd.array(values, dtype="str"),
    }
    for name, instants in zip(TIMES, times, strict=True):
        micros = pd.Series(instants, dtype="int64")
        shown = (micros - micros % SECOND).mask(micros == NEVER)
        made[name] = (
            pd.to_datetime(shown.astype("Int64"), unit="us", utc=True).astype("datetime64[us, UTC]").array
        )
    made["ActivityState"] = pd.array(["Active" if one else "Deleted" for one in active], dtype="str")
    return pd.DataFrame(made, columns=COLUMNS)


def _micros(codes: pd.DataFrame, name: str, otherwise: list[int]) -> list[int]:
    if name not in codes.columns:
        return otherwise
    column = codes[name]
    if column.isna().all():
        return [NEVER] * len(column)
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        raise ValueError(f"{name} is of dtype {column.dtype}: give timestamps with a time zone.")
    instants = column.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    micros: list[int] = instants.astype("int64").mask(instants.isna(), NEVER).tolist()
    return micros


def _values(codes: pd.DataFrame) -> list[str | None]:
    if "Value" not in codes.columns:
        return [None] * len(codes)
    column = codes["Value"]
    return [None if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]


def _active(codes: pd.DataFrame) -> list[int]:
    if "ActivityState" not in codes.columns:
        return [1] * len(codes)
    states = codes["ActivityState"]
    unknown = states[~states.isin(["Active", "Deleted"])]
    if len(unknown):
        raise ValueError(f"ActivityState holds {unknown.iloc[0]!r}: only Active and Deleted are known.")
    return [int(state == "Active") for state in states]
