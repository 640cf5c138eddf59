"""Frames and figures as text for a terminal: plain, aligned, and the same whether piped or not."""

from pathlib import Path

import pandas as pd


def table(frame: pd.DataFrame) -> str:
    """A frame as aligned text: words to the left, numbers to the right with separators, a zero as a dot.

    Examples
    --------
    >>> import pandas as pd
    >>> print(table(pd.DataFrame({"Voucher": ["Summer", "All"], "valid": [0, 1204], "expired": [17, 17]})))
    Voucher  valid  expired
    Summer       ·       17
    All      1,204       17
    """
    columns = []
    for name in frame.columns:
        number = pd.api.types.is_numeric_dtype(frame[name])
        cells = [str(name), *(_cell(value) for value in frame[name])]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if number else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    Examples
    --------
    >>> count(6633, "code"), count(1, "voucher")
    ('6,633 codes', '1 voucher')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def instant(moment: pd.Timestamp) -> str:
    """An instant in UTC to the minute.

    Examples
    --------
    >>> instant(pd.Timestamp("2017-11-10T13:00:30+01:00"))
    '2017-11-10 12:00 UTC'
    """
    return moment.tz_convert("UTC").strftime("%Y-%m-%d %H:%M UTC")


def short_path(path: Path) -> str:
    """A path as one would type it from here: relative where it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value else "·"
    return str(value)
