"""The operations of the API against the sandbox: results, refusals, repetitions, the request limit."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
import pytest
from support import HandClock, make_codes

import vouchertools as vt
from vouchertools.contract import COLUMNS, TIME_COLUMNS, Interval, to_pandas, to_utc
from vouchertools.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InputError,
    NoAnswerError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    ServerTimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnreadableAnswerError,
)
from vouchertools.pace import Retry, Time

MONTHS = ("2023-01-01T00:00:00Z", "2023-03-01T00:00:00Z")
GET, ADD, DELETE = "voucherCodes/getAll", "voucherCodes/add", "voucherCodes/delete"
#: Every row of the contract's table that is a failure.
STATUSES = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: NotFoundError,
    408: ServerTimeoutError,
    409: ConflictError,
    413: TooLargeError,
    429: RateLimitedError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
}
#: What may pass by itself, and how often a read is then tried.
PASSING = {"408": 8, "429": 8, "429-bare": 8, "500": 8, "503": 8, "500-after": 8}
UNANSWERED = dict.fromkeys(("lost-before", "lost-after", "truncated", "garbled", "not-json"), 5)
LASTING = dict.fromkeys(("400", "401", "403", "404", "409", "413"), 1)


@contextmanager
def served(
    codes: pd.DataFrame | None = None, **switches: Any
) -> Iterator[tuple[vt.Sandbox, vt.Client, HandClock]]:
    """A sandbox and its client on one clock that moves only when somebody waits."""
    clock = HandClock()
    codes = make_codes(10, days=30) if codes is None else codes
    options = {"clock": clock, "rate_clock": "sandbox"} | switches
    with vt.Sandbox(codes, **options) as sandbox, sandbox.client(clock=clock) as client:
        yield sandbox, client, clock


def read(sandbox: vt.Sandbox, client: vt.Client) -> Any:
    return client.get_all(sandbox.voucher_ids, updated=MONTHS)


def add(sandbox: vt.Sandbox, client: vt.Client, n: int = 1, **more: Any) -> pd.DataFrame:
    values = [f"NEW-{i}" for i in range(n)]
    return client.add(pd.DataFrame({"VoucherId": sandbox.voucher_ids[0], "Value": values, **more}))


def delete(sandbox: vt.Sandbox, client: vt.Client) -> None:
    client.delete(active(sandbox).head(1))


def active(sandbox: vt.Sandbox) -> pd.DataFrame:
    codes = sandbox.codes()
    return codes[codes["ActivityState"] == "Active"]


def sent(sandbox: vt.Sandbox, operation: str) -> int:
    return sum(request.operation == operation for request in sandbox.requests)


ACTS: dict[str, Callable[[vt.Sandbox, vt.Client], Any]] = {GET: read, ADD: add, DELETE: delete}


# ---- every failure is a typed error, and only reads are repeated ----


@pytest.mark.parametrize("operation", ACTS)
@pytest.mark.parametrize("status", STATUSES)
def test_each_status_is_its_typed_error_with_message_request_id_and_retry_after(
    status: int, operation: str
) -> None:
    with served() as (sandbox, _, clock):
        sandbox.faults.retry_after_s = 33
        sandbox.faults.next(operation, str(status))
        with sandbox.client(clock=clock, retry=Retry(attempts=1)) as client:
            with pytest.raises(STATUSES[status]) as caught:
                ACTS[operation](sandbox, client)
            error = caught.value
            assert type(error) is STATUSES[status]
            assert isinstance(error, ApiError)
            assert error.status_code == status
            if status in (502, 503):
                assert error.message == f"{operation} was answered with an HTML page."
            else:
                assert error.message == f"Injected fault {status}."
            assert UUID(error.request_id)
            assert error.request_id == client.last_request_id
            assert error.retry_after == (33.0 if status == 429 else None)
        assert sent(sandbox, operation) == 1


@pytest.mark.parametrize(("fault", "times"), (PASSING | UNANSWERED | LASTING).items())
def test_reads_are_repeated_as_long_as_it_makes_sense_and_no_longer(fault: str, times: int) -> None:
    with served(rate_limit=None) as (sandbox, client, _):
        sandbox.faults.next(GET, *[fault] * (times - 1))
        if times > 1:
            assert len(read(sandbox, client)) == 10
            assert sent(sandbox, GET) == times
        sandbox.faults.off()
        before = sent(sandbox, GET)
        sandbox.faults.next(GET, *[fault] * times)
        with pytest.raises(ApiError):
            read(sandbox, client)
        assert sent(sandbox, GET) - before == times


@pytest.mark.parametrize("act", [add, delete])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("400", BadRequestError),
        ("401", UnauthorizedError),
        ("403", ForbiddenError),
        ("404", NotFoundError),
        ("408", ServerTimeoutError),
        ("408-after", ServerTimeoutError),
        ("409", ConflictError),
        ("413", TooLargeError),
        ("500", ServerError),
        ("500-after", ServerError),
        ("503", ServerError),
        ("lost-before", NoAnswerError),
        ("lost-after", NoAnswerError),
        ("truncated", UnreadableAnswerError),
        ("not-json", UnreadableAnswerError),
    ],
)
def test_a_write_is_never_repeated_once_it_may_have_acted(
    act: Callable[..., Any], fault: str, kind: type[ApiError]
) -> None:
    with served() as (sandbox, client, clock):
        before = sandbox.codes()
        sandbox.faults.next("voucherCodes/*", fault)
        with pytest.raises(kind) as caught:
            act(sandbox, client)
        assert type(caught.value) is kind
        assert len(sandbox.requests) == 1
        assert clock.waits == []
        acted = fault.endswith("-after") or fault in ("truncated", "not-json")
        assert sandbox.codes().equals(before) == (not acted)


@pytest.mark.parametrize("act", [add, delete])
@pytest.mark.parametrize("fault", ["429", "429-bare"])
def test_a_write_is_repeated_after_a_429_and_acts_once(act: Callable[..., Any], fault: str) -> None:
    with served() as (sandbox, client, _):
        codes, usable = len(sandbox.codes()), len(active(sandbox))
        sandbox.faults.next("voucherCodes/*", *[fault] * 3)
        act(sandbox, client)
        assert len(sandbox.requests) == 4
        assert len(sandbox.codes()) - codes == (1 if act is add else 0)
        assert len(active(sandbox)) - usable == (1 if act is add else -1)


def test_wrong_tokens_stop_after_one_request() -> None:
    with served() as (sandbox, _, clock):
        for tokens in ((sandbox.client_token, "wrong"), ("wrong", sandbox.access_token)):
            with vt.Client(sandbox.address, *tokens, clock=clock) as client:
                for act in (read, add, delete):
                    before = len(sandbox.requests)
                    with pytest.raises(UnauthorizedError, match="Check MEWS_CLIENT_TOKEN") as caught:
                        act(sandbox, client)
                    assert len(sandbox.requests) == before + 1
                    assert caught.value.request_id
        assert clock.waits == []


def test_a_wrong_platform_address_is_not_found() -> None:
    with served() as (sandbox, client, _):
        wire: Any = client._wire
        wire.address += "/elsewhere"
        with pytest.raises(NotFoundError, match="Check MEWS_PLATFORM_ADDRESS"):
            read(sandbox, client)
        assert len(sandbox.requests) == 1


def test_a_body_that_is_too_large_says_to_send_less() -> None:
    with served(max_body_bytes=5_000) as (sandbox, client, _):
        with pytest.raises(TooLargeError, match="Send smaller batches"):
            add(sandbox, client, 200)
        assert len(add(sandbox, client, 2)) == 2


def test_a_timeout_of_a_write_is_no_answer_and_may_act_later() -> None:
    with served() as (sandbox, _, clock), sandbox.client(clock=clock, timeout=0.2) as client:
        codes = len(sandbox.codes())
        sandbox.faults.next(ADD, "hang")
        with pytest.raises(NoAnswerError, match="No answer from 127"):
            add(sandbox, client)
        assert len(sandbox.requests) == 1
        assert sandbox.faults.release() == 1
        assert len(sandbox.codes()) == codes + 1


# ---- waiting, and the request limit ----


def test_retry_after_is_waited_for_first() -> None:
    with served() as (sandbox, client, clock):
        sandbox.faults.retry_after_s = 17
        sandbox.faults.next(GET, "429", "429")
        read(sandbox, client)
        assert clock.waits == [17.0, 17.0]


def test_without_retry_after_the_waits_grow() -> None:
    with served() as (sandbox, client, clock):
        sandbox.faults.next(GET, *["429-bare"] * 6)
        read(sandbox, client)
        waits = [wait for wait in clock.waits if wait > 1e-6]  # what rounding left of one is waited for again
        assert len(waits) == 6
        assert waits == sorted(waits)
        assert waits[-1] > 7.9


@pytest.mark.parametrize("retry_after", [True, False])
def test_another_program_on_the_same_token_is_outwaited(retry_after: bool) -> None:
    with served(rate_limit=(20, 30.0), retry_after=retry_after) as (sandbox, client, clock):
        with sandbox.client(clock=clock) as greedy:
            for _ in range(20):
                read(sandbox, greedy)
        assert len(read(sandbox, client)) == 10
        assert clock.elapsed >= 30.0
        refused = sum(request.status == 429 for request in sandbox.requests)
        assert refused == 1 if retry_after else 1 < refused <= 7


def test_one_client_stays_within_the_limit_of_mews_and_uses_nearly_all_of_it() -> None:
    with served(rate_limit=(200, 30.0)) as (sandbox, client, clock):
        for _ in range(600):
            client.get_all(sandbox.voucher_ids, updated=MONTHS, count=1)
        assert all(request.status == 200 for request in sandbox.requests)
        assert clock.elapsed == 90.0


def test_threads_share_the_limit_never_break_it_and_use_it() -> None:
    limit, period_s, n = 20, 0.5, 120
    codes = make_codes(10, days=30)
    with (
        vt.Sandbox(codes, rate_limit=(limit, period_s)) as sandbox,
        sandbox.client(rate_limit=(limit, period_s)) as client,
    ):
        read(sandbox, client)  # connections and imports
        sandbox.faults.latency_ms = (0.0, 40.0)
        began = time.monotonic()
        with ThreadPoolExecutor(12) as threads:
            pages = list(threads.map(lambda _: read(sandbox, client), range(n)))
        elapsed_s = time.monotonic() - began
        assert all(len(page) == 10 for page in pages)
        assert [request.status for request in sandbox.requests] == [200] * (n + 1)
        assert elapsed_s >= (n - limit) / limit * period_s
        assert elapsed_s < 20, "the limit is far from used"


class Gate(Time):
    """Time that stands until a test moves it; it remembers which threads wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: dict[str, int] = {}

    def monotonic(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        name = threading.current_thread().name
        self.looks[name] = self.looks.get(name, 0) + 1
        condition.wait(0.002)

    def let_wait(self, n: int) -> None:
        """Return when `n` threads wait, and have looked again since."""
        end = time.monotonic() + 20
        self.looks.clear()
        while len(self.looks) < n or min(self.looks.values()) < 3:
            assert time.monotonic() < end
            threading.Event().wait(0.002)


def test_a_429_holds_every_thread_until_retry_after_is_over() -> None:
    clock = Gate()
    with vt.Sandbox(make_codes(10, days=30)) as sandbox, sandbox.client(clock=clock) as client:
        sandbox.faults.retry_after_s = 7
        sandbox.faults.next(GET, "429")
        with ThreadPoolExecutor(5) as threads:
            pages = [threads.submit(read, sandbox, client)]
            clock.let_wait(1)
            pages += [threads.submit(read, sandbox, client) for _ in range(4)]
            clock.let_wait(5)
            clock.now = 6.99
            clock.let_wait(5)
            assert len(sandbox.requests) == 1
            clock.now = 7.0
            assert [len(page.result(20)) for page in pages] == [10] * 5
        assert len(sandbox.requests) == 6


def test_after_a_429_the_next_request_never_leaves_at_once_even_if_nobody_repeats() -> None:
    with served() as (sandbox, client, clock):
        sandbox.faults.retry_after_s = 3600
        sandbox.faults.next(GET, "429")
        with pytest.raises(RateLimitedError) as caught:
            read(sandbox, client)
        assert caught.value.retry_after == 3600.0
        assert clock.waits == []
        read(sandbox, client)
        assert clock.waits == [0.25]


# ---- getAll ----


def test_pages_follow_each_other_by_their_cursor() -> None:
    with served(make_codes(25, days=30)) as (sandbox, client, _):
        tables, cursor = [], None
        for expected in (10, 10, 5):
            page = client.get_all(sandbox.voucher_ids, updated=MONTHS, count=10, cursor=cursor)
            assert len(page) == expected
            assert page.cursor == page.table.column("Id")[-1].as_py()
            tables.append(to_pandas(page.table))
            cursor = page.cursor
        last = client.get_all(sandbox.voucher_ids, updated=MONTHS, count=10, cursor=cursor)
        assert (len(last), last.cursor) == (0, None)
        got = pd.concat(tables).sort_values("Id", ignore_index=True)
        assert tuple(got.columns) == COLUMNS
        pd.testing.assert_frame_equal(got, sandbox.codes()[list(COLUMNS)], check_dtype=False)


def test_bounds_can_be_a_pair_an_interval_or_none() -> None:
    with served(updated_required=False) as (sandbox, client, _):
        pair = (pd.Timestamp(MONTHS[0]), to_utc(MONTHS[1], "end"))
        interval = Interval(to_utc(MONTHS[0], "start"), to_utc(MONTHS[1], "end"))
        for updated in (MONTHS, list(MONTHS), pair, interval, None):
            assert len(client.get_all(sandbox.voucher_ids, updated=updated)) == 10


def test_bounds_that_the_server_requires_are_its_refusal() -> None:
    with served() as (sandbox, client, _), pytest.raises(BadRequestError, match="UpdatedUtc"):
        client.get_all(sandbox.voucher_ids)


def test_codes_are_found_by_id_and_by_enterprise() -> None:
    with served() as (sandbox, client, _):
        ids = sandbox.codes()["Id"].tolist()
        page = client.get_all(sandbox.voucher_ids, updated=MONTHS, voucher_code_ids=iter(ids[:3]))
        assert set(page.table.column("Id").to_pylist()) == set(ids[:3])
        page = client.get_all(sandbox.voucher_ids, updated=MONTHS, enterprise_ids=sandbox.enterprise_ids[:1])
        assert len(page) == 10


@pytest.mark.parametrize("state", ["both", "ActivityState", "IsActive"])
@pytest.mark.parametrize("nulls", ["shown", "omitted"])
def test_codes_are_the_same_however_the_server_writes_them(state: str, nulls: str) -> None:
    switches = {"state": state, "nulls": nulls, "unknown_fields": True}
    with served(**switches) as (sandbox, client, _):
        got = to_pandas(read(sandbox, client).table).sort_values("Id", ignore_index=True)
        pd.testing.assert_frame_equal(got, sandbox.codes()[list(COLUMNS)], check_dtype=False)


SOME = [str(UUID(int=1))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voucher_ids": []}, "voucher_ids is empty, which never means all"),
        ({"voucher_ids": "abc"}, "voucher_ids must be a list"),
        ({"voucher_ids": ["abc"]}, "'abc' at position 0 is no UUID"),
        ({"voucher_ids": [str(uuid4()) for _ in range(1001)]}, "1001 items; one call takes at most 1000"),
        ({"voucher_ids": pd.DataFrame({"Id": SOME, "VoucherId": SOME})}, "frame of codes"),
        ({"voucher_code_ids": []}, "voucher_code_ids is empty"),
        ({"voucher_code_ids": [None]}, "voucher_code_ids: 'None' at position 0"),
        ({"enterprise_ids": SOME[0]}, "enterprise_ids must be a list"),
        ({"updated": (MONTHS[1], MONTHS[0])}, "Swap the two"),
        ({"updated": ("2024-01-01", MONTHS[0])}, "no time zone"),
        ({"updated": MONTHS[0]}, "updated must be a pair"),
        ({"updated": (*MONTHS, MONTHS[0])}, "updated must be a pair"),
        ({"updated": (None, MONTHS[0])}, "updated is empty"),
        ({"count": 0}, "count=0 is not in 1..1000"),
        ({"count": 1001}, "count=1001"),
        ({"count": "7"}, "count=7"),
        ({"count": None}, "count=None"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], message: str
) -> None:
    with served() as (sandbox, client, _):
        with pytest.raises(InputError, match=message):
            client.get_all(**{"voucher_ids": SOME, "updated": MONTHS} | arguments)
        assert sandbox.requests == []


# ---- add and delete ----


def test_added_codes_come_back_in_the_shape_of_any_codes_with_their_request_id() -> None:
    with served() as (sandbox, client, _):
        start = pd.to_datetime(["2024-01-01", None]).tz_localize("Europe/Prague")
        end = pd.to_datetime(["2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"])
        created = add(sandbox, client, 2, ValidityStartUtc=start, ValidityEndUtc=end)
        assert tuple(created.columns) == COLUMNS
        assert all(str(created[name].dtype) == "datetime64[us, UTC]" for name in TIME_COLUMNS)
        assert created.attrs["request_id"] == client.last_request_id
        assert UUID(created.attrs["request_id"])
        kept = sandbox.codes().set_index("Id").loc[created["Id"]].sort_values("Value")
        assert kept["Value"].tolist() == ["NEW-0", "NEW-1"]
        assert kept["ValidityStartUtc"].iloc[0] == pd.Timestamp("2023-12-31T23:00:00Z")
        assert pd.isna(kept["ValidityStartUtc"].iloc[1])
        assert kept["ValidityEndUtc"].tolist() == list(end)
        assert kept["ActivityState"].tolist() == ["Active"] * 2


def test_a_thousand_codes_are_added_and_deleted_in_one_call_each_and_one_more_is_refused() -> None:
    with served() as (sandbox, client, _):
        before = len(active(sandbox))
        created = add(sandbox, client, 1000)
        assert len(created) == 1000
        assert client.delete(created) is None
        assert len(active(sandbox)) == before
        assert len(sandbox.requests) == 2
        with pytest.raises(InputError, match="rows has 1001 items; one call takes at most 1000"):
            add(sandbox, client, 1001)
        with pytest.raises(InputError, match="voucher_code_ids has 1001 items"):
            client.delete([str(uuid4()) for _ in range(1001)])
        assert len(sandbox.requests) == 2


@pytest.mark.parametrize("spelling", [str.upper, str.lower])
def test_an_id_is_deleted_once_in_whatever_case_it_is_given(spelling: Callable[[str], str]) -> None:
    with served() as (sandbox, client, _):
        code = active(sandbox)["Id"].iloc[0]
        client.delete([spelling(code), code])
        assert code not in set(active(sandbox)["Id"])
        assert client.last_request_id


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"VoucherId": [], "Value": []}),
        pd.DataFrame({"VoucherId": SOME}),
        pd.DataFrame({"VoucherId": SOME, "Value": [7]}),
        pd.DataFrame({"VoucherId": [None], "Value": ["A"]}),
        pd.DataFrame({"VoucherId": SOME, "Value": ["A"], "ValidityEndUtc": [pd.Timestamp("2024-01-01")]}),
        [{"VoucherId": SOME[0], "Value": "A"}],
        None,
    ],
)
def test_rows_that_cannot_be_added_are_refused_before_anything_is_sent(rows: Any) -> None:
    with served() as (sandbox, client, _):
        with pytest.raises(InputError):
            client.add(rows)
        assert sandbox.requests == []


