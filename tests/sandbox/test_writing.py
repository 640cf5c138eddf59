"""What adding and deleting do: all or nothing, stamped by the sandbox's clock, soft."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

ADD = "voucherCodes/add"
DELETE = "voucherCodes/delete"
LATER = pd.Timestamp("2023-10-09T13:00:00Z")


def items(mews: Any, *values: str) -> list[dict[str, str]]:
    return [{"VoucherId": mews.server.voucher_ids[0], "Value": value} for value in values]


def test_added_codes_are_answered_as_they_can_be_read(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve()
    clock.move(hours=1)
    window = {"ValidityStartUtc": "2023-10-09T22:00:00Z", "ValidityEndUtc": "2023-10-10T00:00:00+02:00"}
    added = mews.post(
        ADD, VoucherCodeParameters=[*items(mews, "A"), {**items(mews, "B")[0], **window}]
    ).json()
    read = mews.read(VoucherCodeIds=[code["Id"] for code in added["VoucherCodes"]])
    assert sorted(read, key=str) == sorted(added["VoucherCodes"], key=str)
    times = ["ValidityStartUtc", "ValidityEndUtc", "CreatedUtc", "UpdatedUtc"]
    assert {code["Value"]: [code[name] for name in times] for code in read} == {
        "A": [None, None, "2023-10-09T13:00:00Z", "2023-10-09T13:00:00Z"],
        "B": ["2023-10-09T22:00:00Z"] * 2 + ["2023-10-09T13:00:00Z"] * 2,
    }
    assert len(mews.server.codes()) == 12


def test_deletion_is_soft(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve()
    before = mews.server.codes()
    clock.move(hours=1)
    ids = before["Id"].tolist()[2:5]
    assert mews.post(DELETE, VoucherCodeIds=ids).json() == {}
    after = mews.server.codes()
    gone = before["Id"].isin(ids)
    expected = before.assign(
        UpdatedUtc=before["UpdatedUtc"].mask(gone, LATER),
        ActivityState=before["ActivityState"].mask(gone, "Deleted"),
    )
    pd.testing.assert_frame_equal(after, expected)


def test_one_unknown_id_refuses_the_whole_deletion(serve: Callable[..., Any]) -> None:
    mews = serve()
    before = mews.server.codes()
    ids = [before["Id"].iloc[0], "00000000-0000-0000-0000-00000000dead"]
    assert mews.post(DELETE, VoucherCodeIds=ids).status_code == 400
    assert mews.server.codes().equals(before)


@pytest.mark.parametrize(("switch", "status"), [("refused", 400), ("accepted", 200)])
def test_switch_decides_about_deleting_a_deleted_code(
    serve: Callable[..., Any], clock: Any, switch: str, status: int
) -> None:
    mews = serve(deleting_deleted=switch)
    ids = mews.server.codes()["Id"].tolist()[:2]
    assert mews.post(DELETE, VoucherCodeIds=ids[:1]).status_code == 200
    clock.move(hours=1)
    assert mews.post(DELETE, VoucherCodeIds=ids).status_code == status
    codes = mews.server.codes()
    assert codes["ActivityState"].tolist()[:2] == ["Deleted", "Active" if status == 400 else "Deleted"]
    assert codes["UpdatedUtc"].iloc[0] == pd.Timestamp("2023-10-09T12:00:00Z")


def test_an_id_given_twice_is_deleted_once(serve: Callable[..., Any]) -> None:
    mews = serve()
    code = mews.server.codes()["Id"].iloc[9]
    assert mews.post(DELETE, VoucherCodeIds=[code, code.upper()]).status_code == 200
    assert (mews.server.codes()["ActivityState"] == "Deleted").sum() == 1


def test_equal_values_are_accepted_by_default(serve: Callable[..., Any]) -> None:
    mews = serve()
    for _ in range(2):
        assert mews.post(ADD, VoucherCodeParameters=items(mews, "A", "A")).status_code == 200
    assert (mews.server.codes()["Value"] == "A").sum() == 4


def test_switch_refuses_equal_values_with_403(serve: Callable[..., Any]) -> None:
    mews = serve(duplicate_values="refused")
    assert mews.post(ADD, VoucherCodeParameters=items(mews, "A", "A")).status_code == 403
    assert mews.post(ADD, VoucherCodeParameters=items(mews, "A", "a")).status_code == 200
    assert mews.post(ADD, VoucherCodeParameters=items(mews, "B", "A")).status_code == 403
    elsewhere = {"VoucherId": mews.server.voucher_ids[1], "Value": "A"}
    assert mews.post(ADD, VoucherCodeParameters=[elsewhere]).status_code == 200
    codes = mews.server.codes()
    assert codes["Value"].tolist().count("A") == 2
    assert "B" not in codes["Value"].tolist()
    held = codes[(codes["Value"] == "A") & (codes["VoucherId"] == mews.server.voucher_ids[0])]
    assert mews.post(DELETE, VoucherCodeIds=held["Id"].tolist()).status_code == 200
    assert mews.post(ADD, VoucherCodeParameters=items(mews, "A")).status_code == 200


@pytest.fixture
def portfolio(serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]) -> Any:
    codes = codes_of(4)
    enterprises = ["00000000-0000-0000-0000-00000000e001", "00000000-0000-0000-0000-00000000e002"]
    vouchers = pd.DataFrame({"Id": codes["VoucherId"].tolist()[:2], "EnterpriseId": enterprises})
    mews = serve(codes, vouchers)
    mews.tokens["AccessToken"] = mews.server.portfolio_token
    mews.both = codes["VoucherId"].tolist()[:2]
    return mews


def test_portfolio_token_needs_the_enterprise_of_a_write(portfolio: Any) -> None:
    for operation in (ADD, DELETE):
        assert "EnterpriseId" in portfolio.post(operation).json()["Message"]
        unknown = portfolio.post(operation, EnterpriseId="00000000-0000-0000-0000-00000000dead")
        assert "Invalid EnterpriseId" in unknown.json()["Message"]
        assert portfolio.post(operation, EnterpriseId=portfolio.server.enterprise_ids[1]).status_code == 400
        assert portfolio.post(operation, EnterpriseId=portfolio.server.enterprise_ids[0]).status_code == 200


def test_portfolio_token_writes_to_each_enterprise(portfolio: Any) -> None:
    for enterprise, voucher in zip(portfolio.server.enterprise_ids, portfolio.both, strict=True):
        item = {"VoucherId": voucher, "Value": "P"}
        answer = portfolio.post(ADD, EnterpriseId=enterprise, VoucherCodeParameters=[item])
        assert answer.json()["VoucherCodes"][0]["VoucherId"] == voucher


def test_enterprise_is_ignored_with_a_single_token(portfolio: Any) -> None:
    token = {"AccessToken": portfolio.server.access_token}
    assert portfolio.post(ADD, **token, EnterpriseId=portfolio.server.enterprise_ids[1]).status_code == 200
    elsewhere = {"VoucherId": portfolio.both[1], "Value": "P"}
    assert portfolio.post(ADD, **token, VoucherCodeParameters=[elsewhere]).status_code == 400
    others = portfolio.server.codes().query("VoucherId == @portfolio.both[1]")["Id"].tolist()
    assert portfolio.post(DELETE, **token, VoucherCodeIds=others).status_code == 400


def test_colleagues_change_codes_directly(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve(keep_history=True)
    first, second, third, *_ = mews.server.codes()["Id"].tolist()
    clock.move(hours=1)
    mews.server.touch([first])
    mews.server.delete_codes([second, second])
    mews.server.change_window([third], None, LATER.to_pydatetime())
    (new,) = mews.server.add_codes([(mews.server.voucher_ids[0], "NEW")])
    codes = mews.server.codes().set_index("Id")
    assert (codes.loc[[first, second, third, new], "UpdatedUtc"] == LATER).all()
    assert (codes["UpdatedUtc"] == LATER).sum() == 4
    assert codes.loc[second, "ActivityState"] == "Deleted"
    assert codes.loc[third, "ValidityEndUtc"] == LATER
    assert pd.isna(codes.loc[third, "ValidityStartUtc"])
    assert codes.loc[new, ["Value", "ActivityState"]].tolist() == ["NEW", "Active"]
    history = mews.server.history()
    assert history["Id"].value_counts().loc[[first, second, third, new]].tolist() == [2, 2, 2, 1]


@pytest.mark.parametrize("ids", [["x"], ["00000000-0000-0000-0000-00000000dead"]])
def test_a_colleague_cannot_change_what_is_not_there(serve: Callable[..., Any], ids: list[str]) -> None:
    with pytest.raises(ValueError, match=ids[0]):
        serve().server.touch(ids)


def test_a_colleague_cannot_add_to_a_voucher_that_is_not_there(serve: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="There is no voucher 00000000"):
        serve().server.add_codes([("00000000-0000-0000-0000-00000000dead", "X")])
