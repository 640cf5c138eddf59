"""Values of codes to be: made from a pattern, or read from a file. What a row to add must look like.

A *row to add* has ``VoucherId`` and ``Value``, and where wanted ``ValidityStartUtc`` and ``ValidityEndUtc``.
A value is text and money: it comes from a cryptographic source, exists once, and never turns into a number on
its way.

In a *pattern*, ``?`` stands for a letter or digit of `CHARACTERS`, ``#`` for one of `DIGITS`, all else for
itself.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import pandas as pd

from vouchertools.contract import MAX_VALUE_LENGTH, require_columns, require_ids, to_utc
from vouchertools.errors import InputError

#: What ``?`` stands for: no pair that looks alike in print or by hand (0 O, 1 I L, 2 Z, 5 S, 6 G, 8 B, U V).
CHARACTERS: Final = "ACDEFGHJKMNPQRTVWXY3479"
#: What ``#`` stands for.
DIGITS: Final = "23456789"

WINDOW: Final = ("ValidityStartUtc", "ValidityEndUtc")
_SETS: Final = {"?": CHARACTERS, "#": DIGITS}


def generate_values(n: int, pattern: str = "????-????", *, avoid: Any = ()) -> list[str]:
    """Make new values, all different, unpredictable, none of them taken.

    Parameters
    ----------
    n
        How many.
    pattern
        ``?`` becomes a letter or digit that looks like no other, ``#`` a digit from 2 to 9, the rest stays.
        The more values a pattern can make for each one made, the harder one is to guess: eight ``?`` make
        78 thousand million.
    avoid
        Values that exist, in whatever letter case: text, or a frame with a column ``Value``.

    Raises
    ------
    InputError
        The pattern cannot make that many: the message says how many it must make, and how.

    Examples
    --------
    >>> values = generate_values(3, "SPRING-????")
    >>> len(set(values)), {len(value) for value in values}, values[0][:7]
    (3, {11}, 'SPRING-')
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise InputError(f"n={n!r} is no number of values. Give a whole number, 0 or more.")
    if not isinstance(pattern, str) or not pattern.strip() or pattern != pattern.strip():
        raise InputError(f"pattern={pattern!r} is blank, or begins or ends with a blank.")
    if len(pattern) > MAX_VALUE_LENGTH:
        raise InputError(f"pattern has {len(pattern)} characters; a value has at most {MAX_VALUE_LENGTH}.")
    parts = [f"[{_SETS[c]}]" if c in _SETS else re.escape(c) for c in pattern]
    form = re.compile("".join(parts), re.IGNORECASE)
    taken = {value.casefold() for value in _texts(avoid) if form.fullmatch(value)}
    capacity = _capacity(pattern)
    if capacity < n + len(taken):
        longer = pattern
        while _capacity(longer) < n + len(taken):
            longer += "?"
        raise InputError(
            f"The pattern {pattern!r} makes {capacity:,} different values, and {len(taken):,} of them exist; "
            f"for {n:,} more it must make at least {n + len(taken):,}. "
            f"{longer!r} makes {_capacity(longer):,}."
        )
    if 2 * (n + len(taken)) > capacity:
        free = [value for value in _all_values(pattern) if value.casefold() not in taken]
        return secrets.SystemRandom().sample(free, n)
    made: dict[str, None] = {}
    while len(made) < n:
        value = "".join(secrets.choice(_SETS[c]) if c in _SETS else c for c in pattern)
        if value.casefold() not in taken:
            made[value] = None
    return list(made)


