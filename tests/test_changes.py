"""What changed between two pulls: each change once, alike on every engine."""

from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from vouchertools.changes import CHANGES, compare
from vouchertools.errors import InputError

NOON = pd.Timestamp("2024-05-10T12:00:00Z")
DAY = pd.Timedelta("1D")


def frame(*rows: tuple[str, str | None, Any, Any, str]) -> pd.DataFrame:
    """Codes of one voucher: id, value, start, end, state."""
    ids, values, starts, ends, states = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return pd.DataFrame(
        {
            "Id": pd.Series(ids, dtype="str"),
            "VoucherId": pd.Series(["v"] * len(rows), dtype="str"),
            "Value": pd.Series(values, dtype="str"),
            "ValidityStartUtc": pd.to_datetime(list(starts), utc=True).astype("datetime64[us, UTC]"),
            "ValidityEndUtc": pd.to_datetime(list(ends), utc=True).astype("datetime64[us, UTC]"),
            "ActivityState": pd.Series(states, dtype="str"),
        }
    )


BEFORE = frame(
    ("same", "S", NOON, None, "Active"),
    ("null", None, None, None, "Active"),
    ("gone", "G", NOON, None, "Active"),
    ("back", "B", NOON, None, "Deleted"),
    ("lost", "L", NOON, NOON, "Active"),
    ("moved", "M", NOON, None, "Active"),
    ("named", "N", NOON, None, "Active"),
    ("both", "B", None, NOON, "Active"),
)
AFTER = frame(
    ("same", "S", NOON, None, "Active"),
    ("null", None, None, None, "Active"),
    ("gone", "G", NOON, None, "Deleted"),
    ("back", "B", NOON, None, "Active"),
    ("moved", "M", NOON + DAY, None, "Active"),
    ("named", None, NOON, None, "Active"),
    ("both", "B", None, None, "Deleted"),
    ("new", "N", None, NOON, "Active"),
    ("short", "S", None, None, "Deleted"),
)
EXPECTED = [
    ("added", "new"),
    ("added", "short"),
    ("deleted", "both"),
    ("deleted", "gone"),
    ("deleted", "short"),
    ("restored", "back"),
    ("missing", "lost"),
    ("window moved", "both"),
    ("window moved", "moved"),
    ("value changed", "named"),
]


def found(before: pd.DataFrame, after: pd.DataFrame) -> list[tuple[str, str]]:
    result = compare(before, after)
    return list(zip(result["Change"], result["Id"], strict=True))


def test_every_change_is_listed_once_and_what_stayed_is_not() -> None:
    assert found(BEFORE, AFTER) == EXPECTED
    assert {change for change, _ in EXPECTED} == set(CHANGES)
    assert found(BEFORE, BEFORE) == found(AFTER, AFTER.sample(frac=1, random_state=1)) == []


def test_each_row_says_how_it_is_and_how_it_was() -> None:
    rows = compare(BEFORE, AFTER).set_index(["Change", "Id"])
    moved = rows.loc[("window moved", "moved")]
    assert (moved["ValidityStartUtc"], moved["StartBeforeUtc"]) == (NOON + DAY, NOON)
    opened = rows.loc[("window moved", "both")]
    assert (opened["ValidityEndUtc"], opened["EndBeforeUtc"]) == (pd.NaT, NOON)
    named = rows.loc[("value changed", "named")]
    assert pd.isna(named["Value"])
    assert named["ValueBefore"] == "N"
    lost = rows.loc[("missing", "lost")]
    assert (lost["VoucherId"], lost["Value"], lost["ValidityEndUtc"]) == ("v", "L", NOON)
    new = rows.loc[("added", "new")]
    assert pd.isna(new["ValueBefore"])
    assert (new["Value"], new["ValidityEndUtc"], new["EndBeforeUtc"]) == ("N", NOON, pd.NaT)


def test_the_first_pull_is_all_added_and_an_empty_one_all_missing() -> None:
    assert [change for change, _ in found(frame(), BEFORE)] == ["added"] * 8 + ["deleted"]
    assert {change for change, _ in found(BEFORE, frame())} == {"missing"}
    dtypes = compare(BEFORE, AFTER).dtypes.to_dict()
    for before, after in ((frame(), frame()), (frame(), BEFORE), (BEFORE, BEFORE)):
        assert compare(before, after).dtypes.to_dict() == dtypes


@pytest.mark.parametrize("engine", ["polars", "polars lazily", "pyarrow", "duckdb"])
def test_every_engine_finds_the_same(engine: str) -> None:
    kinds: dict[str, Any] = {
        "polars": pl.from_arrow,
        "polars lazily": lambda table: pl.from_arrow(table).lazy(),
        "pyarrow": lambda table: table,
        "duckdb": duckdb.from_arrow,
    }
    tables = [pa.Table.from_pandas(codes, preserve_index=False) for codes in (BEFORE, AFTER)]
    result = compare(*(kinds[engine](table) for table in tables))
    if engine == "polars lazily":
        result = result.collect()
    if engine == "duckdb":
        result = result.to_arrow_table()
    rows = result.to_pandas()
    for name in rows.columns[rows.columns.str.endswith("Utc")]:
        rows[name] = rows[name].dt.tz_convert("UTC")
    pd.testing.assert_frame_equal(rows, compare(BEFORE, AFTER))


def test_frames_of_two_libraries_are_refused() -> None:
    with pytest.raises(InputError, match="before is of pandas and after of polars"):
        compare(BEFORE, pl.from_arrow(pa.Table.from_pandas(AFTER)))


def test_missing_columns_are_named_with_the_pull_that_lacks_them() -> None:
    with pytest.raises(InputError, match="after lacks Value, ActivityState"):
        compare(BEFORE, AFTER.drop(columns=["ActivityState", "Value"]))
