"""Counts: right on the sample, alike on every engine, the same columns and dtypes on nothing."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouchertools.errors import InputError
from vouchertools.status import STATUSES, status
from vouchertools.summary import summarize

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"
CLOCK = "2017-11-10T12:00:00Z"
NOON = pd.Timestamp("2023-10-10T10:00:00Z")
COUNTS = [*STATUSES, "Total", "Expiring"]
WINDOWS = ["FirstStartUtc", "LastEndUtc", "MedianDays"]


@pytest.fixture(scope="module")
def codes() -> pd.DataFrame:
    return pd.read_parquet(SAMPLE)


@pytest.fixture(scope="module")
def vouchers() -> pd.DataFrame:
    """The sample's vouchers, as ``Client.vouchers()`` has them."""
    meta = json.loads(pq.read_schema(SAMPLE).metadata[b"vouchertools"])
    enterprises = pd.DataFrame(meta["enterprises"]).set_index("Id")
    frame = pd.DataFrame(meta["vouchers"])[["Id", "Name", "EnterpriseId"]]
    return frame.assign(
        EnterpriseName=frame["EnterpriseId"].map(enterprises["Name"]),
        TimeZone=frame["EnterpriseId"].map(enterprises["TimeZoneIdentifier"]),
    )


def frame(*windows: tuple[Any, Any], state: str = "Active", voucher: str = "v") -> pd.DataFrame:
    starts, ends = zip(*windows, strict=True) if windows else ((), ())
    return pd.DataFrame(
        {
            "VoucherId": pd.Series([voucher] * len(windows), dtype="str"),
            "ActivityState": pd.Series([state] * len(windows), dtype="str"),
            "ValidityStartUtc": pd.to_datetime(list(starts), utc=True).astype("datetime64[us, UTC]"),
            "ValidityEndUtc": pd.to_datetime(list(ends), utc=True).astype("datetime64[us, UTC]"),
        }
    )


def prague(*days: tuple[str, str]) -> pd.DataFrame:
    """Windows of local dates, as Mews writes them."""
    return frame(
        *((pd.Timestamp(a, tz="Europe/Prague"), pd.Timestamp(b, tz="Europe/Prague")) for a, b in days)
    )


def convert(codes: pd.DataFrame, engine: str) -> Any:
    table = pa.Table.from_pandas(codes, preserve_index=False)
    return {
        "polars": lambda: pl.from_arrow(table),
        "polars lazily": lambda: pl.from_arrow(table).lazy(),
        "pyarrow": lambda: table,
        "duckdb": lambda: duckdb.from_arrow(table),
    }[engine]()


def fetch(result: Any) -> pd.DataFrame:
    """Rows of a result of any library, as pandas with times in UTC."""
    if isinstance(result, duckdb.DuckDBPyRelation):
        result = result.to_arrow_table()
    elif isinstance(result, pl.LazyFrame):
        result = result.collect()
    rows = result.to_pandas()
    return rows.assign(**{name: rows[name].dt.tz_convert("UTC") for name in WINDOWS[:2]})


# --- what is counted ---------------------------------------------------------------------------------------


def test_every_code_of_the_sample_is_counted_once_by_its_status(
    codes: pd.DataFrame, vouchers: pd.DataFrame
) -> None:
    counts = summarize(codes, as_of=CLOCK, tz=vouchers, vouchers=vouchers)
    expected = pd.crosstab(codes["VoucherId"], status(codes, as_of=CLOCK, tz=vouchers))[list(STATUSES)]
    pd.testing.assert_frame_equal(
        counts.set_index("VoucherId")[list(STATUSES)], expected, check_names=False, check_dtype=False
    )
    assert (counts["Total"] == codes.groupby("VoucherId").size().to_numpy()).all()
    assert counts["VoucherId"].is_monotonic_increasing
    assert list(counts.columns) == ["VoucherId", "Name", *COUNTS, "DeadShare", *WINDOWS]
    assert counts["Name"].notna().all()


def test_in_all_there_is_one_row(codes: pd.DataFrame) -> None:
    [total] = summarize(codes, as_of=CLOCK, tz="Europe/Prague", by=None).to_dict("records")
    assert total["Total"] == len(codes) == 6645
    assert total["deleted"] == 602
    assert total["LastEndUtc"] == pd.Timestamp("2023-10-09T22:00:00Z")
    assert total["DeadShare"] == (total["deleted"] + total["inverted"] + total["expired"]) / 6645