@pytest.mark.parametrize("ids", [[], "abc", ["abc"], [None], None, pd.DataFrame({"Value": ["A"]})])
def test_ids_that_cannot_be_deleted_are_refused_before_anything_is_sent(ids: Any) -> None:
    with served() as (sandbox, client, _):
        with pytest.raises(InputError):
            client.delete(ids)
        assert sandbox.requests == []


def test_writes_go_to_the_enterprise_of_the_call_else_to_the_clients() -> None:
    codes = make_codes(10, vouchers=2, days=30)
    first, second = codes["VoucherId"].unique()
    enterprises = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
    vouchers = pd.DataFrame({"Id": [first, second], "EnterpriseId": enterprises})
    rows = pd.DataFrame({"VoucherId": [second], "Value": ["NEW"]})
    with served(codes) as (_, _, clock), vt.Sandbox(codes, vouchers, clock=clock) as sandbox:
        with sandbox.client(portfolio=True, clock=clock) as client:
            for act in (lambda: client.add(rows), lambda: client.delete(codes["Id"].head(1))):
                with pytest.raises(BadRequestError, match="EnterpriseId"):
                    act()
            assert len(client.add(rows, enterprise_id=enterprises[1])) == 1
            with pytest.raises(BadRequestError, match="VoucherId"):
                client.add(rows, enterprise_id=enterprises[0])
            with pytest.raises(InputError, match="enterprise_id: 'Hotel'"):
                client.add(rows, enterprise_id="Hotel")
        with sandbox.client(portfolio=True, clock=clock, enterprise_id=enterprises[1]) as client:
            created = client.add(rows)
            client.delete(created)
            mine = codes[(codes["VoucherId"] == first) & (codes["ActivityState"] == "Active")]["Id"].head(1)
            with pytest.raises(BadRequestError):
                client.delete(mine)
            client.delete(mine, enterprise_id=enterprises[0])


