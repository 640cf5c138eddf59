"""What is refused and how: each row of the contract's table of statuses, each rule of a body."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

UNKNOWN = "00000000-0000-0000-0000-00000000dead"
OPERATIONS = [
    "voucherCodes/getAll",
    "voucherCodes/add",
    "voucherCodes/delete",
    "enterprises/getAll",
    "services/getAll",
    "vouchers/getAll",
]
PAGED = [operation for operation in OPERATIONS if operation.endswith("getAll")]

GET_CODES = "voucherCodes/getAll"
ADD = "voucherCodes/add"
DELETE = "voucherCodes/delete"


def is_problem(answer: httpx.Response, status: int, message: str = "") -> bool:
    """Tell whether an answer is the API's error of this status."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["RequestId"] == answer.headers["Request-Id"]
    assert re.search(message, problem["Message"]), problem["Message"]
    return True


@pytest.mark.parametrize("operation", OPERATIONS)
def test_least_body_of_every_operation_succeeds(serve: Callable[..., Any], operation: str) -> None:
    assert serve().post(operation).status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_is_stamped(serve: Callable[..., Any], operation: str) -> None:
    mews = serve()
    answers = [mews.post(operation), mews.post(operation, Client=None), mews.http.post(f"{operation}/x")]
    assert [answer.status_code for answer in answers] == [200, 400, 404]
    for answer in answers:
        assert answer.headers["Date"] == "Mon, 09 Oct 2023 12:00:00 GMT"
        assert answer.headers["Vouchertools-Sandbox"] == mews.server.instance_id
        assert "server" not in answer.headers
    assert len({answer.headers["Request-Id"] for answer in answers}) == 3
    assert re.fullmatch("[0-9a-f]{8}", mews.server.instance_id)


@pytest.mark.parametrize("token", ["ClientToken", "AccessToken"])
@pytest.mark.parametrize("value", ["", "wrong", None, 5, ["x"]])
def test_bad_tokens_are_401(serve: Callable[..., Any], token: str, value: object) -> None:
    assert is_problem(serve().post(GET_CODES, **{token: value}), 401, f"Invalid {token}")


def test_tokens_are_checked_before_the_rest_of_the_body(serve: Callable[..., Any]) -> None:
    assert is_problem(serve().post(GET_CODES, AccessToken="wrong", VoucherIds=5), 401)


@pytest.mark.parametrize(
    "path",
    [
        "/api/connector/v1/voucherCodes/getall",
        "/api/connector/v1/vouchercodes/getAll",
        "/api/connector/v1/voucherCodes/getAll/",
        "/API/connector/v1/voucherCodes/getAll",
        "/voucherCodes/getAll",
        "/api/connector/v1/",
        "/",
    ],
)
def test_any_other_address_is_404(serve: Callable[..., Any], path: str) -> None:
    mews = serve()
    assert is_problem(mews.http.post(mews.server.address + path, json=mews.body(GET_CODES)), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_any_other_method_is_405(serve: Callable[..., Any], method: str) -> None:
    answer = serve().http.request(method, GET_CODES)
    assert is_problem(answer, 405)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
)
def test_another_content_type_is_400(serve: Callable[..., Any], media_type: str) -> None:
    mews = serve()
    content = json.dumps(mews.body(GET_CODES))
    answer = mews.http.post(GET_CODES, content=content, headers={"Content-Type": media_type})
    assert is_problem(answer, 400, "Invalid Content-Type")


