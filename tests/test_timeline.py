"""Usable codes over time: against asking every code about every period, and alike on every engine."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouchertools.errors import InputError
from vouchertools.timeline import timeline

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"
ENGINES = ["polars", "polars lazily", "pyarrow", "duckdb"]


def frame(*rows: tuple[Any, Any, str, str]) -> pd.DataFrame:
    starts, ends, states, vouchers = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pd.DataFrame(
        {
            "VoucherId": pd.Series(vouchers, dtype="str"),
            "ActivityState": pd.Series(states, dtype="str"),
            "ValidityStartUtc": pd.to_datetime(list(starts), utc=True).astype("datetime64[us, UTC]"),
            "ValidityEndUtc": pd.to_datetime(list(ends), utc=True).astype("datetime64[us, UTC]"),
        }
    )


def windows(*pairs: tuple[Any, Any]) -> pd.DataFrame:
    return frame(*((start, end, "Active", "v") for start, end in pairs))


def convert(codes: pd.DataFrame, engine: str) -> Any:
    table = pa.Table.from_pandas(codes, preserve_index=False)
    return {
        "polars": lambda: pl.from_arrow(table),
        "polars lazily": lambda: pl.from_arrow(table).lazy(),
        "pyarrow": lambda: table,
        "duckdb": lambda: duckdb.from_arrow(table),
    }[engine]()


def fetch(result: Any) -> pd.DataFrame:
    if isinstance(result, pl.LazyFrame):
        result = result.collect()
    rows = result.df() if isinstance(result, duckdb.DuckDBPyRelation) else result.to_pandas()
    return rows.astype({"Date": "datetime64[us]"})


def counts(result: pd.DataFrame) -> dict[date, int]:
    return {row.Date.date(): row.Usable for row in result.itertuples()}


# --- the numbers -------------------------------------------------------------------------------------------


def first_day(day: date, freq: str) -> date:
    """First day of the period that a day is in."""
    return {"D": day, "W": day - timedelta(days=day.weekday()), "M": day.replace(day=1)}[freq]


def ask_everyone(codes: pd.DataFrame, freq: str, zones: dict[str, str]) -> dict[date, int]:
    """Count by asking each code about each day, through local dates."""
    spans = []
    for row in codes.itertuples():
        clock = ZoneInfo(zones.get(row.VoucherId, "UTC"))
        start, end = (
            None if pd.isna(moment) else moment.to_pydatetime().astimezone(clock).date()
            for moment in (row.ValidityStartUtc, row.ValidityEndUtc)
        )
        if row.ActivityState != "Deleted" and not row.ValidityEndUtc < row.ValidityStartUtc:
            spans.append((start, end))
    known = [day for span in spans for day in span if day]
    if not known:
        return {}
    starts, ends = [a for a, _ in spans if a], [b for _, b in spans if b]
    found: dict[date, set[int]] = {}
    day = min(known)
    while day <= max(known):
        usable = {n for n, (a, b) in enumerate(spans) if (a is None or a <= day) and (b is None or day <= b)}
        found.setdefault(first_day(day, freq), set()).update(usable)
        day += timedelta(days=1)
    expected = {period: len(usable) for period, usable in found.items()}
    if ends and first_day(max(ends), freq) == max(expected):
        following = first_day(max(expected) + timedelta(days={"D": 1, "W": 7, "M": 31}[freq]), freq)
        expected[following] = sum(b is None for _, b in spans)
    assert starts or ends
    return expected


WHEN = st.none() | st.datetimes(datetime(2024, 2, 25), datetime(2024, 4, 20)).map(
    lambda moment: pd.Timestamp(moment).floor("30min").tz_localize("UTC")
)
ROW = st.tuples(WHEN, WHEN, st.sampled_from(["Active", "Active", "Deleted"]), st.sampled_from("abc"))
ZONES = {"a": "Europe/Prague", "b": "America/Santiago"}


@settings(max_examples=80, deadline=None)
@given(st.lists(ROW, max_size=12), st.sampled_from("DWM"))
def test_every_period_counts_the_codes_that_hold_at_any_time_of_it(rows: list[Any], freq: str) -> None:
    codes = frame(*rows)
    assert counts(timeline(codes, freq=freq, tz=ZONES)) == ask_everyone(codes, freq, ZONES)


def test_a_code_of_one_day_counts_on_that_day_alone() -> None:
    midnight = "2023-10-09T22:00:00Z"
    result = timeline(windows((midnight, midnight)), tz="Europe/Prague")
    assert counts(result) == {date(2023, 10, 10): 1, date(2023, 10, 11): 0}


def test_without_a_zone_days_are_those_of_utc() -> None:
    midnight = "2023-10-09T22:00:00Z"
    assert counts(timeline(windows((midnight, midnight)))) == {date(2023, 10, 9): 1, date(2023, 10, 10): 0}


def test_open_windows_count_from_the_first_period_and_to_the_last() -> None:
    codes = windows((None, "2024-05-02T00:00Z"), ("2024-05-03T00:00Z", None), (None, None))
    assert counts(timeline(codes)) == {date(2024, 5, 2): 2, date(2024, 5, 3): 2}
    assert len(timeline(windows((None, None)))) == 0


def test_a_distant_end_costs_days_and_not_codes_times_days() -> None:
    result = timeline(windows(*[("2024-01-01T00:00Z", "2299-12-31T00:00Z")] * 1000), freq="M")
    assert len(result) == 276 * 12 + 1
    assert set(result["Usable"][:-1]) == {1000}


def test_weeks_begin_on_monday() -> None:
    result = timeline(windows(("2024-05-05T00:00Z", "2024-05-06T00:00Z")), freq="W")
    assert counts(result) == {date(2024, 4, 29): 1, date(2024, 5, 6): 1, date(2024, 5, 13): 0}


# --- every engine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("freq", ["D", "W", "M"])
def test_every_engine_counts_alike(engine: str, freq: str) -> None:
    codes = pd.read_parquet(SAMPLE)
    zones = {codes["VoucherId"].iloc[0]: "America/New_York", codes["VoucherId"].iloc[-1]: "Pacific/Auckland"}
    for tz in (None, "Europe/Prague", zones):
        for part in (codes, codes.head(0), codes[codes["ValidityStartUtc"].isna()]):
            expected = timeline(part, freq=freq, tz=tz)
            pd.testing.assert_frame_equal(fetch(timeline(convert(part, engine), freq=freq, tz=tz)), expected)


def test_the_result_is_of_the_same_library_with_dates() -> None:
    codes = windows(("2024-05-05T00:00Z", "2024-05-06T00:00Z"))
    assert timeline(convert(codes, "polars")).schema == {"Date": pl.Date, "Usable": pl.Int64}
    assert timeline(convert(codes, "polars lazily")).collect_schema() == {"Date": pl.Date, "Usable": pl.Int64}
    assert timeline(convert(codes, "pyarrow")).schema.types == [pa.date32(), pa.int64()]
    assert [str(kind) for kind in timeline(convert(codes, "duckdb")).types] == ["DATE", "BIGINT"]


def test_a_lazy_frame_is_computed_only_when_asked() -> None:
    connection = duckdb.connect()
    table = pa.Table.from_pandas(windows(("2024-05-05T00:00Z", None)))
    connection.from_arrow(table).create("codes")
    result = timeline(connection.table("codes"))
    connection.from_arrow(table).insert_into("codes")
    assert result.fetchall() == [(date(2024, 5, 5), 2)]


def test_no_codes_have_the_columns_and_dtypes_of_many() -> None:
    many = timeline(windows(("2024-05-05T00:00Z", None)))
    none = timeline(windows())
    assert none.dtypes.to_dict() == many.dtypes.to_dict()
    assert many.dtypes.astype(str).to_dict() == {"Date": "datetime64[us]", "Usable": "int64"}


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freq", ["Y", "d", "", None, "2D"])
def test_another_period_is_refused_with_the_choice(freq: Any) -> None:
    with pytest.raises(InputError, match="give 'D' for days, 'W' for weeks or 'M' for months"):
        timeline(windows(), freq=freq)


def test_missing_columns_and_unknown_zones_are_named() -> None:
    with pytest.raises(InputError, match="codes lacks ValidityEndUtc"):
        timeline(windows().drop(columns="ValidityEndUtc"))
    with pytest.raises(InputError, match="'Mars/Olympus' is not a known time zone"):
        timeline(windows(), tz="Mars/Olympus")