def read_rows(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read rows to add from CSV, Excel or Parquet; values stay text, so ``007`` stays ``007``.

    Parameters
    ----------
    path
        Ends in ``.csv``, ``.xlsx`` or ``.parquet``. The first line names the columns: ``VoucherId``,
        ``Value`` and, where wanted, ``ValidityStartUtc`` and ``ValidityEndUtc``, like
        ``2024-05-01T00:00:00Z``; others are ignored. CSV may be separated by comma, semicolon or tab.

    Returns
    -------
    DataFrame
        ``VoucherId``, ``Value`` (``str``), ``ValidityStartUtc``, ``ValidityEndUtc``
        (``datetime64[us, UTC]``).

    Raises
    ------
    InputError
        The file cannot be read, has no rows, or one has an id that is no UUID, a value that is blank, has
        blanks around it, is a number, has more than 128 characters or stands twice, or a time without a zone.
        Rows are counted as a spreadsheet shows them.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".csv":
            frame = _read_csv(file)
        elif file.suffix.lower() == ".xlsx":
            frame = pd.read_excel(file, dtype=object, keep_default_na=False, na_values=[""])
        elif file.suffix.lower() == ".parquet":
            frame = pd.read_parquet(file)
        else:
            raise InputError(f"{file.name} is neither .csv nor .xlsx nor .parquet.")
    except InputError:
        raise
    except (OSError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{file.name} cannot be read: {error}") from error
    except Exception as error:  # a broken workbook surfaces as one of many library errors
        raise InputError(f"{file.name} cannot be read: {type(error).__name__}: {error}") from error
    first_row = 0 if file.suffix.lower() == ".parquet" else 2
    rows = normalize_rows(frame, name=file.name, first_row=first_row)
    values = rows["Value"]
    too_long = values.str.len() > MAX_VALUE_LENGTH
    _refuse(too_long, first_row, file.name, f"has a Value of more than {MAX_VALUE_LENGTH} characters")
    _refuse(values != values.str.strip(), first_row, file.name, "has blanks around its Value")
    return rows


def normalize_rows(frame: Any, *, name: str = "rows", first_row: int = 0) -> pd.DataFrame:
    """Rows to add with exactly the four columns and their dtypes, in the given order.

    Parameters
    ----------
    frame
        The rows; ``Value`` must be text, times aware.
    name
        What they are, for the errors.
    first_row
        The number of the first row, for the errors.

    Raises
    ------
    InputError
        There are none, or one cannot be added: no UUID, no text, a naive time, or the same voucher and value
        twice.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{name} must be a DataFrame, not {type(frame).__name__}.")
    require_columns(frame, ["VoucherId", "Value"], name)
    if not len(frame):
        raise InputError(f"{name} has no rows: there is nothing to add.")
    frame = frame.reset_index(drop=True)
    require_ids(list(frame["VoucherId"]), f"{name}: VoucherId")
    is_text = frame["Value"].map(lambda value: isinstance(value, str))
    is_number = ~is_text & frame["Value"].notna()
    what = "has a Value that is no text; format the column as text, or zeros in front are lost"
    _refuse(is_number, first_row, name, what)
    is_blank = frame["Value"].map(lambda value: not isinstance(value, str) or not value.strip())
    _refuse(is_blank, first_row, name, "has no Value")
    rows = pd.DataFrame({column: frame[column].astype("str") for column in ("VoucherId", "Value")})
    for column in WINDOW:
        rows[column] = _read_times(frame, column, name, first_row)
    twice = rows.assign(VoucherId=rows["VoucherId"].str.lower()).duplicated(["VoucherId", "Value"])
    _refuse(twice, first_row, name, "repeats the VoucherId and Value of a row before")
    rows.attrs = dict(frame.attrs)
    return rows


def _read_csv(file: Path) -> pd.DataFrame:
    with file.open(encoding="utf-8-sig") as lines:
        header = lines.readline()
    separator = max(",;\t", key=header.count)
    frame = pd.read_csv(
        file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
    )
    for column in set(WINDOW) & set(frame.columns):
        frame[column] = frame[column].where(frame[column].str.strip() != "", None)
    return frame


def _read_times(frame: pd.DataFrame, column: str, name: str, first_row: int) -> pd.Series:
    if column not in frame.columns:
        return pd.Series(pd.NaT, index=frame.index, dtype="datetime64[us, UTC]")
    times = frame[column]
    if isinstance(times.dtype, pd.DatetimeTZDtype):
        return pd.Series(times.dt.tz_convert("UTC").astype("datetime64[us, UTC]"))
    known = {
        time: to_utc(time, f"{name}, row {first_row + int((times == time).idxmax())}: {column}")
        for time in times.dropna().unique()
    }
    return pd.Series(pd.to_datetime(times.map(known), utc=True).astype("datetime64[us, UTC]"))


def _refuse(bad: pd.Series, first_row: int, name: str, what: str) -> None:
    if bad.any():
        position = int(bad.to_numpy().argmax())
        more = f" ({int(bad.sum()):,} such rows)" if bad.sum() > 1 else ""
        raise InputError(f"{name}: row {first_row + position} {what}{more}.")


def _capacity(pattern: str) -> int:
    capacity = 1
    for character in pattern:
        capacity *= len(_SETS.get(character, " "))
    return capacity


def _all_values(pattern: str) -> Iterator[str]:
    return ("".join(characters) for characters in product(*(_SETS.get(c, c) for c in pattern)))


def _texts(values: Any) -> Iterable[str]:
    if isinstance(values, pd.DataFrame):
        require_columns(values, ["Value"], "avoid")
        values = values["Value"]
    if isinstance(values, str):
        raise InputError("avoid must be a list of values, not one text. Write [value].")
    return (value for value in values if isinstance(value, str))
