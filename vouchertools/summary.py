"""Counts, the timeline, anomalies, and the comparison of two pulls: small frames that answer questions.

Everything here takes any frame that Narwhals takes and gives back the same kind: pandas, Polars or PyArrow at
once, DuckDB, PySpark and Polars' lazy frames lazily. Status is judged by `vouchertools.status` alone.

Terms
-----
dead weight
    Codes that nobody can use again: deleted, inverted or expired.
expiring
    Valid codes whose window ends within a given period after ``as_of``.
length of a window
    The days that it begins, its last one included: 1 for a code of one day, 7 for one from Monday to Sunday.
"""

from datetime import datetime, timedelta
from typing import Any, overload

import narwhals as nw
import pandas as pd

from vouchertools.contract import to_utc
from vouchertools.errors import InputError
from vouchertools.frames import Frame, add_seconds, collect, read_frame, unwrap
from vouchertools.status import STATUSES, columns_needed, label, rank

#: What `summarize` can count by, and the column of ``vouchers`` that names it.
_NAMES = {"VoucherId": "Name", "EnterpriseId": "EnterpriseName"}
_WINDOW_COLUMNS = ("FirstStartUtc", "LastEndUtc", "MedianDays")
_DAY_S = 86_400
_HOUR_S = 3_600


@overload
def summarize(
    codes: pd.DataFrame,
    *,
    as_of: Any,
    tz: Any = None,
    by: str | None = "VoucherId",
    vouchers: Any = None,
    expiring_within: Any = "30D",
) -> pd.DataFrame: ...
@overload
def summarize(
    codes: Any,
    *,
    as_of: Any,
    tz: Any = None,
    by: str | None = "VoucherId",
    vouchers: Any = None,
    expiring_within: Any = "30D",
) -> Any: ...
def summarize(
    codes: Any,
    *,
    as_of: Any,
    tz: Any = None,
    by: str | None = "VoucherId",
    vouchers: Any = None,
    expiring_within: Any = "30D",
) -> Any:
    """Count codes by status, with what is about to end and what is dead weight.

    Parameters
    ----------
    codes
        Any frame that Narwhals takes, with the columns that `status` needs, and ``VoucherId`` when counted by
        voucher or enterprise.
    as_of, tz
        As for `status`.
    by
        ``"VoucherId"``, ``"EnterpriseId"`` (through ``vouchers``), ``"Status"``, or None for one row in all.
    vouchers
        The frame from ``Client.vouchers()``: adds the names of vouchers or enterprises.
    expiring_within
        How long after ``as_of`` a valid code may end to count as expiring, as `pandas.Timedelta` reads it.

    Returns
    -------
    frame
        One row for each ``by``, sorted by it, of the same library as ``codes``; lazy if that was lazy.
        Columns: the key; its ``Name`` or ``EnterpriseName`` if ``vouchers`` were given; a count for each
        status; ``Total``; ``Expiring`` (int64 all); ``DeadShare``, the share of dead weight from 0 to 1, null
        where there is no code; ``FirstStartUtc`` and ``LastEndUtc``, the earliest start and the latest end,
        open ones aside; ``MedianDays``, the median length of the windows that are closed on both sides and
        not inverted. By status there are five rows in the order of the statuses, with ``Total``,
        ``FirstStartUtc``, ``LastEndUtc`` and ``MedianDays``.

    Raises
    ------
    InputError
        A column is missing, ``by`` is none of these, ``expiring_within`` is no period, or as for `status`.

    Examples
    --------
    >>> import pandas as pd
    >>> codes = pd.DataFrame({
    ...     "VoucherId": ["a", "a", "b"],
    ...     "ActivityState": ["Active", "Active", "Deleted"],
    ...     "ValidityStartUtc": pd.to_datetime(["2023-10-09T22:00:00Z"] * 3),
    ...     "ValidityEndUtc": pd.to_datetime(["2023-10-09T22:00:00Z", "2023-10-15T22:00:00Z", None]),
    ... })
    >>> counts = summarize(codes, as_of="2023-10-12T08:00Z", tz="Europe/Prague")
    >>> counts[["VoucherId", "deleted", "expired", "valid", "Total", "Expiring", "DeadShare", "MedianDays"]]
      VoucherId  deleted  expired  valid  Total  Expiring  DeadShare  MedianDays
    0         a        0        1      1      2         1        0.5         4.0
    1         b        1        0      0      1         0        1.0         NaN
    """
    if by not in (*_NAMES, "Status", None):
        raise InputError(f"by={by!r}: give 'VoucherId', 'EnterpriseId', 'Status' or None.")
    key = () if by in (None, "Status") else ("VoucherId",)
    frame = read_frame(codes, *dict.fromkeys((*key, *columns_needed(tz))))
    options = {"as_of": as_of, "tz": tz, "by": by, "vouchers": vouchers, "expiring_within": expiring_within}
    if frame.implementation.is_pyarrow():
        # Arrow's own grouped median is approximate.
        return nw.from_native(summarize(collect(frame).to_pandas(), **options)).to_arrow()
    if frame.implementation.is_polars() and isinstance(frame, nw.DataFrame):
        return summarize(codes.lazy(), **options).collect()  # one query is faster than its steps
    frame = frame.with_columns(rank(as_of=as_of, tz=tz).alias("_rank"))
    frame = add_seconds(frame, "_seconds", start="ValidityStartUtc", end="ValidityEndUtc")
    limit = to_utc(as_of, "as_of") + _read_period(expiring_within, "expiring_within")
    if by == "Status":
        return unwrap(_count_by_status(frame))
    if by is None:
        return unwrap(_count(frame, None, limit))
    if by == "EnterpriseId":
        if vouchers is None:
            raise InputError("by='EnterpriseId' needs vouchers=: the frame from Client.vouchers().")
        frame = frame.with_columns(_look_up("VoucherId", vouchers, "Id", by))
    counted = _count(frame, by, limit).sort(by, nulls_last=True)
    if vouchers is not None:
        name = _NAMES[by]
        counted = counted.with_columns(_look_up(by, vouchers, "Id" if by == "VoucherId" else by, name))
        counted = counted.select(by, name, nw.exclude(by, name))
    return unwrap(counted)


