"""Codes that look wrong: each kind found, nothing else, alike on every engine."""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from vouchertools.anomalies import ANOMALIES, find_anomalies
from vouchertools.errors import InputError

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"
NOON = pd.Timestamp("2024-05-10T12:00:00Z")


def frame(*values: str | None, **columns: Any) -> pd.DataFrame:
    """Active codes without windows, unless told otherwise."""
    never = pd.Series([pd.NaT] * len(values), dtype="datetime64[us, UTC]")
    codes = pd.DataFrame(
        {
            "Id": pd.Series([str(number) for number in range(len(values))], dtype="str"),
            "VoucherId": pd.Series(["v"] * len(values), dtype="str"),
            "Value": pd.Series(values, dtype="str"),
            "ValidityStartUtc": never,
            "ValidityEndUtc": never,
            "CreatedUtc": pd.Series([NOON] * len(values), dtype="datetime64[us, UTC]"),
            "ActivityState": pd.Series(["Active"] * len(values), dtype="str"),
        }
    )
    for name, column in columns.items():
        codes[name] = pd.Series(column, dtype=codes[name].dtype)
    return codes


def found(codes: pd.DataFrame) -> list[tuple[str, str]]:
    """Kind and id of every anomaly."""
    result = find_anomalies(codes, as_of=NOON)
    return list(zip(result["Kind"], result["Id"], strict=True))


def test_a_value_that_exists_twice_in_a_voucher_is_found_with_all_its_codes() -> None:
    assert found(frame("A", "B", "A")) == [("duplicate", "0"), ("duplicate", "2")]
    assert found(frame("A", "A", VoucherId=["v", "w"])) == []
    assert found(frame("A", "A", ActivityState=["Active", "Deleted"])) == []


def test_the_same_letters_in_another_case_are_found() -> None:
    assert found(frame("Summer", "SUMMER", "WINTER")) == [("case", "1"), ("case", "0")]
    assert found(frame("Summer", "SUMMER", VoucherId=["v", "w"])) == []
    kinds = [kind for kind, _ in found(frame("a", "a", "A"))]
    assert kinds == ["duplicate", "duplicate", "case", "case", "case"]


def test_windows_that_nobody_can_use_are_found() -> None:
    day = pd.Timedelta("1D")
    assert found(frame("A", "B", ValidityStartUtc=[NOON, NOON], ValidityEndUtc=[NOON, NOON + day])) == []
    assert found(frame("A", ValidityStartUtc=[NOON + day], ValidityEndUtc=[NOON])) == [("inverted", "0")]
    assert found(frame("A", ValidityEndUtc=[NOON - 3 * day])) == [("over", "0")]
    longest_day = pd.Timedelta("25h")
    assert found(frame("A", ValidityEndUtc=[NOON - longest_day])) == []
    assert found(frame("A", ValidityEndUtc=[NOON - longest_day - pd.Timedelta("1us")])) == [("over", "0")]


def test_missing_and_empty_values_are_found_and_are_no_duplicates() -> None:
    assert found(frame(None, "", None)) == [("empty", "0"), ("empty", "1"), ("empty", "2")]


@pytest.mark.parametrize("value", [" A", "A ", "A B", "\tA", "A\n", "A\u00a0", "\u3000A", "\u2003A"])
def test_blanks_anywhere_are_found(value: str) -> None:
    assert found(frame(value)) == [("blank", "0")]


@pytest.mark.parametrize(
    "value", ["A\u200b", "\ufeffA", "A\u00ad", "A\x07", "A\x00B", "\u202eA", "CAFE\u0301"]
)
def test_characters_that_cannot_be_seen_or_typed_are_found(value: str) -> None:
    assert found(frame(value)) == [("invisible", "0")]


@pytest.mark.parametrize("value", ["SUMMER-\u0410", "\u0392ETA-A"])
def test_letters_that_look_alike_are_found_where_alphabets_mix(value: str) -> None:
    assert found(frame(value)) == [("mixed", "0")]


def test_values_beyond_what_can_be_added_are_found() -> None:
    assert found(frame("\u017d" * 128)) == []
    assert found(frame("\u017d" * 129)) == [("long", "0")]


@pytest.mark.parametrize(
    "value",
    ["SUMMER-2017", "\u0421\u041a\u0418-2017", "P\u0158\u00cdLI\u0160", "\u30af-1", "\U0001f381", "=1+1"],
)
def test_values_of_any_one_alphabet_are_fine(value: str) -> None:
    assert found(frame(value)) == []


def test_each_row_says_what_is_wrong_and_whether_the_code_is_still_usable() -> None:
    [row] = find_anomalies(frame("A B", ValidityEndUtc=[NOON]), as_of=NOON).to_dict("records")
    assert row["Message"] == ANOMALIES["blank"]
    assert (row["VoucherId"], row["Value"], row["Status"]) == ("v", "A B", "valid")
    assert (row["ValidityEndUtc"], row["ValidityStartUtc"]) == (NOON, pd.NaT)


@pytest.mark.parametrize("engine", ["polars", "polars lazily", "pyarrow", "duckdb"])
def test_every_engine_finds_the_same(engine: str) -> None:
    codes = pd.read_parquet(SAMPLE)
    expected = find_anomalies(codes, as_of="2017-11-10T12:00Z", tz="Europe/Prague")
    assert expected["Kind"].value_counts().to_dict() == {
        "duplicate": 4,
        "case": 3,
        "over": 3,
        "blank": 3,
        "inverted": 2,
        "empty": 1,
        "invisible": 1,
    }
    more = frame("a\u200b", "a b", "a\u0410", "x" * 129, "\x01", "\u00a0")
    codes = pd.concat([codes, more], ignore_index=True)
    expected = find_anomalies(codes, as_of="2017-11-10T12:00Z", tz="Europe/Prague")
    table = pa.Table.from_pandas(codes, preserve_index=False)
    converted: Any = {
        "polars": lambda: pl.from_arrow(table),
        "polars lazily": lambda: pl.from_arrow(table).lazy(),
        "pyarrow": lambda: table,
        "duckdb": lambda: duckdb.from_arrow(table),
    }[engine]()
    result = find_anomalies(converted, as_of="2017-11-10T12:00Z", tz="Europe/Prague")
    if engine == "polars lazily":
        result = result.collect()
    if engine == "duckdb":
        result = result.to_arrow_table()
    rows = result.to_pandas()
    for name in ("ValidityStartUtc", "ValidityEndUtc"):
        rows[name] = rows[name].dt.tz_convert("UTC")
    pd.testing.assert_frame_equal(rows, expected)


def test_nothing_wrong_gives_the_columns_and_dtypes_of_something_wrong() -> None:
    wrong = find_anomalies(frame(" A"), as_of=NOON)
    assert find_anomalies(frame("A"), as_of=NOON).dtypes.to_dict() == wrong.dtypes.to_dict()
    assert find_anomalies(frame(), as_of=NOON).dtypes.to_dict() == wrong.dtypes.to_dict()


def test_missing_columns_are_all_named_at_once() -> None:
    with pytest.raises(InputError, match="codes lacks Value, CreatedUtc"):
        find_anomalies(frame("A").drop(columns=["Value", "CreatedUtc"]), as_of=NOON)
