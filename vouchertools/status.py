"""What a code is at an instant: the one place that holds the validity rule.

Terms
-----
status
    The first that holds of: ``deleted`` (its ``ActivityState`` says so), ``inverted`` (the window ends before
    it starts), ``expired`` (the window is over), ``future`` (it has not begun), ``valid``.
first instant
    Where a local day begins: its midnight, or the first moment after it where clocks skip midnight.

Mews writes a date as the first instant of that local day, and a window of dates includes its last day. So an
end on the first instant of a local day holds through that day, be it 23, 24 or 25 hours long, and any other
end holds to its own instant. No row is converted to local time for this: at ``as_of`` only one first instant
can still be holding, that of the local day which contains ``as_of``. A code is expired when its end is before
``as_of`` and is not that instant.

Without a time zone a code counts as expired when its end is more than 25 hours past, the longest day that a
switch of clocks makes. Null ends never expire, and null starts never lie ahead.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from functools import reduce
from operator import or_
from typing import Any, overload
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import narwhals as nw
import pandas as pd

from vouchertools.contract import to_utc
from vouchertools.errors import InputError
from vouchertools.frames import collect, read_frame

#: Every status, in the order in which they are tried.
STATUSES = ("deleted", "inverted", "expired", "future", "valid")

#: The longest day that a switch of clocks makes: an end further past than this is over in every hotel's zone.
LONGEST_DAY = timedelta(hours=25)


@overload
def status(codes: pd.DataFrame, *, as_of: Any, tz: Any = None) -> "pd.Series[str]": ...
@overload
def status(codes: Any, *, as_of: Any, tz: Any = None) -> Any: ...
def status(codes: Any, *, as_of: Any, tz: Any = None) -> Any:
    """Say what every code is at an instant.

    Parameters
    ----------
    codes
        Any frame that Narwhals takes, with ``ActivityState``, ``ValidityStartUtc`` and ``ValidityEndUtc``;
        with ``VoucherId`` too when ``tz`` differs by voucher.
    as_of
        The instant, with a time zone.
    tz
        The codes' time zone: one IANA name, a mapping from voucher id to name, or the frame from
        ``Client.vouchers()``. Codes of a voucher that it does not name are judged as without a zone.

    Returns
    -------
    Series
        Strings named ``Status``, row for row as in ``codes`` and of the same library. A lazy frame (DuckDB,
        PySpark, Polars) comes back as a lazy frame with a column ``Status`` added; nothing is computed.

    Raises
    ------
    InputError
        A column is missing or holds times without a zone, ``as_of`` has no time zone, or a zone is unknown.

    Examples
    --------
    >>> import pandas as pd
    >>> codes = pd.DataFrame({
    ...     "ActivityState": ["Active", "Active", "Deleted"],
    ...     "ValidityStartUtc": pd.to_datetime(["2023-10-09T22:00:00Z"] * 3),
    ...     "ValidityEndUtc": pd.to_datetime(["2023-10-09T22:00:00Z", "2023-10-10T10:00:00Z", None]),
    ... })
    >>> list(status(codes, as_of="2023-10-10T21:59:59Z", tz="Europe/Prague"))
    ['valid', 'expired', 'deleted']
    """
    frame = read_frame(codes, *columns_needed(tz))
    name = label(rank(as_of=as_of, tz=tz)).alias("Status")
    if isinstance(frame, nw.LazyFrame):
        return frame.with_columns(name).to_native()
    return frame.select(name)["Status"].to_native()


def first_instant(zone: str, as_of: datetime) -> datetime:
    """First instant, in UTC, of the local day of a zone that contains an instant.

    Parameters
    ----------
    zone
        IANA name, such as ``Europe/Prague``.
    as_of
        The instant, with a time zone.

    Returns
    -------
    datetime
        In UTC: the local midnight (the earlier one, where clocks show it twice), or the end of the gap that
        skips it.

    Raises
    ------
    InputError
        The zone is unknown.

    Examples
    --------
    >>> from datetime import datetime, timezone
    >>> print(first_instant("Africa/Cairo", datetime(2024, 4, 26, 12, tzinfo=timezone.utc)))  # 01:00 there
    2024-04-25 22:00:00+00:00
    """
    clock = read_zone(zone)
    day = as_of.astimezone(clock).date()
    midnight = datetime.combine(day, time(), clock)
    first = midnight.astimezone(UTC)
    if first.astimezone(clock).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return first
    # Clocks skip midnight. Read with the offset after the gap, it falls before the gap: its end lies between.
    before = midnight.replace(fold=1).astimezone(UTC)
    while first - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(first - before) // timedelta(seconds=2))
        before, first = (before, middle) if middle.astimezone(clock).date() >= day else (middle, first)
    return first


def read_zone(name: Any) -> ZoneInfo:
    """Return the zone with this IANA name.

    Raises
    ------
    InputError
        There is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise InputError(
            f"{name!r} is not a known time zone. Give an IANA name, such as 'Europe/Prague'."
        ) from error


