"""Selections that analysts make, and why a code does not work."""

from typing import Any

import pandas as pd
import pytest

from vouchertools.bulk.planning import plan_delete
from vouchertools.bulk.selections import (
    deleted,
    duplicates_but_oldest,
    expired_for,
    find,
    of_voucher,
    values_in,
)
from vouchertools.errors import InputError

SUMMER = "9b5a4c6e-0000-4000-8000-000000000001"
WINTER = "9b5a4c6e-0000-4000-8000-00000000000a"
NOW = pd.Timestamp("2024-03-01T12:00:00Z")


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """Codes that were read at noon of 1 March 2024; whatever a row does not say is harmless."""
    full = [
        {
            "Id": f"00000000-0000-4000-8000-{number:012d}",
            "VoucherId": SUMMER,
            "Value": f"V{number}",
            "ValidityStartUtc": "2024-01-01T00:00:00Z",
            "ValidityEndUtc": "2024-12-31T10:00:00Z",
            "CreatedUtc": f"2024-01-{number + 1:02d}T00:00:00Z",
            "UpdatedUtc": "2024-02-01T00:00:00Z",
            "ActivityState": "Active",
        }
        | row
        for number, row in enumerate(rows)
    ]
    codes = pd.DataFrame(full)
    for column in codes.columns:
        if column.endswith("Utc"):
            codes[column] = pd.to_datetime(codes[column], utc=True).astype("datetime64[us, UTC]")
    codes.attrs = {"read_utc": NOW, "environment": "sandbox-00000000"}
    return codes


def test_expired_for_takes_what_was_over_that_many_days_ago() -> None:
    codes = frame(
        {"ValidityEndUtc": "2024-01-29T12:00:00Z"},
        {"ValidityEndUtc": "2024-02-25T12:00:00Z"},
        {"ValidityEndUtc": "2024-01-29T12:00:00Z", "ActivityState": "Deleted"},
        {"ValidityEndUtc": None},
        {},
    )
    assert expired_for(codes, 30)["Value"].tolist() == ["V0"]
    assert expired_for(codes, 3)["Value"].tolist() == ["V0", "V1"]
    assert expired_for(codes, 0, as_of="2025-06-01T00:00:00Z")["Value"].tolist() == ["V0", "V1", "V4"]


def test_expired_for_zero_days_leaves_a_code_on_its_last_local_day() -> None:
    codes = frame({"ValidityEndUtc": "2024-02-29T23:00:00Z"})
    assert len(expired_for(codes, 0, tz="Europe/Prague")) == 0
    assert len(expired_for(codes, 0, tz="UTC")) == 1


def test_duplicates_but_the_oldest_are_taken_within_a_voucher_and_of_active_codes_alone() -> None:
    codes = frame(
        {"Value": "A", "CreatedUtc": "2024-01-05T00:00:00Z"},
        {"Value": "A", "CreatedUtc": "2024-01-02T00:00:00Z"},
        {"Value": "A", "CreatedUtc": None},
        {"Value": "A", "ActivityState": "Deleted", "CreatedUtc": "2023-01-01T00:00:00Z"},
        {"Value": "A", "VoucherId": WINTER},
        {"Value": "a"},
        {"Value": None},
        {"Value": None},
    )
    assert duplicates_but_oldest(codes).index.tolist() == [0, 2]


def test_deleted_one_voucher_and_values_are_what_they_say() -> None:
    codes = frame({"ActivityState": "Deleted"}, {"VoucherId": WINTER}, {"Value": "007"})
    assert deleted(codes).index.tolist() == [0]
    assert of_voucher(codes, WINTER.upper()).index.tolist() == [1]
    assert values_in(codes, ["007", "7"]).index.tolist() == [2]
    assert len(values_in(codes, ["7"])) == 0


def test_a_selection_keeps_what_a_plan_needs() -> None:
    codes = frame({"ValidityEndUtc": "2024-01-01T12:00:00Z"}, {})
    plan = plan_delete(expired_for(codes, 30))
    assert plan.environment == "sandbox-00000000"
    assert plan.as_of == NOW


@pytest.mark.parametrize(
    ("row", "asked", "match", "words"),
    [
        ({"Value": "SUN-1"}, "SUN-1", "exact", ""),
        ({"Value": "SUN-1"}, "sun-1", "other case", "written 'SUN-1'"),
        ({"Value": "SUN-1"}, " SUN -1", "blanks", "written 'SUN-1', with other blanks"),
        ({"Value": "SUN-1", "ActivityState": "Deleted"}, "SUN-1", "exact", "is deleted"),
        ({"Value": "SUN-1", "ValidityEndUtc": "2024-02-01T10:00:00Z"}, "SUN-1", "exact", "is over"),
        ({"Value": "SUN-1", "ValidityStartUtc": "2024-06-01T00:00:00Z"}, "SUN-1", "exact", "not begun"),
        ({"Value": "SUN-1", "ValidityEndUtc": "2023-02-01T00:00:00Z"}, "SUN-1", "exact", "before it begins"),
        ({"Value": "SUN-1", "VoucherId": WINTER}, "SUN-1", "exact", "voucher is inactive"),
        ({"Value": "SUN-1"}, "MOON", "none", "No code has the value 'MOON'"),
    ],
)
def test_find_says_why_a_code_does_not_work(row: dict[str, Any], asked: str, match: str, words: str) -> None:
    vouchers = pd.DataFrame(
        {
            "Id": [SUMMER, WINTER],
            "TimeZone": ["Europe/Prague"] * 2,
            "IsActive": pd.array([True, False], "boolean"),
        }
    )
    found = find(frame(row, {"Value": "ELSE"}), asked, vouchers=vouchers)
    assert len(found) == 1
    first = found.iloc[0]
    assert first["Match"] == match
    assert first["Works"] == (words == "")
    assert words in first["Why"]


def test_find_puts_the_likeliest_first() -> None:
    codes = frame(
        {"Value": "sun 1"},
        {"Value": "sun1"},
        {"Value": "SUN1", "ActivityState": "Deleted"},
        {"Value": "SUN1"},
    )
    found = find(codes, "SUN1")
    assert found["Match"].tolist() == ["exact", "exact", "other case", "blanks"]
    assert found["Works"].tolist() == [True, False, False, False]


def test_what_is_not_said_is_asked_for() -> None:
    codes = frame({})
    codes.attrs = {}
    with pytest.raises(InputError, match="as_of is missing"):
        expired_for(codes, 30)
    with pytest.raises(InputError, match="blank"):
        find(codes, "  ", as_of=NOW)
    with pytest.raises(InputError, match="negative"):
        expired_for(codes, -1, as_of=NOW)
    with pytest.raises(InputError, match="list"):
        values_in(codes, "007")
