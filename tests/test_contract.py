"""The API on paper: ids, times, intervals, bodies, and what may be taken for a page."""

import json
import string
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vouchertools import contract
from vouchertools.contract import (
    COLUMNS,
    MAX_INTERVAL,
    MAX_ITEMS,
    SCHEMA,
    TIME_COLUMNS,
    Interval,
    Page,
    add_items,
    ceil_second,
    chunks,
    empty_table,
    floor_second,
    format_utc,
    get_all_body,
    intervals,
    parse_added,
    parse_object,
    parse_page,
    parse_records,
    require_ids,
    to_arrow,
    to_pandas,
    to_utc,
)
from vouchertools.errors import InputError, UnreadableAnswerError

ID, OTHER, VOUCHER = (str(UUID(int=i)) for i in (1, 2, 3))
CODE = {"Id": ID, "VoucherId": VOUCHER, "ActivityState": "Active"}
SECOND = timedelta(seconds=1)

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def page(*codes: dict[str, Any], cursor: Any = None, **more: Any) -> bytes:
    return json.dumps({"VoucherCodes": codes, "Cursor": cursor, **more}).encode()


def refused(content: bytes) -> str:
    with pytest.raises(UnreadableAnswerError) as caught:
        parse_page(content)
    return str(caught.value)


# ---- pages ----


@st.composite
def times(draw: st.DrawFn) -> tuple[str, datetime]:
    """A time as a server may write it, and what it means."""
    offset_min = draw(st.sampled_from([0, 0, 0, 60, 120, -300, 345, 840, -720]))
    local = draw(st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1))).replace(microsecond=0)
    digits = draw(st.text("0123456789", max_size=9))
    sign = "-" if offset_min < 0 else "+"
    offset = f"{sign}{abs(offset_min) // 60:02}:{abs(offset_min) % 60:02}" if offset_min else "Z"
    text = local.isoformat() + (f".{digits}" if digits else "") + offset
    instant = local.replace(tzinfo=timezone(timedelta(minutes=offset_min))).astimezone(UTC)
    return text, instant.replace(microsecond=int(digits[:6].ljust(6, "0")))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=130)