def read_zones(tz: Any) -> str | dict[str, str] | None:
    """Return ``tz`` as one IANA name, as a dict from voucher id to name, or as None; every name is known.

    Parameters
    ----------
    tz
        As for :func:`status`. Vouchers whose zone is null are left out.

    Raises
    ------
    InputError
        It is none of these, or a zone is unknown.
    """
    if tz is None:
        return None
    if isinstance(tz, str):
        return read_zone(tz).key
    if not isinstance(tz, Mapping):
        table = collect(read_frame(tz, "Id", "TimeZone", name="tz"))
        tz = dict(zip(table["Id"].to_list(), table["TimeZone"].to_list(), strict=True))
    zones = {str(voucher): zone for voucher, zone in tz.items() if not pd.isna(zone)}
    for zone in dict.fromkeys(zones.values()):
        read_zone(zone)
    return zones


def columns_needed(tz: Any) -> tuple[str, ...]:
    """Columns that judging needs, given ``tz``."""
    by_voucher = () if tz is None or isinstance(tz, str) else ("VoucherId",)
    return (*by_voucher, "ActivityState", "ValidityStartUtc", "ValidityEndUtc")


def rank(*, as_of: Any, tz: Any) -> nw.Expr:
    """Return the expression that judges: the position in :data:`STATUSES` of each code's status."""
    instant = to_utc(as_of, "as_of")
    start, end = nw.col("ValidityStartUtc"), nw.col("ValidityEndUtc")
    deleted, inverted, expired, future, valid = (nw.lit(n, dtype=nw.Int8) for n in range(len(STATUSES)))
    return (
        nw.when(nw.col("ActivityState") == "Deleted")
        .then(deleted)
        .when(end < start)
        .then(inverted)
        .when(_is_expired(end, instant, read_zones(tz)))
        .then(expired)
        .when(start > instant)
        .then(future)
        .otherwise(valid)
    )


def label(ranks: nw.Expr) -> nw.Expr:
    """Turn positions in :data:`STATUSES` into names."""
    deleted, inverted, expired, future, valid = (nw.lit(name) for name in STATUSES)
    return (
        nw.when(ranks == 0)
        .then(deleted)
        .when(ranks == 1)
        .then(inverted)
        .when(ranks == 2)
        .then(expired)
        .when(ranks == 3)
        .then(future)
        .otherwise(valid)
    )


def _is_expired(end: nw.Expr, as_of: datetime, zones: str | dict[str, str] | None) -> nw.Expr:
    if zones is None:
        return end < as_of - LONGEST_DAY
    if isinstance(zones, str):
        return (end < as_of) & (end != first_instant(zones, as_of))
    if not zones:
        return end < as_of - LONGEST_DAY
    vouchers_by_first: dict[datetime, list[str]] = {}
    firsts = {zone: first_instant(zone, as_of) for zone in dict.fromkeys(zones.values())}
    for voucher, zone in zones.items():
        vouchers_by_first.setdefault(firsts[zone], []).append(voucher)
    holding = [(end == first) & _is_one_of(vouchers) for first, vouchers in vouchers_by_first.items()]
    unsure = (end >= as_of - LONGEST_DAY) & ~_is_one_of(list(zones))
    return (end < as_of) & ~reduce(or_, holding, unsure)


def _is_one_of(vouchers: list[str]) -> nw.Expr:
    return nw.col("VoucherId").is_in(vouchers).fill_null(False)
