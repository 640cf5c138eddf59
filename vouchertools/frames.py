"""Frames of any library behind one interface: read with a check, taken back out as what they were.

Eager frames are those of pandas, Polars and PyArrow; lazy ones (DuckDB, PySpark, Polars' own) stand for a
query that nobody has run yet.
"""

from typing import Any, TypeAlias

import narwhals as nw
import pandas as pd

from vouchertools.errors import InputError

#: A frame behind the one interface.
Frame: TypeAlias = nw.DataFrame[Any] | nw.LazyFrame[Any]


def read_frame(frame: Any, *columns: str, name: str = "codes") -> Frame:
    """Take a frame in, sure of its columns; those named ``...Utc`` hold times with a zone.

    Raises
    ------
    InputError
        It is no frame, a column is missing, or times have no zone.
    """
    try:
        wrapped: Frame = nw.from_native(frame)
    except TypeError as error:
        raise InputError(f"{name} is a {type(frame).__name__}, not a data frame.") from error
    schema = wrapped.collect_schema()
    if missing := [column for column in columns if column not in schema]:
        raise InputError(f"{name} lacks {', '.join(missing)}. It has: {', '.join(schema) or 'no columns'}.")
    for column in columns:
        dtype = schema[column]
        if column.endswith("Utc") and not (isinstance(dtype, nw.Datetime) and dtype.time_zone):
            raise InputError(
                f"{name}[{column!r}] holds {dtype}, not times with a time zone. "
                "Convert it first, for example with pd.to_datetime(..., utc=True)."
            )
    return wrapped


def collect(frame: Frame) -> nw.DataFrame[Any]:
    """Run the query of a lazy frame."""
    return frame.collect() if isinstance(frame, nw.LazyFrame) else frame


def collect_pandas(frame: Any) -> pd.DataFrame:
    """Rows of any frame, as pandas: for what is small, or must be."""
    return collect(read_frame(frame)).to_pandas()


def add_seconds(frame: Frame, name: str, *, start: str, end: str) -> Frame:
    """Add a column with the whole seconds from one column of times to another."""
    if frame.implementation.is_pyspark():
        # Narwhals cannot measure a duration there.
        micros = f"unix_micros({end}) - unix_micros({start})"
        return read_frame(frame.to_native().selectExpr("*", f"({micros}) DIV 1000000 AS {name}"))
    return frame.with_columns((nw.col(end) - nw.col(start)).dt.total_seconds().alias(name))


def unwrap(frame: Frame) -> Any:
    """Give a frame back as its own library's; pandas gets a fresh index and columns without a name."""
    if isinstance(frame, nw.LazyFrame) or not frame.implementation.is_pandas():
        return frame.to_native()
    return nw.maybe_reset_index(frame).to_native().rename_axis(columns=None)
