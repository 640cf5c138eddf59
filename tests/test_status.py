"""What a code is at an instant: the rule against a day found minute by minute, and alike on every engine."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vouchertools.errors import InputError
from vouchertools.status import STATUSES, first_instant, read_zones, status

NOON = pd.Timestamp("2023-10-10T10:00:00Z")
MINUTE = timedelta(minutes=1)

#: Where clocks are switched at midnight, at night, in the southern summer, by another amount, or never.
ZONES = [
    "Europe/Prague",
    "Pacific/Auckland",
    "Pacific/Honolulu",
    "America/Santiago",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Beirut",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "America/New_York",
    "Asia/Kathmandu",
    "Africa/Casablanca",
]
ENGINES = ["pandas", "polars", "pyarrow", "duckdb", "polars lazily"]


def frame(*windows: tuple[Any, Any], state: str = "Active", voucher: str = "v") -> pd.DataFrame:
    """Codes with these windows, in the dtypes of a pull."""
    starts, ends = zip(*windows, strict=True) if windows else ((), ())
    return pd.DataFrame(
        {
            "VoucherId": pd.Series([voucher] * len(windows), dtype="str"),
            "ActivityState": pd.Series([state] * len(windows), dtype="str"),
            "ValidityStartUtc": pd.to_datetime(list(starts), utc=True).astype("datetime64[us, UTC]"),
            "ValidityEndUtc": pd.to_datetime(list(ends), utc=True).astype("datetime64[us, UTC]"),
        }
    )


def judge(end: datetime, as_of: datetime, tz: Any) -> str:
    return str(status(frame((None, end)), as_of=as_of, tz=tz)[0])


def convert(codes: pd.DataFrame, engine: str) -> Any:
    table = pa.Table.from_pandas(codes, preserve_index=False)
    return {
        "pandas": lambda: codes,
        "polars": lambda: pl.from_arrow(table),
        "polars lazily": lambda: pl.from_arrow(table).lazy(),
        "pyarrow": lambda: table,
        "duckdb": lambda: duckdb.from_arrow(table),
    }[engine]()


def statuses(result: Any) -> list[str]:
    """Values of whatever `status` gave back."""
    if isinstance(result, duckdb.DuckDBPyRelation):
        return [row[0] for row in result.project("Status").fetchall()]
    if isinstance(result, pl.LazyFrame):
        return result.collect()["Status"].to_list()
    return result.to_pylist() if isinstance(result, pa.ChunkedArray) else result.to_list()


# --- the rule ----------------------------------------------------------------------------------------------


def instants_of_day(zone: str, day: date) -> tuple[datetime, datetime]:
    """First minute of a local day and the first minute after it, found by asking every minute around it."""
    clock = ZoneInfo(zone)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    minutes = [noon + number * MINUTE for number in range(-30 * 60, 42 * 60)]
    inside = [minute for minute in minutes if minute.astimezone(clock).date() == day]
    return inside[0], inside[-1] + MINUTE


def is_over(end: datetime, as_of: datetime, zone: str) -> bool:
    """Whether a window is over, from the words of the rule alone."""
    day = end.astimezone(ZoneInfo(zone)).date()
    first, after = instants_of_day(zone, day)
    return as_of >= after if end == first else as_of > end


def switches(zone: str, year: int) -> list[datetime]:
    """Hours around which the clocks of a zone are switched in a year."""
    clock = ZoneInfo(zone)
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(366 * 24)]
    offsets = [hour.astimezone(clock).utcoffset() for hour in hours]
    return [hours[i] for i in range(1, len(hours)) if offsets[i] != offsets[i - 1]]


ANY_ZONE = st.sampled_from(ZONES) | st.timezone_keys(allow_prefix=False)
ANY_INSTANT = st.datetimes(datetime(2012, 1, 1), datetime(2037, 12, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)


@settings(max_examples=150, deadline=None)
@given(
    zone=ANY_ZONE, as_of=ANY_INSTANT, days=st.integers(-2, 2), seconds=st.sampled_from([0, 0, 0, -1, 1, 3600])
)
@example("America/Santiago", datetime(2024, 9, 8, 3, 59, 59, tzinfo=UTC), 0, 0)
@example("America/Havana", datetime(2024, 11, 3, 4, 30, tzinfo=UTC), 0, 0)
def test_a_window_ends_when_the_rule_in_words_says_so(
    zone: str, as_of: datetime, days: int, seconds: int
) -> None:
    day = as_of.astimezone(ZoneInfo(zone)).date() + timedelta(days=days)
    first, _ = instants_of_day(zone, day)
    end = first + timedelta(seconds=seconds)
    assert (judge(end, as_of, zone) == "expired") == is_over(end, as_of, zone)


@pytest.mark.parametrize("zone", ZONES)
def test_the_last_day_holds_to_its_last_second_around_every_switch_of_clocks(zone: str) -> None:
    for switch in switches(zone, 2024):
        for offset in (-1, 0, 1):
            day = switch.astimezone(ZoneInfo(zone)).date() + timedelta(days=offset)
            first, after = instants_of_day(zone, day)
            last = after - timedelta(microseconds=1)
            assert judge(first, first, zone) == "valid"
            assert judge(first, last, zone) == "valid"
            assert judge(first, after, zone) == "expired"
            assert judge(first + timedelta(seconds=1), last, zone) == "expired"


@pytest.mark.parametrize(
    ("zone", "day", "hours", "first"),
    [
        ("Europe/Prague", date(2024, 3, 31), 23, "2024-03-30T23:00Z"),
        ("Europe/Prague", date(2024, 10, 27), 25, "2024-10-26T22:00Z"),
        ("Pacific/Auckland", date(2024, 9, 29), 23, "2024-09-28T12:00Z"),
        ("Pacific/Auckland", date(2024, 4, 7), 25, "2024-04-06T11:00Z"),
        ("Pacific/Honolulu", date(2024, 3, 31), 24, "2024-03-31T10:00Z"),
        ("America/Santiago", date(2024, 9, 8), 23, "2024-09-08T04:00Z"),
        ("Africa/Cairo", date(2024, 4, 26), 23, "2024-04-25T22:00Z"),
        ("America/Havana", date(2024, 3, 10), 23, "2024-03-10T05:00Z"),
        ("America/Havana", date(2024, 11, 3), 25, "2024-11-03T04:00Z"),
    ],
)
def test_first_instant_of_days_with_skipped_or_repeated_hours(
    zone: str, day: date, hours: int, first: str
) -> None:
    expected = pd.Timestamp(first).to_pydatetime()
    for hour in range(hours):
        assert first_instant(zone, expected + timedelta(hours=hour, minutes=59)) == expected
    assert first_instant(zone, expected + timedelta(hours=hours)) == expected + timedelta(hours=hours)
    assert expected.astimezone(ZoneInfo(zone)).date() == day


def test_first_instant_of_a_day_that_begins_inside_a_gap_is_the_end_of_the_gap() -> None:
    # Toronto switched at 23:30 to 00:30 in 1919.
    assert first_instant("America/Toronto", datetime(1919, 3, 31, 12, tzinfo=UTC)) == datetime(
        1919, 3, 31, 4, 30, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("as_of", "expected"), [("2023-10-10T21:59:59.999999Z", "valid"), ("2023-10-10T22:00Z", "expired")]
)
def test_the_reference_examples_code_of_one_day_is_valid_through_that_day(as_of: str, expected: str) -> None:
    one_day = frame(("2023-10-09T22:00:00Z", "2023-10-09T22:00:00Z"))
    assert list(status(one_day, as_of=as_of, tz="Europe/Prague")) == [expected]
    assert list(status(one_day, as_of="2023-10-09T21:59:59Z", tz="Europe/Prague")) == ["future"]


def test_without_a_zone_a_code_is_expired_only_when_more_than_25_hours_past() -> None:
    codes = frame(
        (None, NOON - pd.Timedelta("25h")), (None, NOON - pd.Timedelta("25h") - pd.Timedelta("1us"))
    )
    assert list(status(codes, as_of=NOON)) == ["valid", "expired"]
    assert list(status(codes, as_of=NOON, tz={})) == ["valid", "expired"]


def test_open_ends_never_expire_and_open_starts_are_never_ahead() -> None:
    codes = frame((None, None), (NOON, None), (NOON + pd.Timedelta("1us"), None), (None, NOON))
    assert list(status(codes, as_of=NOON, tz="Europe/Prague")) == ["valid", "valid", "future", "valid"]


def test_the_first_status_that_holds_wins() -> None:
    inverted = ("2023-01-03T00:00Z", "2023-01-02T00:00Z")
    assert list(status(frame(inverted, state="Deleted"), as_of=NOON)) == ["deleted"]
    assert list(status(frame(inverted), as_of=NOON)) == ["inverted"]
    assert list(status(frame(inverted), as_of="2020-01-01T00:00Z")) == ["inverted"]


def test_each_voucher_is_judged_by_its_own_zone_and_the_unnamed_without_one() -> None:
    midnight = pd.Timestamp("2023-10-09T22:00:00Z")
    codes = pd.concat(
        [frame((None, midnight), voucher=name) for name in ("prague", "york", "unnamed", "null")]
    )
    zones = {"prague": "Europe/Prague", "york": "America/New_York", "null": None}
    for tz in (zones, pd.DataFrame({"Id": zones.keys(), "TimeZone": zones.values()})):
        assert list(status(codes, as_of=NOON, tz=tz)) == ["valid", "expired", "valid", "valid"]
        assert list(status(codes, as_of=NOON + pd.Timedelta("14h"), tz=tz)) == [
            "expired",
            "expired",
            "expired",
            "expired",
        ]


# --- any engine --------------------------------------------------------------------------------------------


def oddities() -> pd.DataFrame:
    hours = pd.date_range("2023-10-08T20:00Z", "2023-10-12T02:00Z", freq="h").tolist()
    windows = [(start, end) for start in (None, hours[5], hours[40]) for end in (None, *hours)]
    parts = [frame(*windows, voucher=name) for name in ("prague", "york", "unnamed")]
    return pd.concat([*parts, frame(*windows[:9], state="Deleted")], ignore_index=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "tz", [None, "Europe/Prague", {"prague": "Europe/Prague", "york": "America/New_York"}]
)
def test_every_engine_judges_alike(engine: str, tz: Any) -> None:
    codes = oddities()
    expected = statuses(status(codes, as_of=NOON, tz=tz))
    assert set(expected) == set(STATUSES)
    assert statuses(status(convert(codes, engine), as_of=NOON, tz=tz)) == expected


def test_a_pandas_series_has_the_name_the_dtype_and_the_index_of_the_codes() -> None:
    codes = frame((None, NOON), (None, None)).set_index(pd.Index([7, 3]))
    result = status(codes, as_of=NOON)
    assert result.name == "Status"
    assert str(result.dtype) == "str"
    assert list(result.index) == [7, 3]


def test_eager_frames_give_their_own_kind_of_series() -> None:
    codes = frame((None, None))
    assert isinstance(status(convert(codes, "polars"), as_of=NOON), pl.Series)
    assert isinstance(status(convert(codes, "pyarrow"), as_of=NOON), pa.ChunkedArray)


def test_a_lazy_frame_comes_back_lazy_with_a_column_more() -> None:
    relation = status(convert(frame((None, None)), "duckdb"), as_of=NOON)
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    assert relation.columns[-1] == "Status"
    assert isinstance(status(convert(frame((None, None)), "polars lazily"), as_of=NOON), pl.LazyFrame)


def test_no_codes_have_no_statuses_of_the_same_dtype() -> None:
    result = status(frame(), as_of=NOON, tz="Europe/Prague")
    assert len(result) == 0
    assert str(result.dtype) == "str"


def test_codes_are_left_as_they_were() -> None:
    codes = oddities()
    before = codes.copy()
    status(codes, as_of=NOON, tz={"prague": "Europe/Prague"})
    pd.testing.assert_frame_equal(codes, before)


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tz", ["Mars/Olympus", {"v": "Mars/Olympus"}, "", "../etc/passwd"])
def test_an_unknown_zone_is_named(tz: Any) -> None:
    zone = tz["v"] if isinstance(tz, dict) else tz
    with pytest.raises(InputError, match=f"{zone!r} is not a known time zone"):
        status(frame((None, None)), as_of=NOON, tz=tz)


@pytest.mark.parametrize("as_of", [datetime(2023, 1, 1), "2023-01-01", None, pd.NaT, "soon"])
def test_an_instant_without_a_zone_is_refused(as_of: Any) -> None:
    with pytest.raises(InputError, match="as_of"):
        status(frame((None, None)), as_of=as_of)


def test_missing_columns_are_all_named_at_once() -> None:
    codes = frame((None, None)).drop(columns=["ActivityState", "ValidityEndUtc"])
    with pytest.raises(InputError, match="lacks ActivityState, ValidityEndUtc"):
        status(codes, as_of=NOON)
    with pytest.raises(InputError, match="lacks VoucherId"):
        status(frame((None, None)).drop(columns="VoucherId"), as_of=NOON, tz={"v": "Europe/Prague"})


def test_naive_times_and_times_as_text_are_refused() -> None:
    codes = frame((None, NOON))
    for wrong in (codes["ValidityEndUtc"].dt.tz_localize(None), codes["ValidityEndUtc"].astype(str)):
        with pytest.raises(InputError, match=r"ValidityEndUtc.*not times with a time zone"):
            status(codes.assign(ValidityEndUtc=wrong), as_of=NOON)


@pytest.mark.parametrize("wrong", [None, [1, 2], "codes"])
def test_what_is_no_frame_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="not a data frame"):
        status(wrong, as_of=NOON)


def test_zones_are_read_from_a_name_a_mapping_or_the_vouchers() -> None:
    assert read_zones(None) is None
    assert read_zones("Europe/Prague") == "Europe/Prague"
    vouchers = pl.DataFrame({"Id": ["a", "b"], "TimeZone": ["Europe/Prague", None]})
    assert read_zones(vouchers) == read_zones(vouchers.lazy()) == {"a": "Europe/Prague"}
    with pytest.raises(InputError, match="tz lacks TimeZone"):
        read_zones(pd.DataFrame({"Id": ["a"]}))
