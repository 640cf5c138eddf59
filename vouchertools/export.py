"""Codes as a file to hand on: Parquet, CSV or Excel, by the suffix of the path.

The file appears whole or not at all, and only its owner may read it: a value is money. What each format
keeps:

Parquet
    Everything. The file's metadata has a key ``vouchertools``: JSON with ``environment``, ``read_utc`` (when
    the codes were read, on the server's clock), ``count`` and ``masked``.
CSV
    UTF-8 with a byte order mark, without which spreadsheets misread it. All is quoted but what is missing.
    Times are ISO 8601 in UTC with a ``Z``. Nothing in this format can mark text as text, so what a
    spreadsheet would run as a formula is disarmed: text that begins with ``=``, ``+``, ``-``, ``@``, their
    full-width forms, a tab or a line break gets an apostrophe in front, and so does text that begins with an
    apostrophe already. To have the original back, drop the first apostrophe of every text that begins with
    one.
Excel
    Text stays text: string cells are stored as strings and formatted as text, so nothing is computed or
    rounded, even when a cell is edited. Excel's own date-times know no time zone, so times are the same text
    as in CSV. A second sheet, ``About``, says when, from where and how many.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from vouchertools.contract import format_utc
from vouchertools.errors import InputError
from vouchertools.files import replace_file
from vouchertools.frames import collect_pandas

#: Most rows in one Excel sheet, its header among them (Excel's specifications and limits).
MAX_EXCEL_ROWS: Final = 1_048_576
#: The most characters of a masked value that stay in sight; never more than a quarter of them.
MASK_KEEPS: Final = 4

# OWASP, "CSV Injection": what a spreadsheet takes for the beginning of a formula.
_FORMULA = re.compile("['=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# What XML cannot carry, and text that Excel would read as such an escape (ECMA-376 part 1, ST_Xstring).
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def export(codes: Any, path: str | os.PathLike[str], *, mask: bool = False) -> Path:
    """Write codes to a file in one go; an existing file is replaced.

    Parameters
    ----------
    codes
        Any frame of codes that Narwhals takes; further columns are kept. ``attrs["environment"]`` and
        ``attrs["read_utc"]`` of a pandas frame go into the file.
    path
        Ends in ``.parquet``, ``.csv`` or ``.xlsx``. Missing folders are made.
    mask
        Hide every value but its last characters: at most four, at most a quarter.

    Returns
    -------
    Path
        The file, readable by its owner alone.

    Raises
    ------
    InputError
        Another suffix, no ``Value`` to mask, too many rows for Excel, or the file cannot be written.

    Examples
    --------
    >>> export(codes, "data/exports/today.xlsx", mask=True)  # doctest: +SKIP
    PosixPath('data/exports/today.xlsx')
    """
    path = Path(path)
    require_suffix(path, FORMATS)
    write = _WRITERS[path.suffix.lower()]
    frame, about = _prepare(codes, mask=mask)
    if write is _write_excel and len(frame) >= MAX_EXCEL_ROWS:
        raise InputError(f"{len(frame):,} codes do not fit into one Excel sheet. Export to .parquet or .csv.")
    try:
        replace_file(path, lambda file: write(frame, about, file))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}. Choose a folder that you may write to."
        ) from error
    return path


def require_suffix(path: Path, known: Iterable[str]) -> None:
    """Refuse a path that ends in no known format.

    Raises
    ------
    InputError
        It ends in none of them.
    """
    if path.suffix.lower() not in known:
        raise InputError(f"{path.name!r} ends in none of {', '.join(known)}. The suffix chooses the format.")


def mask_value(value: str) -> str:
    """Hide all of a value but its last characters: at most four, at most a quarter.

    Examples
    --------
    >>> mask_value("SUMMER-2017-QX7B"), mask_value("SUN-17"), mask_value("SUN")
    ('****QX7B', '****7', '****')
    """
    kept = min(MASK_KEEPS, len(value) // 4)
    return "****" + value[len(value) - kept :]


def _prepare(codes: Any, *, mask: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows as a pandas frame without attrs, and what the file says about itself."""
    attrs = dict(getattr(codes, "attrs", {}))
    frame = collect_pandas(codes).reset_index(drop=True)
    frame.attrs = {}  # of no use in the file, where pyarrow would put them beside what `about` says
    if mask:
        if "Value" not in frame:
            raise InputError(
                f"mask=True hides the column Value; codes has {', '.join(map(str, frame.columns))}."
            )
        frame["Value"] = frame["Value"].map(mask_value, na_action="ignore")
    read_utc = attrs.get("read_utc")
    about = {
        "environment": attrs.get("environment"),
        "read_utc": None if read_utc is None else format_utc(read_utc),
        "count": len(frame),
        "masked": mask,
    }
    return frame, about