def test_content_type_may_name_its_charset(serve: Callable[..., Any]) -> None:
    mews = serve()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert (
        mews.http.post(GET_CODES, content=json.dumps(mews.body(GET_CODES)), headers=headers).status_code
        == 200
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": 1,}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_invalid_json_is_400(serve: Callable[..., Any], content: bytes) -> None:
    answer = serve().http.post(GET_CODES, content=content, headers={"Content-Type": "application/json"})
    assert is_problem(answer, 400, "Invalid JSON")


INTERVAL = {"StartUtc": "2023-08-01T00:00:00Z", "EndUtc": "2023-11-01T00:00:00Z"}
BAD_TIMES = [
    "2023-08-01",
    "2023-08-01T00:00:00",
    "2023-13-01T00:00:00Z",
    "now",
    "",
    5,
    None,
    "0001-01-01T00:00:00+10:00",
]
BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    *((operation, {"Client": bad}, "Invalid Client") for operation in OPERATIONS for bad in (None, "", 5)),
    *((operation, {"LanguageCode": "en-US"}, "CultureCode") for operation in OPERATIONS),
    (GET_CODES, {"CultureCode": "en-US"}, "LanguageCode"),
    *(
        (operation, {"Limitation": bad}, "Invalid Limitation")
        for operation in PAGED
        for bad in (
            None,
            5,
            {},
            {"Count": 0},
            {"Count": 1001},
            {"Count": -1},
            {"Count": "10"},
            {"Count": True},
            {"Count": 1.5},
            {"Count": None},
            {"Count": 10, "Cursor": "x"},
            {"Count": 10, "Cursor": 5},
        )
    ),
    *((operation, {"Limitation": {"Count": 1, "Cursor": UNKNOWN}}, "Invalid Cursor") for operation in PAGED),
    *(
        (operation, {name: bad}, f"Invalid {name}")
        for operation, name in [
            (GET_CODES, "VoucherIds"),
            (GET_CODES, "VoucherCodeIds"),
            (GET_CODES, "EnterpriseIds"),
            (DELETE, "VoucherCodeIds"),
            ("enterprises/getAll", "EnterpriseIds"),
            ("services/getAll", "ServiceIds"),
            ("vouchers/getAll", "ServiceIds"),
            ("vouchers/getAll", "VoucherIds"),
        ]
        for bad in ([], [5], [None], ["x"], [UNKNOWN + "0"], UNKNOWN, {}, [UNKNOWN] * 1001)
    ),
    (GET_CODES, {"VoucherIds": None}, "Invalid VoucherIds"),
    (DELETE, {"VoucherCodeIds": None}, "Invalid VoucherCodeIds"),
    (DELETE, {"VoucherCodeIds": [UNKNOWN]}, "Invalid VoucherCodeIds"),
    ("vouchers/getAll", {"ServiceIds": None}, "Invalid ServiceIds"),
    *(("vouchers/getAll", {"Extent": bad}, "Invalid Extent") for bad in (None, [], {"Vouchers": "yes"})),
    *(
        ("vouchers/getAll", {"ActivityStates": bad}, "Invalid ActivityStates")
        for bad in ([], ["active"], "Active")
    ),
    *((GET_CODES, {"UpdatedUtc": bad}, "Invalid UpdatedUtc") for bad in (None, {}, [], "2023")),
    *((GET_CODES, {"UpdatedUtc": {**INTERVAL, "StartUtc": bad}}, "UpdatedUtc.StartUtc") for bad in BAD_TIMES),
    *((GET_CODES, {"UpdatedUtc": {**INTERVAL, "EndUtc": bad}}, "UpdatedUtc.EndUtc") for bad in BAD_TIMES),
    (GET_CODES, {"UpdatedUtc": {**INTERVAL, "EndUtc": "2023-07-31T23:59:59Z"}}, "later than EndUtc"),
    (GET_CODES, {"UpdatedUtc": {**INTERVAL, "EndUtc": "2023-11-01T00:00:01Z"}}, "longer than 3 months"),
    *((ADD, {"VoucherCodeParameters": bad}, "VoucherCodeParameters") for bad in (None, [], {}, [5], [{}])),
]


@pytest.mark.parametrize(("operation", "fields", "message"), BAD_FIELDS)
def test_each_broken_rule_of_a_body_is_400(
    serve: Callable[..., Any], operation: str, fields: dict[str, Any], message: str
) -> None:
    mews = serve()
    before = mews.server.codes()
    assert is_problem(mews.post(operation, **fields), 400, message)
    assert mews.server.codes().equals(before)


