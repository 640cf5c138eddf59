"""How many codes are usable, over time: an event sweep, linear in the codes whatever time they span.

A code is *usable in a period* (a local day, week or month) when its window holds at any instant of it. Since
a window of dates includes its last day, that is every period from the one that holds the start to the one
that holds the end. So each code is two events, one more in its first period and one less after its last; the
events of a period are added up, and the sums run on from one period to the next.

Deleted codes are not counted, not even before they were deleted: nothing records when that was. Nor are
inverted windows. A window without a start counts from the first period on, one without an end to the last.
"""

from datetime import UTC, datetime
from typing import Any, Final, overload

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from vouchertools.errors import InputError
from vouchertools.frames import Frame, read_frame
from vouchertools.status import columns_needed, read_zones

_DAY_S: Final = 86_400
_EPOCH: Final = datetime(1970, 1, 1)
# The epoch is a Thursday.
_DAYS_FROM_MONDAY: Final = 3
# A period before every other: where windows without a start begin.
_BEGINNING: Final = -(10**9)
# Stands for no instant while local times are worked out: engines differ in what they make of null.
_ANY_INSTANT: Final = datetime(2000, 1, 1, tzinfo=UTC)


@overload
def timeline(codes: pd.DataFrame, *, freq: str = "D", tz: Any = None) -> pd.DataFrame: ...
@overload
def timeline(codes: Any, *, freq: str = "D", tz: Any = None) -> Any: ...
def timeline(codes: Any, *, freq: str = "D", tz: Any = None) -> Any:
    """Count the usable codes of every day, week or month.

    Parameters
    ----------
    codes
        Any frame that Narwhals takes, with the columns that `vouchertools.status` needs.
    freq
        ``"D"`` for days, ``"W"`` for weeks from Monday, ``"M"`` for months.
    tz
        As for `vouchertools.status`: whose days. Without a zone they are days in UTC, in which a date that
        Mews wrote for a hotel east of Greenwich falls on the day before.

    Returns
    -------
    frame
        A row for every period from the earliest start to the one after the latest end, of the same library
        as ``codes``, lazy if that was lazy. ``Date`` is the first local day of the period (a date; in pandas
        a naive ``datetime64[us]`` at midnight), ``Usable`` the number of codes, int64. There is no row when
        no window has an end or a start.

    Raises
    ------
    InputError
        A column is missing, ``freq`` is none of these, or a zone is unknown.

    Examples
    --------
    >>> import pandas as pd
    >>> codes = pd.DataFrame({
    ...     "ActivityState": ["Active", "Active"],
    ...     "ValidityStartUtc": pd.to_datetime(["2023-10-08T22:00:00Z", "2023-10-09T22:00:00Z"]),
    ...     "ValidityEndUtc": pd.to_datetime(["2023-10-10T22:00:00Z", "2023-10-09T22:00:00Z"]),
    ... })
    >>> timeline(codes, tz="Europe/Prague")
            Date  Usable
    0 2023-10-09       1
    1 2023-10-10       2
    2 2023-10-11       1
    3 2023-10-12       0
    """
    if freq not in ("D", "W", "M"):
        raise InputError(f"freq={freq!r}: give 'D' for days, 'W' for weeks or 'M' for months.")
    frame = read_frame(codes, *columns_needed(tz))
    if frame.implementation.is_polars() and isinstance(frame, nw.DataFrame):
        return timeline(codes.lazy(), freq=freq, tz=tz).collect()  # one query is faster than its steps
    zones = read_zones(tz)
    starts, ends = (
        _count_instants(frame, column, zones) for column in ("ValidityStartUtc", "ValidityEndUtc")
    )
    names = [*dict.fromkeys(zones.values()), "UTC"] if isinstance(zones, dict) else [zones or "UTC"]
    starts, ends = (_number_periods(counts, freq, names) for counts in (starts, ends))
    return _spread(_sum_up(starts, ends), freq)