def test_the_last_request_id_is_each_threads_own() -> None:
    with served(rate_limit=None) as (sandbox, client, _):
        assert client.last_request_id is None
        add(sandbox, client)
        mine = client.last_request_id
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(lambda: client.last_request_id).result() is None
            assert thread.submit(lambda: read(sandbox, client) and client.last_request_id).result() != mine
        assert client.last_request_id == mine


# ---- vouchers ----


def test_vouchers_are_all_there_with_their_zones_inactive_ones_too() -> None:
    with vt.Sandbox() as sandbox, sandbox.client(portfolio=True) as client:
        got = client.vouchers()
        truth = sandbox.vouchers()
        assert set(got["Id"]) == set(truth["Id"])
        assert got["EnterpriseId"].nunique() == len(sandbox.enterprise_ids)
        assert got["TimeZone"].notna().all()
        assert got["Name"].notna().all()
        assert isinstance(got.index, pd.RangeIndex)
        assert got.equals(got.sort_values(["EnterpriseName", "Name", "Id"], ignore_index=True))
        dtypes = {name: str(dtype) for name, dtype in got.dtypes.items()}
        assert dtypes.pop("IsActive") == "boolean"
        assert {dtypes.pop(name) for name in ("CreatedUtc", "UpdatedUtc")} == {"datetime64[us, UTC]"}
        assert set(dtypes.values()) == {"str"}


