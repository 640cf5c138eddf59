"""What the sample promises to the sandbox and to every test that counts its codes."""

import json
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).parents[1] / "data"
CLOCK = pd.Timestamp("2017-11-10T12:00:00Z")
ODDITIES = "fe568bbd-1ecb-4bb2-bf77-96c3698de20d"
REFERENCE = {
    "8c364829-c7ae-4972-b67f-93ea704d7228": ("0E5856B0A73E62B7E446", pd.NaT),
    "dc9d3488-7fc4-4fc9-a524-14e6504d8734": ("021D047E42A5FD522CBA", pd.Timestamp("2023-10-09T22:00:00Z")),
}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pq.read_table(DATA / "sample.parquet")


@pytest.fixture(scope="module")
def codes(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas()


@pytest.fixture(scope="module")
def meta(table: pa.Table) -> dict[str, list[dict]]:
    return json.loads(table.schema.metadata[b"vouchertools"])


@pytest.fixture(scope="module")
def campaigns(codes: pd.DataFrame, meta: dict[str, list[dict]]) -> pd.DataFrame:
    ids = [v["Id"] for v in meta["vouchers"] if (v["ExternalIdentifier"] or "").startswith("CAMPAIGN-")]
    return codes[codes["VoucherId"].isin(ids)]


def test_columns_and_types_are_the_contracts(table: pa.Table) -> None:
    at = pa.timestamp("us", tz="UTC")
    types = [pa.string()] * 3 + [at] * 4 + [pa.string()]
    times = ["ValidityStartUtc", "ValidityEndUtc", "CreatedUtc", "UpdatedUtc"]
    assert table.schema.names == ["Id", "VoucherId", "Value", *times, "ActivityState"]
    assert table.schema.types == types


def test_every_household_of_every_campaign_is_one_code(campaigns: pd.DataFrame) -> None:
    assert len(campaigns) == 6589
    assert campaigns["VoucherId"].nunique() == 27
    assert int((campaigns["ActivityState"] == "Deleted").sum()) == 601


def test_nineteen_campaigns_are_over_three_running_five_ahead(campaigns: pd.DataFrame) -> None:
    windows = campaigns.groupby("VoucherId")[["ValidityStartUtc", "ValidityEndUtc"]].agg(["min", "max"])
    assert (windows.xs("min", axis=1, level=1) == windows.xs("max", axis=1, level=1)).all(axis=None)
    start = windows["ValidityStartUtc"]["min"]
    past_the_last_day = windows["ValidityEndUtc"]["min"].dt.tz_convert("Europe/Prague") + pd.offsets.Day(1)
    over, ahead = past_the_last_day <= CLOCK, start > CLOCK
    assert (int(over.sum()), int((~over & ~ahead).sum()), int(ahead.sum())) == (19, 3, 5)


def test_campaign_windows_are_local_midnights_in_prague(campaigns: pd.DataFrame) -> None:
    for column in ("ValidityStartUtc", "ValidityEndUtc"):
        local = campaigns[column].dt.tz_convert("Europe/Prague")
        assert (local == local.dt.normalize()).all()
        assert set(campaigns[column].dt.hour) == {22, 23}


def test_ids_are_unique_and_values_unique_within_a_campaign(
    codes: pd.DataFrame, campaigns: pd.DataFrame
) -> None:
    assert codes["Id"].is_unique
    assert not campaigns.duplicated(["VoucherId", "Value"]).any()


def test_a_deleted_campaign_code_was_redeemed_within_its_window(campaigns: pd.DataFrame) -> None:
    deleted = campaigns[campaigns["ActivityState"] == "Deleted"]
    local = {
        column: deleted[column].dt.tz_convert("Europe/Prague").dt.normalize()
        for column in ("UpdatedUtc", "ValidityStartUtc", "ValidityEndUtc")
    }
    assert (local["ValidityStartUtc"] <= local["UpdatedUtc"]).all()
    assert (local["UpdatedUtc"] <= local["ValidityEndUtc"]).all()
    untouched = campaigns[campaigns["ActivityState"] == "Active"]
    assert (untouched["UpdatedUtc"] == untouched["CreatedUtc"]).all()


def test_time_runs_forward_and_never_past_the_clock(codes: pd.DataFrame, campaigns: pd.DataFrame) -> None:
    assert (codes["CreatedUtc"] <= codes["UpdatedUtc"]).all()
    assert codes["UpdatedUtc"].max() < CLOCK
    assert (campaigns["CreatedUtc"] < campaigns["ValidityStartUtc"]).all()
    assert (codes["CreatedUtc"].dt.microsecond == 0).all()


def test_the_references_two_codes_are_there_as_printed(codes: pd.DataFrame) -> None:
    found = codes.set_index("Id").loc[list(REFERENCE)]
    assert set(found["VoucherId"]) == {ODDITIES}
    for code_id, (value, instant) in REFERENCE.items():
        assert found.at[code_id, "Value"] == value
        for column in ("ValidityStartUtc", "ValidityEndUtc"):
            shown = found.at[code_id, column]
            assert shown == instant or (pd.isna(shown) and pd.isna(instant))


def test_the_oddities_are_odd(codes: pd.DataFrame) -> None:
    odd = codes[codes["VoucherId"] == ODDITIES]
    start, end, value = odd["ValidityStartUtc"], odd["ValidityEndUtc"], odd["Value"].dropna()
    assert (start.isna() & end.notna()).any()
    assert (start.notna() & end.isna()).any()
    assert (start.isna() & end.isna()).any()
    assert (start > end).any()
    assert (start == end).any()
    assert value.duplicated().any()
    assert (value != value.str.strip()).any()
    assert value.str.len().max() == 128
    assert value.str.contains(r"[^\x00-\x7f]").any()
    assert value.str.upper().nunique() < value.nunique()
    assert value.str.normalize("NFC").nunique() < value.nunique()
    assert odd["Value"].isna().sum() == 1


def test_enterprises_services_and_vouchers_belong_together(
    codes: pd.DataFrame, meta: dict[str, list[dict]]
) -> None:
    enterprises = {e["Id"]: e for e in meta["enterprises"]}
    services = {s["Id"]: s for s in meta["services"]}
    vouchers = {v["Id"]: v for v in meta["vouchers"]}
    assert [len(enterprises), len(services), len(vouchers)] == [2, 4, 30]
    zones = {str(ZoneInfo(e["TimeZoneIdentifier"])) for e in enterprises.values()}
    assert zones == {"Europe/Prague", "America/New_York"}
    assert all(v["EnterpriseId"] == services[v["ServiceId"]]["EnterpriseId"] for v in vouchers.values())
    assert [s["Names"]["en-US"] for s in services.values() if not s["IsActive"]] == ["Spa"]
    assert [v["Name"] for v in vouchers.values() if not v["IsActive"]] == ["Autumn 2017 Agencies 14"]
    assert {v["Type"] for v in vouchers.values()} == {"Public", "PartnerCompany", "TravelAgency"}
    without = set(vouchers) - set(codes["VoucherId"])
    assert [vouchers[v]["Name"] for v in without] == ["Spring 2018 Preview (no codes)"]


def test_the_second_enterprise_adds_twelve_codes(codes: pd.DataFrame, meta: dict[str, list[dict]]) -> None:
    second = {v["Id"] for v in meta["vouchers"] if v["EnterpriseId"] == meta["enterprises"][1]["Id"]}
    assert int(codes["VoucherId"].isin(second).sum()) == 12
    assert int((~codes["VoucherId"].isin(second)).sum()) == 6633