def _count_instants(frame: Frame, column: str, zones: str | dict[str, str] | None) -> Frame:
    """Count the codes by start or end, to the instant, and by zone: what is left is small.

    Windows of dates share few instants, and local time is worked out for those instead of for every code.
    """
    deleted = (nw.col("ActivityState") == "Deleted").fill_null(False)
    inverted = (nw.col("ValidityEndUtc") < nw.col("ValidityStartUtc")).fill_null(False)
    columns = [nw.col(column).alias("instant"), (~deleted & ~inverted).alias("counts")]
    columns += [_zone_number(zones).alias("zone")] if isinstance(zones, dict) else []
    keys = ["instant", "zone"] if isinstance(zones, dict) else ["instant"]
    return frame.select(*columns).filter("counts").group_by(keys).agg(nw.len().alias("codes"))


def _zone_number(zones: dict[str, str]) -> nw.Expr:
    """Position of a code's zone among those of ``tz``; the one after them is UTC."""
    names = list(dict.fromkeys(zones.values()))
    number: nw.Expr = nw.lit(len(names))
    for position, name in enumerate(names):
        vouchers = [voucher for voucher, zone in zones.items() if zone == name]
        here = nw.col("VoucherId").is_in(vouchers).fill_null(False)
        number = nw.when(here).then(nw.lit(position)).otherwise(number)
    return number