def many_vouchers(n: int, services: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    ids = [str(UUID(int=i + 1)) for i in range(n)]
    vouchers = pd.DataFrame(
        {
            "Id": ids,
            "Name": [f"Voucher {i}" for i in range(n)],
            "ServiceId": [str(UUID(int=10**6 + i % services)) for i in range(n)],
            "IsActive": [i % 3 > 0 for i in range(n)],
        }
    )
    return pd.DataFrame({"VoucherId": ids[:1], "Value": ["A"]}), vouchers


def test_more_than_a_thousand_vouchers_and_services_are_paged_and_none_is_lost() -> None:
    codes, vouchers = many_vouchers(2_345, services=1_100)
    with vt.Sandbox(codes, vouchers) as sandbox, sandbox.client() as client:
        got = client.vouchers()
        assert sorted(got["Id"]) == sorted(vouchers["Id"])
        assert not got["IsActive"].astype(bool).all()
        assert got["IsActive"].sum() == vouchers["IsActive"].sum()
        assert got["ServiceId"].nunique() == 1_100
        only = [str(UUID(int=10**6 + i)) for i in range(1_050)]
        some = client.vouchers(only)
        assert set(some["ServiceId"]) == set(only)
        expected = vouchers[vouchers["ServiceId"].isin(only)]
        assert sorted(some["Id"]) == sorted(expected["Id"])


def test_no_services_are_no_vouchers_and_an_empty_list_of_services_is_refused() -> None:
    codes, vouchers = many_vouchers(3)
    with vt.Sandbox(codes, vouchers) as sandbox, sandbox.client() as client:
        for given in ([], ["abc"], "abc"):
            with pytest.raises(InputError, match="service_ids"):
                client.vouchers(given)
        assert sandbox.requests == []


@pytest.mark.parametrize("fault", ["503", "429", "lost-before", "truncated", "garbled"])
@pytest.mark.parametrize("operation", ["enterprises/getAll", "services/getAll", "vouchers/getAll"])
def test_reading_vouchers_survives_what_passes(operation: str, fault: str) -> None:
    with served() as (sandbox, client, _):
        sandbox.faults.next(operation, fault, fault)
        assert client.vouchers()["Id"].tolist() == sandbox.voucher_ids
        assert sent(sandbox, operation) == 3


# ---- time and name ----


def test_a_client_tells_the_sandboxs_time_and_name() -> None:
    with served() as (sandbox, client, clock):
        assert client.environment == f"sandbox-{sandbox.instance_id}"
        assert client.now() == pd.Timestamp("2024-03-01T12:00:00Z")
        client.wait(3600.0)
        assert client.now() == pd.Timestamp("2024-03-01T13:00:00Z")
        assert clock.waits == [3600.0]
        assert client.monotonic() == 3600.0
        assert len(sandbox.requests) == 1
        assert repr(client) == (
            f"Client(environment='sandbox-{sandbox.instance_id}', address='{sandbox.address}', tokens=***)"
        )