STATES = st.sampled_from(
    [
        ({"ActivityState": "Active"}, "Active"),
        ({"ActivityState": "Deleted"}, "Deleted"),
        ({"IsActive": True}, "Active"),
        ({"IsActive": False}, "Deleted"),
        ({"ActivityState": None, "IsActive": False}, "Deleted"),
        ({"ActivityState": "Active", "IsActive": True}, "Active"),
        ({"ActivityState": "Deleted", "IsActive": None}, "Deleted"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
UNKNOWN = st.dictionaries(
    st.text(string.ascii_letters, max_size=9).filter(
        lambda name: name not in (*COLUMNS, "IsActive", "VoucherCodes", "Cursor")
    ),
    JSON,
    max_size=3,
)


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A code as a server may write it, and the row that it stands for."""
    state, means = draw(STATES)
    sent = {"Id": str(draw(st.uuids())), "VoucherId": str(draw(st.uuids())), **state}
    row = {"Id": sent["Id"], "VoucherId": sent["VoucherId"], "ActivityState": means}
    if draw(st.booleans()):
        sent["Value"] = draw(st.none() | TEXTS)
    row["Value"] = sent.get("Value")
    for name in TIME_COLUMNS:
        choice = draw(st.sampled_from(["time", "null", "absent"]))
        row[name] = None
        if choice == "time":
            sent[name], row[name] = draw(times())
        elif choice == "null":
            sent[name] = None
    sent |= draw(UNKNOWN)
    return dict(draw(st.permutations(list(sent.items())))), {name: row[name] for name in COLUMNS}


@calm
@given(
    st.lists(records(), max_size=8),
    st.none() | st.uuids().map(str),
    UNKNOWN,
    st.sampled_from([None, 2]),
    st.booleans(),
    st.sampled_from([b"", b"\xef\xbb\xbf", b" \r\n"]),
)
def test_every_field_of_a_page_arrives_whatever_else_the_server_sends(
    codes: list[tuple[dict[str, Any], dict[str, Any]]],
    cursor: str | None,
    unknown: dict[str, Any],
    indent: int | None,
    ascii_only: bool,
    start: bytes,
) -> None:
    body = {"VoucherCodes": [sent for sent, _ in codes], "Cursor": cursor, **unknown}
    content = start + json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode() + b"\n"
    got = parse_page(content)
    assert got.table.schema.equals(SCHEMA)
    assert got.table.to_pylist() == [row for _, row in codes]
    assert got.cursor == cursor
    assert len(got) == len(codes)


def test_a_page_cut_off_anywhere_is_never_taken_for_a_page() -> None:
    time = {"UpdatedUtc": "2024-01-01T00:00:00.1234567Z", "Value": "Ä\n😀", "Unknown": {"a": [1]}}
    body = {"VoucherCodes": [{**CODE, **time}, {**CODE, "Id": OTHER}], "Cursor": OTHER}
    for content in (json.dumps(body).encode(), json.dumps(body, indent=1, ensure_ascii=False).encode()):
        assert len(parse_page(content)) == 2
        for end in range(len(content)):
            with pytest.raises(UnreadableAnswerError):
                parse_page(content[:end])


@settings(calm, max_examples=500)
@given(st.data())
def test_damaged_bytes_are_a_page_or_an_error_and_nothing_else(data: st.DataObject) -> None:
    content = page({**CODE, "Value": "x", "CreatedUtc": "2024-01-01T00:00:00Z", "IsActive": True}, cursor=ID)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    damage = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"null", b"{}", b"[]", b'""', b"1", b"{", b'"', b",", b"\0"])
    )
    try:
        got = parse_page(content[:start] + damage + content[end:])
    except UnreadableAnswerError:
        return
    got.table.validate(full=True)
    assert isinstance(got, Page)


@pytest.mark.parametrize(
    "content",
    [
        b"null",
        b" null ",
        b"true",
        b"5",
        b'"text"',
        b"",
        b"  \n",
        b"\xef\xbb\xbf",
        b"[]",
        b"<!DOCTYPE html><html><body>Bad gateway</body></html>",
    ],
)
def test_what_is_no_json_object_is_refused_without_being_quoted(content: bytes) -> None:
    for parse in (parse_page, parse_added, parse_object):
        with pytest.raises(
            UnreadableAnswerError, match=r"is no JSON object but (an HTML|something|empty)"
        ) as caught:
            parse(content)
        assert "gateway" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        page(CODE) + page(CODE),
        page(CODE) + b"\n" + page({**CODE, "Id": OTHER}),
        page(CODE) + b" null",
        page(CODE) + b" []",
        page(CODE) + b"x",
        page(CODE) + b"\0",
        page(CODE).decode().encode("utf-16"),
        b"{}",
        b'{"VoucherCodes": null, "Cursor": null}',
        b'{"VoucherCodes": {}, "Cursor": null}',
        b'{"VoucherCodes": "", "Cursor": null}',
        b'{"VoucherCodes": [1], "Cursor": null}',
        b'{"VoucherCodes": [[]], "Cursor": null}',
        b'{"VoucherCodes": [null], "Cursor": null}',
        b'{"VoucherCodes": [], "VoucherCodes": [], "Cursor": null}',
        b'{"Vouchers": [], "Cursor": null}',
        b'{"Message": "Something", "RequestId": "r"}',
        page(CODE, cursor=5),
        page(CODE, cursor={}),
        page(CODE, cursor=[ID]),
        page(CODE).replace(b'"Id"', b'"VoucherId"', 1),
        page(CODE).replace(b"}]", b"},]"),
        page(CODE).replace(b'"ActivityState"', b"ActivityState"),
        page(CODE).replace(b"}]", b',"Big":1e999}]'),
    ],
)
def test_json_of_another_shape_is_never_taken_for_a_page(content: bytes) -> None:
    refused(content)


@pytest.mark.parametrize("field", [*COLUMNS, "IsActive"])
@pytest.mark.parametrize("value", [5, 1.5, {}, ["x"], True, "text"])
def test_a_field_of_another_type_is_refused_by_name(field: str, value: Any) -> None:
    right = (isinstance(value, bool) and field == "IsActive") or (
        isinstance(value, str) and field in ("Id", "VoucherId", "Value")
    )
    content = page({**CODE, field: value})
    if right:
        assert len(parse_page(content)) == 1
    else:
        assert field in refused(content)


def test_a_wrong_field_is_named_behind_times_that_are_finer_than_arrow_reads() -> None:
    fine = {**CODE, "UpdatedUtc": "2024-01-01T00:00:00.1234567Z"}
    assert "Value" in refused(page(fine, {**fine, "Value": 5}))


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("Id", f"a code of voucher {VOUCHER} has no Id"),
        ("VoucherId", f"code {ID} has no VoucherId"),
        ("ActivityState", f"code {ID} has neither ActivityState nor IsActive"),
    ],
)
def test_a_missing_required_field_is_named_with_its_code(field: str, message: str, null: bool) -> None:
    code = {name: value for name, value in CODE.items() if name != field} | ({field: None} if null else {})
    assert message in refused(page({**CODE, "Id": OTHER}, code))


@pytest.mark.parametrize(("state", "is_active"), [("Active", False), ("Deleted", True)])
def test_two_states_that_contradict_each_other_are_named_with_their_code(state: str, is_active: bool) -> None:
    wrong = {**CODE, "ActivityState": state, "IsActive": is_active}
    message = refused(page({**CODE, "Id": OTHER, "IsActive": True}, wrong))
    assert f"code {ID} has an ActivityState that contradicts its IsActive" in message


@pytest.mark.parametrize("state", ["active", "Archived", "", "ACTIVE"])
def test_a_state_that_nobody_knows_is_named_with_its_code(state: str) -> None:
    assert f"code {ID} has an ActivityState that is neither" in refused(
        page({**CODE, "ActivityState": state})
    )


@pytest.mark.parametrize("where", ["Id", "VoucherId", "Value", "Cursor", "Unknown", "UpdatedUtc"])
def test_invalid_utf8_is_refused_wherever_it_stands(where: str) -> None:
    content = page(
        {**CODE, "Value": "x", "Unknown": "u", where: "@@"}, cursor="@@" if where == "Cursor" else None
    )
    assert "not valid UTF-8 at byte" in refused(content.replace(b"@@", b"\xff\xfe"))


def test_invalid_utf8_beside_a_missing_field_is_refused_too() -> None:
    assert "UTF-8" in refused(page({"VoucherId": "@@", "ActivityState": "Active"}).replace(b"@@", b"\xff"))


def test_half_a_surrogate_pair_is_refused() -> None:
    refused(page({**CODE, "Value": "@@"}).replace(b"@@", b"\\ud800"))


@pytest.mark.parametrize(
    "text", ["soon", "", "2024-13-01T00:00:00Z", "2024-01-01T25:00:00Z", "2023-02-29T00:00:00Z", "1704067200"]
)
@pytest.mark.parametrize("field", TIME_COLUMNS)
def test_what_is_no_time_is_named_with_its_code_and_field(field: str, text: str) -> None:
    message = refused(
        page({**CODE, "Id": OTHER, field: "2024-01-01T00:00:00.1234567Z"}, {**CODE, field: text})
    )
    assert f"code {ID} has {field} {text!r}, which is no time" in message


@pytest.mark.parametrize("other", ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.1234567Z"])
def test_a_time_without_an_offset_is_utc_however_fine_the_others_are(other: str) -> None:
    codes = ({**CODE, "CreatedUtc": "2024-01-02T03:04:05"}, {**CODE, "CreatedUtc": other})
    created = parse_page(page(*codes)).table.column("CreatedUtc").to_pylist()
    assert created[0] == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_times_reach_from_the_first_year_to_the_last() -> None:
    code = {
        **CODE,
        "ValidityStartUtc": "0001-01-01T00:00:00Z",
        "ValidityEndUtc": "9999-12-31T23:59:59.9999999Z",
    }
    frame = to_pandas(parse_page(page(code)).table)
    assert str(frame["ValidityStartUtc"][0]) == "0001-01-01 00:00:00+00:00"
    assert str(frame["ValidityEndUtc"][0]) == "9999-12-31 23:59:59.999999+00:00"


def test_deep_unknown_fields_do_no_harm() -> None:
    content = page({**CODE, "Unknown": "@@"}).replace(b'"@@"', b"[" * 5000 + b"]" * 5000)
    assert len(parse_page(content)) == 1


def test_a_page_as_a_frame_has_the_dtypes_of_any_other_even_without_codes() -> None:
    full = to_pandas(parse_page(page({**CODE, "CreatedUtc": "2024-01-01T00:00:00Z"})).table)
    for frame in (to_pandas(empty_table()), to_pandas(parse_page(page()).table), full):
        assert tuple(frame.columns) == COLUMNS
        assert isinstance(frame.index, pd.RangeIndex)
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
            name: "datetime64[us, UTC]" if name in TIME_COLUMNS else "str" for name in COLUMNS
        }


@calm
@given(st.lists(records(), max_size=5))
def test_codes_go_through_a_frame_and_back(codes: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    table = parse_page(page(*(sent for sent, _ in codes))).table
    frame = to_pandas(table)
    frame.attrs["environment"] = "sandbox"
    frame["Further"] = 1
    assert to_arrow(frame.iloc[::-1]).equals(table.take(pa.array(range(len(codes) - 1, -1, -1), pa.int64())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Value": [5]}, "dtypes of voucher codes"),
        ({"CreatedUtc": ["soon"]}, "dtypes of voucher codes"),
        ({"Id": None}, "lacks the column Id"),
    ],
)
def test_a_frame_that_holds_no_codes_is_refused(change: dict[str, Any], message: str) -> None:
    frame = to_pandas(parse_page(page(CODE)).table)
    for name, values in change.items():
        frame = frame.drop(columns=name) if values is None else frame.assign(**{name: values})
    with pytest.raises(InputError, match=message):
        to_arrow(frame)


# ---- enterprises, services, vouchers ----


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "no list Vouchers"),
        ({"Vouchers": None}, "no list Vouchers"),
        ({"Vouchers": {}}, "no list Vouchers"),
        ({"Vouchers": [5]}, "has no Id"),
        ({"Vouchers": [{}]}, "has no Id"),
        ({"Vouchers": [{"Id": None}]}, "has no Id"),
        ({"Vouchers": [], "Cursor": 5}, "Cursor that is no text"),
        ({"Vouchers": [], "Cursor": []}, "Cursor that is no text"),
    ],
)
def test_records_of_another_shape_are_refused(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=message):
        parse_records(json.dumps(answer).encode(), "Vouchers")


def test_records_come_with_their_cursor() -> None:
    content = json.dumps({"Vouchers": [{"Id": ID}], "Cursor": ID, "New": 1}).encode()
    assert parse_records(content, "Vouchers") == ([{"Id": ID}], ID)
    assert parse_records(b'{"Vouchers": []}', "Vouchers") == ([], None)


def test_json_too_deep_to_read_is_an_answer_that_cannot_be_read() -> None:
    with pytest.raises(UnreadableAnswerError):
        parse_object(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


# ---- intervals and times ----

INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@calm
@given(INSTANTS, INSTANTS)
def test_intervals_cover_any_range_share_their_boundaries_and_are_short_enough(
    a: datetime, b: datetime
) -> None:
    since, until = min(a, b), max(a, b)
    cut = intervals(since, until)
    assert cut[0].start <= since < cut[0].start + SECOND
    assert cut[-1].end - SECOND < until <= cut[-1].end
    assert all(left.end == right.start for left, right in pairwise(cut))
    assert all(timedelta(0) <= part.end - part.start <= MAX_INTERVAL for part in cut)
    assert len(cut) == 1 or all(part.seconds > 0 for part in cut)
    assert all(part.start.microsecond == part.end.microsecond == 0 for part in cut)
    assert all("." not in text for part in cut for text in part.body().values())


def test_no_interval_is_longer_than_the_shortest_three_months() -> None:
    starts = pd.date_range("2023-01-01", "2028-01-01", freq="D")
    assert min((starts + pd.DateOffset(months=3)) - starts) > MAX_INTERVAL


def test_an_instant_is_an_interval_of_its_own() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert intervals(noon, noon) == [Interval(noon, noon)]


@calm
@given(INSTANTS)
def test_floor_and_ceil_are_the_whole_seconds_on_either_side(instant: datetime) -> None:
    floor, ceil = floor_second(instant), ceil_second(instant)
    assert floor.microsecond == ceil.microsecond == 0
    assert floor <= instant <= ceil
    assert ceil - floor == (SECOND if instant.microsecond else timedelta(0))


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T00:00:00Z"),
        (datetime(2024, 5, 1, 0, 0, 0, 500_000, tzinfo=UTC), "2024-05-01T00:00:00.500000Z"),
        (pd.Timestamp("2023-10-10", tz="Europe/Prague"), "2023-10-09T22:00:00Z"),
        (pd.Timestamp("2024-05-01T00:00:00.123456789Z"), "2024-05-01T00:00:00.123456Z"),
        ("2024-05-01T02:00:00+02:00", "2024-05-01T00:00:00Z"),
        ("0800-12-25T00:00:00Z", "0800-12-25T00:00:00Z"),
    ],
)
def test_instants_are_written_as_the_api_writes_them(instant: Any, text: str) -> None:
    assert format_utc(instant) == text


@pytest.mark.parametrize(
    ("instant", "message"),
    [
        (datetime(2024, 5, 1), "no time zone"),
        (pd.Timestamp("2024-05-01"), "no time zone"),
        (np.datetime64("2024-05-01"), "no time zone"),
        ("2024-05-01", "no time zone"),
        ("now", "no time zone"),
        (0, "no time zone"),
        ("soon", "no point in time"),
        (True, "no point in time"),
        ([1], "no point in time"),
        (10**30, "no point in time"),
        (None, "is empty"),
        (pd.NaT, "is empty"),
        (float("nan"), "is empty"),
        ("9999-12-31T23:59:59-05:00", "years 1 to 9999"),
        ("0001-01-01T00:00:00+05:00", "years 1 to 9999"),
    ],
)
def test_what_is_no_aware_instant_is_refused_by_the_name_of_its_argument(instant: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^since.*{message}"):
        to_utc(instant, "since")


# ---- ids ----


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "ids is empty, which never means all"),
        (iter([]), "ids is empty"),
        (pd.DataFrame({"Id": []}), "ids is empty"),
        (ID, "must be a list of ids, not str"),
        (5, "must be a list of ids, not int"),
        (None, "must be a list of ids, not NoneType"),
        ([ID, "no-uuid"], "'no-uuid' at position 1 is no UUID"),
        ([ID, OTHER, None], "'None' at position 2"),
        (pd.Series([ID, float("nan")]), "'nan' at position 1"),
        (pd.DataFrame({"Id": [ID, None]}), "'nan' at position 1"),
        ([5], "'5' at position 0"),
        ([f"{ID} "], "at position 0"),
        ([f"{ID}\n"], "at position 0"),
        ([ID.replace("-", "")], "at position 0"),
        (["x" * 5000], "at position 0"),
        ([[ID]], "at position 0"),
        (pd.DataFrame({"Name": ["x"]}), "lacks the column Id; it has Name"),
    ],
)
def test_ids_that_cannot_be_used_are_named_with_their_position(ids: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        require_ids(ids, "ids")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "ids",
    [
        [ID, OTHER],
        (ID, OTHER),
        iter([ID, OTHER]),
        {ID: 1, OTHER: 2},
        [UUID(ID), OTHER],
        [ID, OTHER, ID],
        np.array([ID, OTHER]),
        pd.Series([ID, OTHER], index=[7, 7]),
        pd.Index([ID, OTHER]),
        pd.DataFrame({"Name": ["b", "a"], "Id": [ID, OTHER]}),
    ],
)
def test_ids_come_in_any_kind_of_list_and_keep_their_order(ids: Any) -> None:
    assert require_ids(ids, "ids") == [ID, OTHER]


def test_ids_keep_their_spelling_and_repeat_in_no_case() -> None:
    upper = "ABCDEF00-0000-4000-8000-00000000000A"
    assert require_ids([upper, upper.lower()], "ids") == [upper]


def test_any_number_of_ids_is_taken() -> None:
    ids = [str(uuid4()) for _ in range(2_500)]
    assert require_ids(ids, "ids") == ids


def test_a_frame_of_codes_is_not_taken_for_vouchers() -> None:
    codes = pd.DataFrame({"Id": [ID], "VoucherId": [VOUCHER]})
    with pytest.raises(InputError, match="frame of codes"):
        require_ids(codes, "voucher_ids")
    assert require_ids(codes, "voucher_code_ids") == [ID]


@calm
@given(st.integers(0, 3_500), st.integers(1, 1_200))
def test_chunks_are_full_but_for_the_last_and_lose_nothing(n: int, size: int) -> None:
    pieces = [list(piece) for piece in chunks(range(n), size)]
    assert [item for piece in pieces for item in piece] == list(range(n))
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(0 < len(piece) <= size for piece in pieces)
    assert all(len(piece) <= MAX_ITEMS for piece in chunks(range(n)))


# ---- bodies ----


def test_a_body_holds_what_is_asked_and_nothing_else() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    least = get_all_body(
        [VOUCHER], updated=None, voucher_code_ids=None, enterprise_ids=None, count=7, cursor=None
    )
    assert least == {"Limitation": {"Count": 7}, "VoucherIds": [VOUCHER]}
    most = get_all_body(
        [VOUCHER],
        updated=Interval(noon, noon + SECOND),
        voucher_code_ids=[ID],
        enterprise_ids=[OTHER],
        count=1000,
        cursor=ID,
    )
    assert most == {
        "Limitation": {"Count": 1000, "Cursor": ID},
        "VoucherIds": [VOUCHER],
        "UpdatedUtc": {"StartUtc": "2024-01-01T12:00:00Z", "EndUtc": "2024-01-01T12:00:01Z"},
        "VoucherCodeIds": [ID],
        "EnterpriseIds": [OTHER],
    }


def rows(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"VoucherId": [VOUCHER, VOUCHER], "Value": ["A", "B"], **columns})


def test_windows_to_add_are_written_in_utc_and_open_sides_left_out() -> None:
    prague = pd.to_datetime(["2023-10-10", None]).tz_localize("Europe/Prague")
    ends = [datetime(2024, 1, 1, tzinfo=UTC), "2024-01-02T00:00:00+01:00"]
    assert add_items(rows(ValidityStartUtc=prague, ValidityEndUtc=ends, Note=["x", "y"])) == [
        {
            "VoucherId": VOUCHER,
            "Value": "A",
            "ValidityStartUtc": "2023-10-09T22:00:00Z",
            "ValidityEndUtc": "2024-01-01T00:00:00Z",
        },
        {"VoucherId": VOUCHER, "Value": "B", "ValidityEndUtc": "2024-01-01T23:00:00Z"},
    ]


@pytest.mark.parametrize("value", ["x", " x ", "Ä😀", "0012", "x" * contract.MAX_VALUE_LENGTH, '"', "a\nb"])
def test_values_to_add_are_sent_as_they_are(value: str) -> None:
    assert [item["Value"] for item in add_items(rows(Value=[value, "B"]))] == [value, "B"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Value": ["A", ""]}, "row 1: Value must be text of 1 to 128 characters, not 0 characters"),
        ({"Value": ["A", "x" * 129]}, "row 1: Value must be .* not 129 characters"),
        ({"Value": ["A", None]}, "row 1: Value must be"),
        ({"Value": [12, 13]}, "row 0: Value must be .* not int"),
        ({"Value": [0.5, 1.5]}, "row 0: Value must be .* not float"),
        ({"VoucherId": [VOUCHER, None]}, "row 1: VoucherId 'nan' is no UUID"),
        ({"VoucherId": ["x", VOUCHER]}, "row 0: VoucherId 'x' is no UUID"),
        ({"VoucherId": [7, 8]}, "row 0: VoucherId '7' is no UUID"),
        ({"ValidityStartUtc": pd.to_datetime(["2024-01-01", None])}, "row 0: ValidityStartUtc.*no time zone"),
        ({"ValidityEndUtc": [None, "soon"]}, "row 1: ValidityEndUtc.*no point in time"),
        ({"ValidityEndUtc": [None, "2024-01-01"]}, "row 1: ValidityEndUtc.*no time zone"),
    ],
)
def test_a_row_that_cannot_be_added_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        add_items(rows(**changes))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"VoucherId": [VOUCHER]}), "rows lacks the column Value"),
        (pd.DataFrame({"Code": ["x"]}), "rows lacks the columns VoucherId, Value; it has Code"),
        (pd.DataFrame(), "it has none"),
        ([{"VoucherId": VOUCHER, "Value": "x"}], "rows must be a pandas DataFrame, not list"),
        (None, "must be a pandas DataFrame"),
    ],
)
def test_what_is_no_frame_of_rows_is_refused(frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        add_items(frame)