def _number_periods(counts: Frame, freq: str, zones: list[str]) -> Frame:
    """Turn instants into numbers of local periods; no instant becomes one before all others."""
    is_open = nw.col("instant").is_null().alias("open")
    counts = counts.with_columns(nw.col("instant").fill_null(_ANY_INSTANT), is_open)
    counts = _add_local(counts, "month" if freq == "M" else "day", zones)
    number: nw.Expr = nw.col("local_0")
    for position in range(1, len(zones)):
        here = nw.col("zone") == position
        number = nw.when(here).then(nw.col(f"local_{position}")).otherwise(number)
    counts = counts.select("open", "codes", number.cast(nw.Int64).alias("n"))
    if freq == "W":
        counts = counts.with_columns((nw.col("n") + _DAYS_FROM_MONDAY) // 7)
    numbered = nw.when(nw.col("open")).then(nw.lit(_BEGINNING)).otherwise(nw.col("n"))
    return counts.select(numbered.cast(nw.Int64).alias("n"), nw.col("codes").cast(nw.Int64))


def _add_local(counts: Frame, unit: str, zones: list[str]) -> Frame:
    """Add the local day since the epoch, or month since year 0, of ``instant``: ``local_0`` in zone 0."""
    if counts.implementation.is_duckdb():
        day = "date_diff('day', DATE '1970-01-01', CAST({0} AS DATE))"
        template = day if unit == "day" else "year({0}) * 12 + month({0}) - 1"
        local = [template.format(f"timezone('{zone}', instant)") for zone in zones]
        columns = [f"{number} AS local_{n}" for n, number in enumerate(local)]
        return read_frame(counts.to_native().project(", ".join(["*", *columns])))
    if counts.implementation.is_pyspark():
        template = "unix_date(CAST({0} AS DATE))" if unit == "day" else "year({0}) * 12 + month({0}) - 1"
        # From seconds, since a cast would go through the wall clock of the session's zone.
        utc = "timestamp_ntz'1970-01-01' + make_dt_interval(0, 0, 0, unix_seconds(instant))"
        local = [template.format(f"convert_timezone('UTC', '{zone}', {utc})") for zone in zones]
        return read_frame(
            counts.to_native().selectExpr("*", *(f"{number} AS local_{n}" for n, number in enumerate(local)))
        )
    return counts.with_columns(
        _local_number(nw.col("instant"), unit, zone).alias(f"local_{n}") for n, zone in enumerate(zones)
    )


def _local_number(instant: nw.Expr, unit: str, zone: str) -> nw.Expr:
    local = instant.dt.convert_time_zone(zone).dt.replace_time_zone(None)
    if unit == "day":
        return (local - _EPOCH).dt.total_seconds() // _DAY_S
    return local.dt.year().cast(nw.Int64) * 12 + local.dt.month().cast(nw.Int64) - 1


def _sum_up(starts: Frame, ends: Frame) -> Frame:
    """Add up the events and run the sums on: a row for each period ``n`` with an event.

    ``there`` codes are usable in that period, and ``later`` in those after it, up to ``next``.
    """
    codes, none = nw.col("codes"), nw.lit(0).cast(nw.Int64)
    started: Any = starts.select("n", codes.alias("more"), none.alias("fewer"))
    ended: Any = ends.filter(nw.col("n") > _BEGINNING).select("n", none.alias("more"), codes.alias("fewer"))
    sums: Any = nw.concat([started, ended]).group_by("n").agg(nw.col("more", "fewer").sum())
    sums = sums.with_columns((nw.col("more") - nw.col("fewer")).alias("change"))
    steps: Frame = sums.select(
        "n",
        "fewer",
        nw.col("change").cum_sum().over(order_by="n").cast(nw.Int64).alias("later"),
        nw.col("n").shift(-1).over(order_by="n").alias("next"),
    ).filter(nw.col("n") > _BEGINNING)
    # After the last end there is one period more, to show what is left.
    last = nw.when(nw.col("fewer") > 0).then(nw.col("n") + 2).otherwise(nw.col("n") + 1)
    following = nw.when(nw.col("next").is_null()).then(last).otherwise(nw.col("next"))
    there = (nw.col("later") + nw.col("fewer")).cast(nw.Int64).alias("there")
    return steps.select("n", following.cast(nw.Int64).alias("next"), there, "later")


def _spread(steps: Frame, freq: str) -> Any:
    """Repeat each row until the next one, and date the periods."""
    native = steps.to_native()
    if isinstance(steps, nw.DataFrame):
        return _spread_now(steps.sort("n"), freq)
    usable = "CASE WHEN n = first THEN there ELSE later END AS Usable"
    if steps.implementation.is_duckdb():
        date = {
            "D": "DATE '1970-01-01' + n::INTEGER",
            "W": f"DATE '1970-01-01' + (n * 7 - {_DAYS_FROM_MONDAY})::INTEGER",
            "M": "make_date(n // 12, n % 12 + 1, 1)",
        }[freq]
        rows = native.project("n AS first, unnest(range(n, next)) AS n, there, later")
        return rows.project(f"{date} AS Date, {usable}").order("Date")
    if steps.implementation.is_pyspark():
        date = {
            "D": "date_add(DATE '1970-01-01', CAST(n AS INT))",
            "W": f"date_add(DATE '1970-01-01', CAST(n * 7 - {_DAYS_FROM_MONDAY} AS INT))",
            "M": "make_date(CAST(n DIV 12 AS INT), CAST(n % 12 + 1 AS INT), 1)",
        }[freq]
        rows = native.selectExpr("n AS first", "explode(sequence(n, next - 1)) AS n", "there", "later")
        return rows.selectExpr(f"{date} AS Date", usable).orderBy("Date")
    if steps.implementation.is_polars():
        import polars as pl

        n = pl.col("n")
        day = (n * 7 - _DAYS_FROM_MONDAY if freq == "W" else n).cast(pl.Int32).cast(pl.Date)
        date_of_n = pl.date(n // 12, n % 12 + 1, 1) if freq == "M" else day
        rows = native.sort("n").with_columns(first=n, n=pl.int_ranges("n", "next")).explode("n")
        counts = pl.when(n == pl.col("first")).then("there").otherwise("later")
        return rows.select(Date=date_of_n, Usable=counts)
    raise InputError(f"timeline does not work lazily on {type(native).__name__}. Collect it first.")


def _spread_now(steps: nw.DataFrame[Any], freq: str) -> Any:
    first, until, there, later = (steps[name].to_numpy() for name in ("n", "next", "there", "later"))
    lengths = until - first
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    n = np.repeat(first, lengths) + offset
    if freq == "M":
        dates = (n - 1970 * 12).astype("datetime64[M]").astype("datetime64[D]")
    else:
        dates = (n if freq == "D" else n * 7 - _DAYS_FROM_MONDAY).astype("datetime64[D]")
    usable = np.where(offset == 0, np.repeat(there, lengths), np.repeat(later, lengths))
    columns = {"Date": dates, "Usable": usable}
    if steps.implementation.is_pandas():
        return pd.DataFrame(columns).astype({"Date": "datetime64[us]"})
    return nw.from_arrow(pa.table(columns), backend=steps.implementation).to_native()
