"""Pages of codes under every switch, and the three lists that lead to the vouchers."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

GET_CODES = "voucherCodes/getAll"
EARLIER = {"StartUtc": "2023-10-09T11:51:00Z", "EndUtc": "2023-10-09T12:00:00Z"}


def numbers(codes: list[dict[str, Any]]) -> list[int]:
    return [int(code["Id"][-12:], 16) for code in codes]


def interval(start: str, end: str) -> dict[str, str]:
    return {"StartUtc": f"2023-10-09T{start}Z", "EndUtc": f"2023-10-09T{end}Z"}


def test_record_is_complete_and_exact(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]
) -> None:
    codes = codes_of(1)
    codes["UpdatedUtc"] += pd.Timedelta(microseconds=999_999)
    assert serve(codes).read() == [
        {
            "Id": "00000000-0000-0000-0000-000000000001",
            "VoucherId": "00000000-0000-0000-0000-0000000f4240",
            "Value": "CODE-0",
            "ValidityStartUtc": None,
            "ValidityEndUtc": "2023-12-31T23:00:00Z",
            "CreatedUtc": "2023-10-08T12:00:00Z",
            "UpdatedUtc": "2023-10-09T12:00:00Z",
            "ActivityState": "Active",
            "IsActive": True,
        }
    ]


@pytest.mark.parametrize(
    "value", ['"\\', "\u00fcml\u00e4ut \u4f60\u597d \U0001f600", " blank ", "a\x00b", "007"]
)
def test_any_value_survives(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame], value: str
) -> None:
    mews = serve(codes_of(1).assign(Value=value))
    assert [code["Value"] for code in mews.read()] == [value]
    item = {"VoucherId": mews.server.voucher_ids[0], "Value": value}
    answer = mews.post("voucherCodes/add", VoucherCodeParameters=[item])
    assert answer.json()["VoucherCodes"][0]["Value"] == value
    assert mews.server.codes()["Value"].tolist() == [value, value]


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("both", ["ActivityState", "IsActive"]),
        ("ActivityState", ["ActivityState"]),
        ("IsActive", ["IsActive"]),
    ],
)
def test_switch_decides_how_the_state_is_told(
    serve: Callable[..., Any], clock: Any, state: str, fields: list[str]
) -> None:
    clock.move(seconds=1)
    mews = serve(state=state)
    mews.server.delete_codes(["00000000-0000-0000-0000-000000000001"])
    told = {"ActivityState": ["Deleted", "Active"], "IsActive": [False, True]}
    codes = mews.read()
    for field in told:
        shown = [code[field] for code in (codes[0], codes[-1]) if field in code]
        assert shown == (told[field] if field in fields else [])


def test_switch_leaves_nulls_out(serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]) -> None:
    mews = serve(codes_of(2).assign(Value=[None, "X"]), nulls="omitted")
    assert [sorted(code.get("Value", "")) for code in mews.read()] == [["X"], []]
    assert all("ValidityStartUtc" not in code and "ValidityEndUtc" in code for code in mews.read())


def test_switch_adds_fields_that_nobody_knows(serve: Callable[..., Any]) -> None:
    mews = serve(unknown_fields=True)
    vouchers = mews.post("vouchers/getAll").json()["Vouchers"]
    assert all(record["Foretold"] == {"Nested": [None, 1.5]} for record in mews.read() + vouchers)


@pytest.mark.parametrize("count", [1, 3, 9, 10, 11])
@pytest.mark.parametrize("order", ["UpdatedUtc", "CreatedUtc"])
def test_pages_are_newest_first(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame], order: str, count: int
) -> None:
    codes = codes_of(10)
    codes["CreatedUtc"] = codes["CreatedUtc"].tolist()[::-1]
    newest_first = list(range(10, 0, -1))
    read = serve(codes, order=order).read(Limitation={"Count": count})
    assert numbers(read) == (newest_first if order == "UpdatedUtc" else newest_first[::-1])


def test_cursor_is_the_last_id_and_null_only_on_an_empty_page(serve: Callable[..., Any]) -> None:
    mews = serve()
    page = mews.post(GET_CODES, Limitation={"Count": 10}).json()
    assert page["Cursor"] == page["VoucherCodes"][-1]["Id"]
    short = mews.post(GET_CODES, Limitation={"Count": 11}).json()
    assert short["Cursor"] == page["Cursor"]
    rest = mews.post(GET_CODES, Limitation={"Count": 10, "Cursor": page["Cursor"]}).json()
    assert rest == {"VoucherCodes": [], "Cursor": None}


def test_codes_of_one_instant_are_all_read(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]
) -> None:
    read = serve(codes_of(500, step="0s")).read(Limitation={"Count": 7})
    assert sorted(numbers(read)) == list(range(1, 501))


@pytest.mark.parametrize(
    ("kind", "span", "expected"),
    [
        ("half-open", ("11:52:00", "11:55:00"), [4, 3, 2]),
        ("inclusive", ("11:52:00", "11:55:00"), [5, 4, 3, 2]),
        ("half-open", ("11:52:00", "11:52:00"), [2]),
        ("inclusive", ("11:52:00", "11:52:00"), [2]),
        ("half-open", ("11:52:01", "11:52:01"), []),
        ("half-open", ("11:52:00.5", "11:53:00.000001"), [3]),
        ("half-open", ("11:52:00", "11:52:00.001"), [2]),
    ],
)
def test_switch_decides_about_the_end_of_an_interval(
    serve: Callable[..., Any], kind: str, span: tuple[str, str], expected: list[int]
) -> None:
    assert numbers(serve(interval=kind).read(UpdatedUtc=interval(*span))) == expected


@pytest.mark.parametrize("order", ["UpdatedUtc", "CreatedUtc"])
def test_intervals_may_be_written_with_an_offset(serve: Callable[..., Any], order: str) -> None:
    span = {"StartUtc": "2023-10-09T13:52:00+02:00", "EndUtc": "2023-10-09T06:54:00-05:00"}
    assert numbers(serve(order=order).read(UpdatedUtc=span)) == [3, 2]


def test_stored_timestamps_are_finer_than_shown_ones(serve: Callable[..., Any], clock: Any) -> None:
    clock.move(microseconds=500_000)
    found = {}
    for precision in ("us", "s"):
        mews = serve(stored_precision=precision)
        first, second, *_ = mews.server.codes()["Id"]
        mews.server.touch([first])
        mews.post("voucherCodes/delete", VoucherCodeIds=[second])
        shown = mews.server.codes()["UpdatedUtc"].head(2)
        assert (shown == pd.Timestamp("2023-10-09T12:00:00Z")).all()
        found[precision] = numbers(mews.read(UpdatedUtc=interval("12:00:00", "12:00:00")))
    assert found == {"us": [10], "s": [10, 2, 1]}


def test_codes_without_a_timestamp_are_in_no_interval(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]
) -> None:
    codes = codes_of(4)
    codes.loc[[0, 2], "UpdatedUtc"] = pd.NaT
    codes.loc[1, "CreatedUtc"] = pd.NaT
    mews = serve(codes, updated_required=False)
    assert numbers(mews.read()) == [4, 2]
    everything = mews.read(UpdatedUtc=None, Limitation={"Count": 1})
    assert numbers(everything) == [4, 2, 3, 1]
    assert [code["UpdatedUtc"] for code in everything[2:]] == [None, None]
    assert everything[1]["CreatedUtc"] is None


def test_filters_narrow_each_other(serve: Callable[..., Any]) -> None:
    mews = serve()
    first, second = mews.server.voucher_ids
    ids = mews.server.codes()["Id"].tolist()
    assert numbers(mews.read(VoucherIds=[first])) == [9, 7, 5, 3, 1]
    assert numbers(mews.read(VoucherIds=[second, second.upper()])) == [10, 8, 6, 4, 2]
    assert numbers(mews.read(VoucherIds=[first], VoucherCodeIds=ids[:3])) == [3, 1]
    assert numbers(mews.read(VoucherCodeIds=ids[:3], UpdatedUtc=interval("11:52:00", "11:53:01"))) == [3, 2]
    assert numbers(mews.read(VoucherCodeIds=ids, Limitation={"Count": 3})) == list(range(10, 0, -1))
    assert mews.read(EnterpriseIds=mews.server.enterprise_ids[1:]) == []
    assert len(mews.read(EnterpriseIds=mews.server.enterprise_ids)) == 10


def test_active_and_deleted_codes_come_back(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.post("voucherCodes/delete")
    assert [code["ActivityState"] for code in mews.read()].count("Deleted") == 1
    assert len(mews.read()) == 10


@pytest.mark.parametrize(
    ("order", "touched_cursor", "expected"),
    [
        ("UpdatedUtc", "key", [9, 8, 7, 6, 4, 3, 2, 1]),
        ("UpdatedUtc", "restart", [9, 8, 7, 6, 4, 3, 2, 1]),
        ("UpdatedUtc", "empty", []),
        ("CreatedUtc", "key", [4, 3, 2, 1]),
        ("CreatedUtc", "restart", [9, 8, 7, 6, 4, 3, 2, 1]),
        ("CreatedUtc", "empty", []),
    ],
)
def test_switch_decides_what_a_touched_cursor_yields(
    serve: Callable[..., Any], clock: Any, order: str, touched_cursor: str, expected: list[int]
) -> None:
    mews = serve(order=order, touched_cursor=touched_cursor)
    page = mews.post(GET_CODES, Limitation={"Count": 5}, UpdatedUtc=EARLIER).json()
    assert numbers(page["VoucherCodes"]) == [9, 8, 7, 6, 5]
    clock.move(seconds=1)
    mews.server.touch([page["Cursor"]])
    rest = mews.post(GET_CODES, Limitation={"Count": 100, "Cursor": page["Cursor"]}, UpdatedUtc=EARLIER)
    assert numbers(rest.json()["VoucherCodes"]) == expected


def test_switch_refuses_a_touched_cursor(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve(touched_cursor="refused")
    cursor = mews.post(GET_CODES, Limitation={"Count": 5}, UpdatedUtc=EARLIER).json()["Cursor"]
    clock.move(seconds=1)
    mews.server.touch([cursor])
    refused = mews.post(GET_CODES, Limitation={"Count": 5, "Cursor": cursor}, UpdatedUtc=EARLIER)
    assert refused.status_code == 400
    longer = {**EARLIER, "EndUtc": "2023-10-10T00:00:00Z"}
    restarted = mews.post(GET_CODES, Limitation={"Count": 5, "Cursor": cursor}, UpdatedUtc=longer)
    assert numbers(restarted.json()["VoucherCodes"]) == [10, 9, 8, 7, 6]


def test_cursor_of_a_code_outside_the_filter_is_touched_too(serve: Callable[..., Any]) -> None:
    mews = serve(touched_cursor="empty")
    first, second = mews.server.voucher_ids
    cursor = mews.post(GET_CODES, Limitation={"Count": 1}, VoucherIds=[first]).json()["Cursor"]
    assert mews.read(VoucherIds=[second], Limitation={"Count": 5, "Cursor": cursor}) == []


VOUCHERS = pd.DataFrame(
    {
        "Id": [f"00000000-0000-0000-0000-0000000f424{number}" for number in range(4)],
        "Name": ["Spring", "Summer", "Autumn", "Winter"],
        "EnterpriseId": [f"00000000-0000-0000-0000-00000000e00{number}" for number in (1, 1, 2, 2)],
        "TimeZone": ["Pacific/Auckland"] * 2 + ["America/Santiago"] * 2,
        "IsActive": [True, False, True, True],
    }
)


def test_vouchers_are_found_from_the_enterprises(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]
) -> None:
    mews = serve(codes_of(8, vouchers=3), VOUCHERS)
    for token, count in ((mews.server.access_token, 1), (mews.server.portfolio_token, 2)):
        enterprises = mews.post("enterprises/getAll", AccessToken=token).json()["Enterprises"]
        zones = [enterprise["TimeZoneIdentifier"] for enterprise in enterprises]
        assert zones == ["Pacific/Auckland", "America/Santiago"][:count]
        services = mews.post("services/getAll", AccessToken=token).json()["Services"]
        assert [service["EnterpriseId"] for service in services] == [record["Id"] for record in enterprises]
        found = mews.post(
            "vouchers/getAll", AccessToken=token, ServiceIds=[record["Id"] for record in services]
        )
        names = [voucher["Name"] for voucher in found.json()["Vouchers"]]
        assert names == ["Spring", "Summer", "Autumn", "Winter"][: 2 * count]
    assert mews.server.voucher_ids == VOUCHERS["Id"].tolist()[:2]
    assert mews.server.enterprise_ids == VOUCHERS["EnterpriseId"].unique().tolist()


def test_vouchers_are_filtered(serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]) -> None:
    mews = serve(codes_of(8, vouchers=3), VOUCHERS)

    def names(**fields: Any) -> list[str]:
        found = mews.post("vouchers/getAll", AccessToken=mews.server.portfolio_token, **fields)
        return [voucher["Name"] for voucher in found.json()["Vouchers"]]

    assert names(ActivityStates=["Deleted"]) == ["Summer"]
    assert names(ActivityStates=["Active"]) == ["Spring", "Autumn", "Winter"]
    assert names(VoucherIds=VOUCHERS["Id"].tolist()[2:]) == ["Autumn", "Winter"]
    assert names(EnterpriseIds=[mews.server.enterprise_ids[0]]) == ["Spring", "Summer"]
    assert names(ServiceIds=mews.server.vouchers()["ServiceId"].tolist()[3:]) == ["Autumn", "Winter"]
    assert mews.post("vouchers/getAll", Extent={"Vouchers": False}).json() == {
        "Vouchers": None,
        "Cursor": None,
    }


def test_lists_are_paged(serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]) -> None:
    mews = serve(codes_of(40, vouchers=40))
    seen: list[str] = []
    limitation: dict[str, Any] = {"Count": 7}
    for length in (7, 7, 7, 7, 7, 5):
        page = mews.post("vouchers/getAll", Limitation=limitation).json()
        seen += [voucher["Id"] for voucher in page["Vouchers"]]
        assert len(page["Vouchers"]) == length
        assert page["Cursor"] == seen[-1]
        limitation["Cursor"] = page["Cursor"]
    assert seen == mews.server.voucher_ids
    assert mews.post("vouchers/getAll", Limitation=limitation).json() == {"Vouchers": [], "Cursor": None}


def test_portfolio_token_reads_all_enterprises(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]
) -> None:
    mews = serve(codes_of(9, vouchers=3), VOUCHERS)
    portfolio = {"AccessToken": mews.server.portfolio_token, "VoucherIds": VOUCHERS["Id"].tolist()}
    assert len(mews.read(**portfolio)) == 9
    assert numbers(mews.read(**portfolio, EnterpriseIds=[mews.server.enterprise_ids[1]])) == [9, 6, 3]
    assert numbers(mews.read(VoucherIds=portfolio["VoucherIds"])) == [8, 7, 5, 4, 2, 1]
