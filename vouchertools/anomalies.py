"""Codes that look wrong: which, why, and in words that can be shown to whoever typed them.

Deleted codes are left out: what was wrong with them no longer matters. A code that is wrong in two ways is
found twice.
"""

from typing import Any, Final, overload

import narwhals as nw
import pandas as pd

from vouchertools.contract import MAX_VALUE_LENGTH
from vouchertools.frames import Frame, read_frame, unwrap
from vouchertools.status import LONGEST_DAY, columns_needed, label, rank

#: Every kind of anomaly in the order of the result, and what it means.
ANOMALIES: Final = {
    "duplicate": "The same value exists more than once in this voucher.",
    "case": "Another value in this voucher has the same letters in another case.",
    "inverted": "The window ends before it starts, so nobody can ever use it.",
    "over": "The window had ended before the code was created, so nobody could ever use it.",
    "empty": "There is no value to type.",
    "blank": "The value has a blank in it, or around it where nobody sees it.",
    "long": f"The value has more than {MAX_VALUE_LENGTH} characters, so it cannot be added again.",
    "invisible": "The value has a character that cannot be seen, or an accent apart from its letter.",
    "mixed": "The value mixes Latin with Cyrillic or Greek letters, some of which look the same.",
}

# Written out, since engines differ in what their own classes of characters hold.
_BLANK: Final = "[\t\n\v\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_INVISIBLE: Final = (
    r"[\x00-\x08\x0e-\x1f\x7f"
    "\u0080-\u0084\u0086-\u009f\u00ad\u0300-\u036f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
_LATIN: Final = "[A-Za-z]"
_LOOKS_LATIN: Final = "[\u0370-\u03ff\u0400-\u04ff]"
_SHOWN: Final = ("Id", "VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc")


@overload
def find_anomalies(codes: pd.DataFrame, *, as_of: Any, tz: Any = None) -> pd.DataFrame: ...
@overload
def find_anomalies(codes: Any, *, as_of: Any, tz: Any = None) -> Any: ...
def find_anomalies(codes: Any, *, as_of: Any, tz: Any = None) -> Any:
    """Find codes that look wrong: twice, never usable, hard or impossible to type.

    Parameters
    ----------
    codes
        Any frame that Narwhals takes, with all columns of a pull but ``UpdatedUtc``.
    as_of, tz
        As for `vouchertools.status`: they decide the column ``Status``, which tells what is still usable.

    Returns
    -------
    frame
        A row for each code and anomaly, of the same library as ``codes``, lazy if that was lazy; sorted by
        kind, voucher and value. ``Kind`` is a key of `ANOMALIES`, ``Message`` its sentence; then ``Id``,
        ``VoucherId``, ``Value``, ``ValidityStartUtc``, ``ValidityEndUtc`` and ``Status``.

    Raises
    ------
    InputError
        As for `vouchertools.status`.

    Examples
    --------
    >>> import pandas as pd
    >>> never = pd.to_datetime([None, None], utc=True)
    >>> codes = pd.DataFrame({
    ...     "Id": ["1", "2"], "VoucherId": ["v", "v"], "Value": ["SUMMER", "Summer"],
    ...     "ValidityStartUtc": never, "ValidityEndUtc": never, "CreatedUtc": never,
    ...     "ActivityState": ["Active", "Active"],
    ... })
    >>> find_anomalies(codes, as_of="2024-05-01T00:00Z")[["Kind", "Id", "Value", "Status"]]
       Kind Id   Value Status
    0  case  1  SUMMER  valid
    1  case  2  Summer  valid
    """
    frame = read_frame(codes, *dict.fromkeys((*_SHOWN, "CreatedUtc", *columns_needed(tz))))
    tests = _tests()
    frame = frame.select(
        *_SHOWN,
        "CreatedUtc",
        rank(as_of=as_of, tz=tz).alias("_rank"),
        nw.col("Value").fill_null("").alias("_value"),
    )
    frame = frame.filter(nw.col("_rank") > 0)
    frame = frame.with_columns(nw.col("_value").str.to_lowercase().alias("_letters"))
    frame = _count(_count(frame, "_value", "_same"), "_letters", "_alike")
    parts: list[Any] = [_found(frame, number, kind, tests[kind]) for number, kind in enumerate(ANOMALIES)]
    found = nw.concat(parts).sort("_number", "VoucherId", "_value", "Id")
    return unwrap(found.select("Kind", "Message", *_SHOWN, label(nw.col("_rank")).alias("Status")))


def _count(frame: Any, column: str, name: str) -> Any:
    """Add how many codes of the voucher share a value."""
    counts = frame.group_by("VoucherId", column).agg(nw.len().alias(name))
    return frame.join(counts, on=["VoucherId", column])


def _found(frame: Any, number: int, kind: str, test: nw.Expr) -> Frame:
    marks = {"_number": nw.lit(number), "Kind": nw.lit(kind), "Message": nw.lit(ANOMALIES[kind])}
    return frame.filter(test).with_columns(**marks)  # type: ignore[no-any-return]


def _tests() -> dict[str, nw.Expr]:
    value = nw.col("_value")
    empty = value == ""
    return {
        "duplicate": ~empty & (nw.col("_same") > 1),
        "case": nw.col("_alike") > nw.col("_same"),
        "inverted": nw.col("ValidityEndUtc") < nw.col("ValidityStartUtc"),
        "over": nw.col("ValidityEndUtc") < nw.col("CreatedUtc") - LONGEST_DAY,
        "empty": empty,
        "blank": value.str.contains(_BLANK),
        "long": value.str.len_chars() > MAX_VALUE_LENGTH,
        "invisible": value.str.contains(_INVISIBLE),
        "mixed": value.str.contains(_LATIN) & value.str.contains(_LOOKS_LATIN),
    }