def test_by_enterprise_goes_through_the_vouchers(codes: pd.DataFrame, vouchers: pd.DataFrame) -> None:
    counts = summarize(codes, as_of=CLOCK, by="EnterpriseId", vouchers=vouchers)
    assert dict(zip(counts["EnterpriseName"], counts["Total"], strict=True)) == {
        "Riverside Hotel Prague": 6633,
        "Harbour Hotel New York": 12,
    }


def test_codes_of_a_voucher_that_is_not_listed_are_not_lost(
    codes: pd.DataFrame, vouchers: pd.DataFrame
) -> None:
    few = vouchers[vouchers["EnterpriseName"] == "Harbour Hotel New York"]
    by_enterprise = summarize(codes, as_of=CLOCK, by="EnterpriseId", vouchers=few)
    assert by_enterprise["Total"].to_list() == [12, 6633]
    assert pd.isna(by_enterprise["EnterpriseId"].iloc[-1])
    by_voucher = summarize(codes, as_of=CLOCK, vouchers=few)
    assert by_voucher["Name"].notna().sum() == 1
    assert summarize(codes, as_of=CLOCK, vouchers=few.head(0))["Name"].isna().all()


def test_by_status_all_five_are_there_even_when_no_code_is() -> None:
    counts = summarize(frame((None, None), (NOON, None)), as_of=NOON, by="Status")
    assert dict(zip(counts["Status"], counts["Total"], strict=True)) == {
        "deleted": 0,
        "inverted": 0,
        "expired": 0,
        "future": 0,
        "valid": 2,
    }
    assert list(counts.columns) == ["Status", "Total", *WINDOWS]


def test_only_valid_codes_that_end_within_the_period_are_expiring() -> None:
    soon, later = NOON + pd.Timedelta("30D"), NOON + pd.Timedelta("30D") + pd.Timedelta("1us")
    codes = pd.concat(
        [
            frame((None, soon), (None, later), (None, None), (soon, soon), (None, NOON - pd.Timedelta("9D"))),
            frame((None, soon), state="Deleted"),
        ]
    )
    assert summarize(codes, as_of=NOON, by=None)["Expiring"].item() == 1
    assert summarize(codes, as_of=NOON, by=None, expiring_within="31D")["Expiring"].item() == 2
    assert summarize(codes, as_of=NOON, by=None, expiring_within=pd.Timedelta(0))["Expiring"].item() == 0


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2023-10-10", "2023-10-10", 1),
        ("2023-10-09", "2023-10-15", 7),
        ("2024-03-30", "2024-04-01", 3),
        ("2024-10-26", "2024-10-28", 3),
        ("2024-01-01", "2024-12-31", 366),
        ("2024-01-01", "2024-06-30", 182),
        ("2023-10-10", "2023-10-10 23:59:59", 1),
        ("2023-10-09 08:00", "2023-10-15 17:00", 7),
    ],
)
def test_a_window_is_as_long_as_the_days_it_begins(first: str, last: str, days: int) -> None:
    assert summarize(prague((first, last)), as_of=NOON, by=None)["MedianDays"].item() == days


def test_the_median_leaves_open_and_inverted_windows_out() -> None:
    closed = prague(("2023-10-01", "2023-10-02"), ("2023-10-01", "2023-10-05"))
    others = frame((None, NOON), (NOON, None), (NOON, NOON - pd.Timedelta("1D")))
    deleted = frame((NOON, NOON - pd.Timedelta("5D")), state="Deleted")
    codes = pd.concat([closed, others, deleted])
    assert summarize(codes, as_of=NOON, by=None)["MedianDays"].item() == 3.5


# --- every engine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["polars", "polars lazily", "pyarrow", "duckdb"])
@pytest.mark.parametrize("by", ["VoucherId", "EnterpriseId", "Status", None])
def test_every_engine_counts_alike(
    engine: str, by: str | None, codes: pd.DataFrame, vouchers: pd.DataFrame
) -> None:
    for part in (codes, codes.head(0)):
        expected = summarize(part, as_of=CLOCK, tz=vouchers, by=by, vouchers=vouchers)
        counts = summarize(convert(part, engine), as_of=CLOCK, tz=vouchers, by=by, vouchers=vouchers)
        pd.testing.assert_frame_equal(fetch(counts), expected)


