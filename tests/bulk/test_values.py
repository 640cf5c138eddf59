"""New values from a pattern, and rows to add from files: nothing twice, no text made a number."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from vouchertools.bulk.values import CHARACTERS, DIGITS, generate_values, read_rows
from vouchertools.errors import InputError

VOUCHER = "9b5a4c6e-0000-4000-8000-000000000001"
OTHER = "9b5a4c6e-0000-4000-8000-000000000002"


# ---- generate_values ----


def test_values_are_as_many_as_asked_for_different_and_of_the_pattern() -> None:
    values = generate_values(5_000, "SUN-????-##")
    assert len(set(values)) == 5_000
    for value in values:
        assert value.startswith("SUN-")
        assert set(value[4:8]) <= set(CHARACTERS)
        assert set(value[9:]) <= set(DIGITS)


def test_no_two_characters_of_a_value_look_alike() -> None:
    for pair in ("0O", "1I", "1L", "IL", "2Z", "5S", "6G", "8B", "UV", "0Q"):
        assert len(set(pair) & set(CHARACTERS)) < 2
    assert CHARACTERS.upper() == CHARACTERS


def test_no_value_is_made_that_exists_in_any_letter_case() -> None:
    taken = [f"a{c}".lower() for c in CHARACTERS[:-1]]
    assert generate_values(1, "A?", avoid=taken) == [f"A{CHARACTERS[-1]}"]
    frame = pd.DataFrame({"Value": [*taken, None]})
    assert generate_values(1, "A?", avoid=frame) == [f"A{CHARACTERS[-1]}"]


@given(st.integers(0, 46), st.sets(st.integers(0, 22), max_size=23))
def test_a_pattern_is_used_up_to_its_capacity_and_refused_beyond(n: int, numbers: set[int]) -> None:
    avoid = [f"x{CHARACTERS[number]}".lower() for number in numbers]
    left = len(CHARACTERS) - len(numbers)
    if n <= left:
        values = generate_values(n, "X?", avoid=avoid)
        assert len({value.casefold() for value in values} - set(avoid)) == n
    else:
        with pytest.raises(InputError, match=f"at least {n + len(numbers)}"):
            generate_values(n, "X?", avoid=avoid)


def test_a_pattern_that_is_too_small_is_refused_with_one_that_is_large_enough() -> None:
    with pytest.raises(InputError, match=r"makes 23 different .* at least 1,000.*'A\?\?\?' makes 12,167"):
        generate_values(1_000, "A?")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": -1}, "no number"),
        ({"n": True}, "no number"),
        ({"n": 1, "pattern": "  "}, "blank"),
        ({"n": 1, "pattern": "A? "}, "blank"),
        ({"n": 1, "pattern": "?" * 129}, "129 characters"),
        ({"n": 1, "avoid": "ABC"}, "list"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        generate_values(**arguments)


# ---- read_rows ----


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    """The same rows as CSV, Excel or Parquet, whatever the suffix says."""
    if path.suffix == ".csv":
        lines = [",".join(columns)]
        lines += [
            ",".join("" if c is None else str(c) for c in row) for row in zip(*columns.values(), strict=True)
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".xlsx":
        book = Workbook()
        sheet = book.active
        sheet.append(list(columns))
        for row in zip(*columns.values(), strict=True):
            sheet.append(list(row))
            for cell in sheet[sheet.max_row]:
                cell.data_type = "s" if isinstance(cell.value, str) else cell.data_type
        book.save(path)
    else:
        pd.DataFrame(columns).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_values_stay_text_and_times_become_utc(tmp_path: Path, suffix: str) -> None:
    values = ["007", "1e5", "NA", "null", "TRUE", "12345678901234567890", "ÄÖ-1", "=1+1"]
    path = write(
        tmp_path / f"rows{suffix}",
        {
            "VoucherId": [VOUCHER] * len(values),
            "Value": values,
            "ValidityStartUtc": ["2024-05-01T00:00:00+02:00"] * len(values),
            "ValidityEndUtc": [None] * len(values),
            "Note": ["ignored"] * len(values),
        },
    )
    rows = read_rows(path)
    assert rows.columns.tolist() == ["VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc"]
    assert rows["Value"].tolist() == values
    assert set(rows["ValidityStartUtc"]) == {pd.Timestamp("2024-04-30T22:00:00Z")}
    assert rows["ValidityEndUtc"].isna().all()
    assert rows.dtypes.astype(str).tolist() == ["str", "str", "datetime64[us, UTC]", "datetime64[us, UTC]"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_of_a_spreadsheet_is_read_with_its_separator_and_mark(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"Value{separator}VoucherId\n007{separator}{VOUCHER}\n", encoding="utf-8-sig")
    assert read_rows(path)["Value"].tolist() == ["007"]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
@pytest.mark.parametrize(
    ("column", "cells", "words"),
    [
        ("Value", ["A", "B" * 129], "row 3 has a Value of more than 128"),
        ("Value", ["A", "   "], "row 3 has no Value"),
        ("Value", ["A", None], "row 3 has no Value"),
        ("Value", ["A", " B"], "row 3 has blanks"),
        ("Value", ["A", "A"], "row 3 repeats"),
        ("VoucherId", [VOUCHER, "summer"], "no UUID"),
        ("ValidityEndUtc", ["2024-05-01T00:00:00Z", "2024-05-01 00:00"], "row 3.*no time zone"),
        ("ValidityEndUtc", ["2024-05-01T00:00:00Z", "soon"], "row 3.*no point in time"),
    ],
)
def test_a_bad_row_is_refused_by_its_number(
    tmp_path: Path, suffix: str, column: str, cells: list[Any], words: str
) -> None:
    columns = {"VoucherId": [VOUCHER, VOUCHER], "Value": ["A", "B"]} | {column: cells}
    words = words.replace("row 3", "row 1") if suffix == ".parquet" else words
    with pytest.raises(InputError, match=words):
        read_rows(write(tmp_path / f"rows{suffix}", columns))


def test_a_number_in_a_sheet_is_refused_because_its_zeros_are_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.xlsx", {"VoucherId": [VOUCHER, VOUCHER], "Value": ["A", 7]})
    with pytest.raises(InputError, match="row 3 has a Value that is no text"):
        read_rows(path)


def test_the_same_value_may_go_to_two_vouchers(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", {"VoucherId": [VOUCHER, OTHER], "Value": ["A", "A"]})
    assert len(read_rows(path)) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.txt", b"", "neither"),
        ("rows.csv", b"", "cannot be read"),
        ("rows.csv", b"VoucherId,Value\n", "no rows"),
        ("rows.csv", b"Voucher,Value\nA,B\n", "lacks the column VoucherId"),
        ("rows.csv", b"VoucherId,Value\n\xff\xfe,1\n", "cannot be read"),
        ("rows.xlsx", b"not a workbook", "cannot be read"),
        ("rows.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_file_without_rows_to_add_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_rows(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")