def _count(frame: Frame, by: str | None, limit: datetime) -> Frame:
    """Count the codes of each key; of all of them when there is none."""
    start, end, ranks = nw.col("ValidityStartUtc"), nw.col("ValidityEndUtc"), nw.col("_rank")
    expiring = (ranks == STATUSES.index("valid")) & (end <= limit)
    columns = [
        *((ranks == number).cast(nw.Int8).alias(name) for number, name in enumerate(STATUSES)),
        expiring.fill_null(False).cast(nw.Int8).alias("Expiring"),
        start.alias("FirstStartUtc"),
        end.alias("LastEndUtc"),
        _length_days(start, end).alias("MedianDays"),
    ]
    counts = [nw.col(name).sum() for name in (*STATUSES, "Expiring")]
    frame = frame.select(*([by] if by else []), *columns)
    counted = frame.group_by(by).agg(*counts, *_windows()) if by else _select(frame, *counts, *_windows())
    counted = counted.with_columns(nw.col(*STATUSES, "Expiring").cast(nw.Int64))
    total = nw.sum_horizontal(*STATUSES)
    dead = nw.sum_horizontal("deleted", "inverted", "expired").cast(nw.Float64)
    counted = counted.with_columns(
        total.alias("Total"),
        nw.when(total > 0).then(dead / total).alias("DeadShare"),
    )
    return counted.select(
        *([by] if by else []), *STATUSES, "Total", "Expiring", "DeadShare", *_WINDOW_COLUMNS
    )


def _count_by_status(frame: Frame) -> Frame:
    """Count the codes of each status, those that no code has included."""
    start, end = nw.col("ValidityStartUtc"), nw.col("ValidityEndUtc")
    frame = frame.select(
        "_rank",
        start.alias("FirstStartUtc"),
        end.alias("LastEndUtc"),
        _length_days(start, end).alias("MedianDays"),
    )
    counts: list[Any] = [
        _select(
            frame.filter(nw.col("_rank") == number), nw.len().cast(nw.Int64).alias("Total"), *_windows()
        ).with_columns(nw.lit(number).alias("_rank"))
        for number in range(len(STATUSES))
    ]
    ordered: Frame = nw.concat(counts).sort("_rank")
    return ordered.select(label(nw.col("_rank")).alias("Status"), "Total", *_WINDOW_COLUMNS)


def _select(frame: Frame, *aggregates: nw.Expr) -> Frame:
    """Aggregate the whole frame; a column without values keeps its dtype, which pandas would forget."""
    result = frame.select(*aggregates)
    if isinstance(result, nw.LazyFrame):
        return result
    return result.with_columns(
        nw.lit(None, dtype=dtype).alias(column)
        for column, dtype in frame.collect_schema().items()
        if column in _WINDOW_COLUMNS[:2] and result.schema[column] != dtype
    )


def _windows() -> list[nw.Expr]:
    first, last, median = (nw.col(name) for name in _WINDOW_COLUMNS)
    return [first.min(), last.max(), median.median()]


def _length_days(start: nw.Expr, end: nw.Expr) -> nw.Expr:
    """Days that a window begins, from its seconds; null if it is open or inverted.

    Midnights on either side of the switch to summer time are a multiple of 24 hours less one apart.
    """
    seconds = nw.when(end >= start).then(nw.col("_seconds"))
    shortened = (seconds % _DAY_S == _DAY_S - _HOUR_S).cast(nw.Int64)
    return (seconds // _DAY_S + shortened + 1).cast(nw.Float64)


def _look_up(column: str, table: Any, old: str, new: str) -> nw.Expr:
    """Values of a column replaced through a small table; null where it has none."""
    wrapped = read_frame(table, old, new, name="vouchers")
    pairs = collect(wrapped.select(old, new)).unique(old, keep="any").drop_nulls()
    if not len(pairs):
        return nw.lit(None, dtype=nw.String).alias(new)
    return (
        nw.col(column)
        .replace_strict(pairs[old].to_list(), pairs[new].to_list(), default=None, return_dtype=nw.String)
        .alias(new)
    )


def _read_period(period: Any, name: str) -> timedelta:
    try:
        length = pd.Timedelta(period)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={period!r} is not a period. Give one such as '30D'.") from error
    if pd.isna(length) or length < pd.Timedelta(0):
        raise InputError(f"{name}={period!r} is not a period from now on. Give one such as '30D'.")
    return length.to_pytimedelta()