WINDOW = st.tuples(
    st.none() | st.integers(0, 100),
    st.none() | st.integers(0, 100),
    st.sampled_from(["Active", "Active", "Deleted"]),
    st.sampled_from("abc"),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(WINDOW, max_size=30), st.sampled_from(["polars", "pyarrow", "duckdb"]))
def test_any_codes_are_counted_alike(
    rows: list[tuple[int | None, int | None, str, str]], engine: str
) -> None:
    def when(hours: int | None) -> Any:
        return None if hours is None else NOON + pd.Timedelta(hours=6 * (hours - 50))

    codes = pd.concat(
        [frame(), *(frame((when(a), when(b)), state=state, voucher=v) for a, b, state, v in rows)],
        ignore_index=True,
    )
    expected = summarize(codes, as_of=NOON, tz={"a": "Europe/Prague"})
    assert expected["Total"].sum() == len(rows)
    assert expected[list(STATUSES)].sum(axis=1).equals(expected["Total"])
    counts = summarize(convert(codes, engine), as_of=NOON, tz={"a": "Europe/Prague"})
    pd.testing.assert_frame_equal(fetch(counts), expected)


def test_the_result_is_of_the_same_library(codes: pd.DataFrame) -> None:
    kinds = {"polars": pl.DataFrame, "polars lazily": pl.LazyFrame, "pyarrow": pa.Table}
    for engine, kind in {**kinds, "duckdb": duckdb.DuckDBPyRelation}.items():
        assert isinstance(summarize(convert(codes.head(9), engine), as_of=CLOCK), kind)


def test_a_lazy_frame_is_computed_only_when_asked() -> None:
    connection = duckdb.connect()
    table = pa.Table.from_pandas(frame((None, None)))
    connection.from_arrow(table).create("codes")
    counts = summarize(connection.table("codes"), as_of=NOON, by=None)
    connection.from_arrow(table).insert_into("codes")
    assert counts.project("Total").fetchall() == [(2,)]


@pytest.mark.parametrize("by", ["VoucherId", "EnterpriseId", "Status", None])
def test_no_codes_have_the_columns_and_dtypes_of_many(
    by: str | None, codes: pd.DataFrame, vouchers: pd.DataFrame
) -> None:
    many = summarize(codes, as_of=CLOCK, by=by, vouchers=vouchers)
    none = summarize(codes.head(0), as_of=CLOCK, by=by, vouchers=vouchers)
    assert none.dtypes.to_dict() == many.dtypes.to_dict()
    assert set(many.dtypes[COUNTS if by != "Status" else ["Total"]].astype(str)) == {"int64"}
    assert len(none) == {"VoucherId": 0, "EnterpriseId": 0, "Status": 5, None: 1}[by]


def test_codes_without_any_window_keep_the_dtypes() -> None:
    counts = summarize(frame((None, None)), as_of=NOON, by=None)
    assert str(counts["FirstStartUtc"].dtype) == str(counts["LastEndUtc"].dtype) == "datetime64[us, UTC]"
    assert counts["MedianDays"].isna().item()


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["Voucher", "voucherid", 1, ""])
def test_another_key_is_refused_with_the_choice(by: Any, codes: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="give 'VoucherId', 'EnterpriseId', 'Status' or None"):
        summarize(codes, as_of=CLOCK, by=by)


@pytest.mark.parametrize("period", ["soon", "-1D", None, float("nan")])
def test_a_period_that_is_none_is_refused(period: Any, codes: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="expiring_within"):
        summarize(codes, as_of=CLOCK, expiring_within=period)


def test_missing_columns_are_all_named_at_once(codes: pd.DataFrame, vouchers: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="codes lacks VoucherId, ActivityState"):
        summarize(codes.drop(columns=["VoucherId", "ActivityState"]), as_of=CLOCK)
    with pytest.raises(InputError, match="vouchers lacks Name"):
        summarize(codes, as_of=CLOCK, vouchers=vouchers.drop(columns="Name"))
    with pytest.raises(InputError, match="needs vouchers="):
        summarize(codes, as_of=CLOCK, by="EnterpriseId")