@pytest.mark.parametrize(
    "fields",
    [
        {"Value": None},
        {"Value": ""},
        {"Value": 7},
        {"Value": "x" * 129},
        {"Value": "\ud800"},
        {"VoucherId": None},
        {"VoucherId": "x"},
        {"VoucherId": UNKNOWN},
        *({"ValidityStartUtc": bad} for bad in BAD_TIMES if bad is not None),
        *({"ValidityEndUtc": bad} for bad in BAD_TIMES if bad is not None),
    ],
)
def test_one_bad_item_refuses_the_whole_addition(serve: Callable[..., Any], fields: dict[str, Any]) -> None:
    mews = serve()
    good = {"VoucherId": mews.server.voucher_ids[0], "Value": "x" * 128}
    assert is_problem(
        mews.post(ADD, VoucherCodeParameters=[good, {**good, **fields}]),
        400,
        f"Invalid .*{next(iter(fields))}",
    )
    assert len(mews.server.codes()) == 10
    assert mews.post(ADD, VoucherCodeParameters=[good]).status_code == 200


def test_more_than_1000_additions_are_refused(serve: Callable[..., Any]) -> None:
    mews = serve()
    item = {"VoucherId": mews.server.voucher_ids[0], "Value": "x"}
    assert is_problem(mews.post(ADD, VoucherCodeParameters=[item] * 1001), 400, "1000 items")
    assert mews.post(ADD, VoucherCodeParameters=[item] * 1000).status_code == 200


def test_unknown_fields_and_both_languages_are_welcome(serve: Callable[..., Any]) -> None:
    fields = {"LanguageCode": "en-US", "CultureCode": "en-GB", "MaskedAccessToken": "x", "Whatever": {"a": 1}}
    assert serve().post(GET_CODES, **fields).status_code == 200


@pytest.mark.parametrize("operation", [GET_CODES, ADD])
def test_a_body_above_the_limit_is_413(serve: Callable[..., Any], operation: str) -> None:
    mews = serve(max_body_bytes=100_000)
    assert is_problem(mews.post(operation, Padding="x" * 100_000), 413)
    assert mews.post(operation, Padding="x" * 90_000).status_code == 200


def test_no_message_repeats_a_token_or_a_value(serve: Callable[..., Any]) -> None:
    mews = serve(duplicate_values="refused")
    item = {"VoucherId": mews.server.voucher_ids[0], "Value": "SECRET-VALUE"}
    mews.post(ADD, VoucherCodeParameters=[item])
    answers = [
        mews.post(ADD, VoucherCodeParameters=[item]),
        mews.post(ADD, VoucherCodeParameters=[{**item, "Value": "SECRET-VALUE" * 20}]),
        mews.post(GET_CODES, AccessToken=mews.server.client_token),
        mews.post(GET_CODES, VoucherIds=mews.server.access_token),
    ]
    assert [answer.status_code for answer in answers] == [403, 400, 401, 400]
    for answer in answers:
        for secret in (mews.server.client_token, mews.server.access_token, "SECRET"):
            assert secret not in answer.text


def test_switch_makes_updated_utc_optional(serve: Callable[..., Any]) -> None:
    mews = serve(updated_required=False)
    assert len(mews.post(GET_CODES, UpdatedUtc=None).json()["VoucherCodes"]) == 10


@pytest.mark.parametrize(
    "preference", ["return=minimal", "respond-async, return=minimal", "RETURN = minimal; x=1"]
)
def test_an_empty_success_is_204_where_that_is_preferred(serve: Callable[..., Any], preference: str) -> None:
    mews = serve()
    headers = {"Prefer": preference}
    answers = [
        mews.post(GET_CODES, VoucherIds=[UNKNOWN], headers=headers),
        mews.post("vouchers/getAll", ServiceIds=[UNKNOWN], headers=headers),
        mews.post(DELETE, headers=headers),
    ]
    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 3
    assert mews.post(GET_CODES, headers=headers).status_code == 200
    assert mews.post(GET_CODES, VoucherIds=[UNKNOWN]).json() == {"VoucherCodes": [], "Cursor": None}


@pytest.mark.parametrize("preference", ["return=representation", "minimal"])
def test_another_preference_changes_nothing(serve: Callable[..., Any], preference: str) -> None:
    assert serve().post(DELETE, headers={"Prefer": preference}).json() == {}