def _write_parquet(frame: pd.DataFrame, about: dict[str, Any], file: IO[bytes]) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), b"vouchertools": json.dumps(about).encode()}
    pa.parquet.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")


def _write_csv(frame: pd.DataFrame, about: dict[str, Any], file: IO[bytes]) -> None:
    columns = {_disarm(str(name)): _csv_text(frame[name]) for name in frame.columns}
    file.write("\ufeff".encode())
    options = pa.csv.WriteOptions(quoting_style="all_valid")
    pa.csv.write_csv(pa.table(columns), file, options)


def _csv_text(column: "pd.Series[Any]") -> pa.Array:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        texts = column.map(format_utc, na_action="ignore")
    elif pd.api.types.is_numeric_dtype(column.dtype):
        texts = column.map(str, na_action="ignore")
    else:
        texts = column.map(lambda value: _disarm(str(value)), na_action="ignore")
    return pa.array(texts.astype(object).where(column.notna(), None), pa.string())


def _disarm(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _write_excel(frame: pd.DataFrame, about: dict[str, Any], file: IO[bytes]) -> None:
    from openpyxl import Workbook
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    book = Workbook(write_only=True)
    codes = book.create_sheet("Codes")
    codes.freeze_panes = "A2"
    codes.auto_filter.ref = f"A1:{get_column_letter(max(1, frame.shape[1]))}{len(frame) + 1}"
    for number, name in enumerate(frame.columns, start=1):
        codes.column_dimensions[get_column_letter(number)].width = 38 if str(name).endswith("Id") else 22
    bold = Font(bold=True)
    codes.append([_excel_cell(codes, name, font=bold) for name in frame.columns])
    for row in _excel_rows(frame):
        codes.append([_excel_cell(codes, value) for value in row])
    sheet = book.create_sheet("About")
    sheet.column_dimensions["A"].width = sheet.column_dimensions["B"].width = 30
    for key, value in about.items():
        sheet.append([_excel_cell(sheet, key, font=bold), _excel_cell(sheet, value)])
    book.save(file)


def _excel_rows(frame: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    columns = []
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.map(format_utc, na_action="ignore")
        columns.append(column.astype(object).where(column.notna(), None))
    return zip(*columns, strict=True)


def _excel_cell(sheet: Any, value: Any, **style: Any) -> Any:
    from openpyxl.cell import WriteOnlyCell

    if isinstance(value, datetime):
        cell = WriteOnlyCell(sheet, value)
        cell.number_format = "yyyy-mm-dd hh:mm:ss"
    elif value is None or isinstance(value, (bool, int, float)):
        cell = WriteOnlyCell(sheet, value)
    else:
        cell = WriteOnlyCell(sheet, _NOT_IN_XML.sub(lambda found: f"_x{ord(found[0]):04X}_", str(value)))
        cell.data_type = "s"
        cell.number_format = "@"
    for attribute, setting in style.items():
        setattr(cell, attribute, setting)
    return cell


_Writer = Callable[[pd.DataFrame, dict[str, Any], IO[bytes]], None]
_WRITERS: Final[dict[str, _Writer]] = {".parquet": _write_parquet, ".csv": _write_csv, ".xlsx": _write_excel}
#: What `export` can write.
FORMATS: Final = tuple(_WRITERS)
