"""Reading completely: the result of ``fetch`` is the server's own table, whatever the server does."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import strategies
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from support import EFFORT, HandClock, make_codes
from werkzeug import Request, Response

import vouchertools as vt
from vouchertools import contract
from vouchertools.errors import IncompleteReadError, InputError, ServerError, UnauthorizedError
from vouchertools.pull import CLOSING_MARGIN, MAX_CLOSINGS, Pull
from vouchertools.walk import scopes


@contextmanager
def served(codes: pd.DataFrame | None = None, **options: Any) -> Iterator[tuple[vt.Sandbox, vt.Client]]:
    options = {"rate_limit": None} | options
    with vt.Sandbox(codes, **options) as sandbox, sandbox.client(rate_limit=(10**6, 1.0)) as client:
        yield sandbox, client


def walkers() -> list[str]:
    return [
        t.name for t in threading.enumerate() if t.name.startswith(("vouchertools-walk", "vouchertools-read"))
    ]


def assert_same(got: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Equal row by row and field by field, dtypes too, whatever the order."""
    pd.testing.assert_frame_equal(
        got.sort_values("Id", ignore_index=True), truth.sort_values("Id", ignore_index=True)
    )


SWITCHES = [
    {
        "order": order,
        "interval": interval,
        "updated_required": required,
        "touched_cursor": touched,
        "state": state,
    }
    for order, interval, required, touched, state in product(
        ["UpdatedUtc", "CreatedUtc"],
        ["half-open", "inclusive"],
        [True, False],
        ["key", "restart", "empty", "refused"],
        ["both", "ActivityState", "IsActive"],
    )
]


@pytest.mark.parametrize(
    "switches", SWITCHES[:: 5 if EFFORT == 1 else 1], ids=lambda s: "-".join(map(str, s.values()))
)
def test_fetch_equals_the_table_of_the_sandbox_under_every_switch(switches: dict[str, Any]) -> None:
    with served(**switches) as (sandbox, client):
        truth = sandbox.codes()
        truth = truth[truth["VoucherId"].isin(sandbox.voucher_ids)]
        assert_same(vt.fetch(client, client.vouchers(), progress=False), truth)


@pytest.mark.parametrize("n", [1, 999, 1000, 1001, 2000 if EFFORT == 1 else 100_000])
@pytest.mark.parametrize("days", [0, 40, 700], ids=["one-second", "one-interval", "many-intervals"])
def test_fetch_equals_the_table_at_every_page_boundary(n: int, days: int) -> None:
    with served(make_codes(n, vouchers=3, days=days)) as (sandbox, client):
        got = vt.fetch(client, sandbox.voucher_ids, progress=False)
        assert_same(got, sandbox.codes())
        assert list(got.columns) == list(contract.COLUMNS)


@pytest.mark.parametrize("workers", [1, 8])
def test_a_long_interval_is_read_completely_by_any_number_of_workers(workers: int) -> None:
    with served(make_codes(12_345, vouchers=5, days=3)) as (sandbox, client):
        assert_same(vt.fetch(client, sandbox.voucher_ids, workers=workers, progress=False), sandbox.codes())


def test_a_bulk_import_of_one_second_is_read_completely() -> None:
    with served(make_codes(7_000, vouchers=4, days=0)) as (sandbox, client):
        assert_same(vt.fetch(client, sandbox.voucher_ids, progress=False), sandbox.codes())


def test_more_vouchers_than_one_call_takes_simply_work() -> None:
    with served(make_codes(5_000, vouchers=2_500, days=100)) as (sandbox, client):
        assert len(sandbox.voucher_ids) == 2_500
        assert_same(vt.fetch(client, sandbox.voucher_ids, progress=False), sandbox.codes())


def test_a_pull_of_nothing_has_the_columns_and_dtypes_of_a_pull_of_something() -> None:
    with served() as (sandbox, client):
        full = vt.fetch(client, sandbox.voucher_ids, progress=False)
        empty_voucher = sorted(set(sandbox.voucher_ids) - set(full["VoucherId"]))
        nothing = vt.fetch(client, empty_voucher, progress=False)
        assert len(nothing) == 0
        pd.testing.assert_series_equal(nothing.dtypes, full.dtypes)


def test_a_portfolio_token_reads_all_enterprises_and_can_be_told_one() -> None:
    with served() as (sandbox, _), sandbox.client(portfolio=True) as client:
        vouchers = client.vouchers()
        both = vt.fetch(client, vouchers, progress=False)
        assert_same(both, sandbox.codes())
        one = sandbox.enterprise_ids[:1]
        of_one = vouchers[vouchers["EnterpriseId"].isin(one)]["Id"]
        assert_same(
            vt.fetch(client, vouchers, enterprise_ids=one, progress=False),
            both[both["VoucherId"].isin(of_one)],
        )


def test_since_and_until_bound_the_time_of_update_and_both_belong_to_it() -> None:
    codes = make_codes(300, days=200)
    first, last = codes["UpdatedUtc"].iloc[50], codes["UpdatedUtc"].iloc[200]
    for interval in ("half-open", "inclusive"):
        with served(codes, interval=interval) as (sandbox, client):
            got = vt.fetch(client, sandbox.voucher_ids, since=first, until=last, progress=False)
            truth = sandbox.codes()
            assert_same(got, truth[truth["UpdatedUtc"].between(first, last)])


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("n", [3, 1000, 2_300])
def test_codes_can_be_read_by_their_ids_whether_or_not_the_server_wants_an_interval(
    required: bool, n: int
) -> None:
    with served(make_codes(4_000, vouchers=2, days=300), updated_required=required) as (sandbox, client):
        truth = sandbox.codes().sample(n, random_state=1)
        for _ in range(2):
            got = vt.fetch(client, sandbox.voucher_ids, voucher_code_ids=truth["Id"], progress=False)
            assert_same(got, truth)
        assert client.requires_updated == required


def test_ids_of_codes_in_upper_case_find_every_code_too() -> None:
    with served(make_codes(4_000, vouchers=2, days=300)) as (sandbox, client):
        truth = sandbox.codes().sample(2_300, random_state=1)
        ids = truth["Id"].str.upper()
        assert_same(vt.fetch(client, sandbox.voucher_ids, voucher_code_ids=ids, progress=False), truth)


def test_codes_by_their_ids_cost_one_request_for_a_thousand() -> None:
    with served(make_codes(2_500), updated_required=False) as (sandbox, client):
        client.now()
        before = len(sandbox.requests)
        vt.fetch(client, sandbox.voucher_ids, voucher_code_ids=sandbox.codes()["Id"], progress=False)
        assert len(sandbox.requests) - before == 3


def test_the_frame_says_where_and_when_it_was_read_by_the_clock_of_the_server() -> None:
    with served() as (sandbox, client):
        codes = vt.fetch(client, sandbox.voucher_ids[:1], progress=False)
        assert codes.attrs["environment"] == f"sandbox-{sandbox.instance_id}"
        read_utc = pd.Timestamp(codes.attrs["read_utc"])
        assert pd.Timestamp("2017-11-10T12:00Z") <= read_utc <= pd.Timestamp("2017-11-10T12:01Z")


def test_parquet_written_by_pandas_keeps_where_and_when_codes_were_read(tmp_path: Path) -> None:
    with served() as (sandbox, client):
        codes = vt.fetch(client, sandbox.voucher_ids[:1], progress=False)
        codes.to_parquet(tmp_path / "codes.parquet")
        back = pd.read_parquet(tmp_path / "codes.parquet")
        assert back.attrs == codes.attrs
        assert vt.plan_delete(back).environment == client.environment


def test_rows_stand_newest_first_and_in_the_same_order_at_every_read() -> None:
    with served(make_codes(6_000, vouchers=2, days=30), stored_precision="s") as (sandbox, client):
        orders = [list(vt.fetch(client, sandbox.voucher_ids, progress=False)["Id"]) for _ in range(3)]
        assert orders[0] == orders[1] == orders[2]
        updated = vt.fetch(client, sandbox.voucher_ids, progress=False)["UpdatedUtc"]
        assert updated.is_monotonic_decreasing


def test_ids_in_upper_case_find_every_code_of_a_bulk_import() -> None:
    codes = make_codes(7_000, vouchers=4, days=0)
    with served(codes, touched_cursor="empty") as (sandbox, client):
        ids = [voucher_id.upper() for voucher_id in sandbox.voucher_ids]
        assert len(vt.fetch(client, ids, progress=False)) == 7_000


def test_a_client_that_is_stopped_elsewhere_ends_a_read_with_an_error() -> None:
    with served(make_codes(1_900, days=300)) as (sandbox, client):
        sandbox.faults.on_page = lambda server, number: client.stop() if number == 10 else None
        with pytest.raises(IncompleteReadError, match="stopped the same client"):
            vt.fetch(client, sandbox.voucher_ids, progress=False)


def test_few_requests_are_wasted() -> None:
    codes = make_codes(60_000, vouchers=10, start="2016-01-01", days=2_500)
    with served(codes) as (sandbox, client):
        client.now()
        before = len(sandbox.requests)
        vt.fetch(client, sandbox.voucher_ids, progress=False)
        used = len(sandbox.requests) - before
        fixed = len(contract.intervals(contract.EARLIEST, datetime.now(UTC) + timedelta(days=1)))
        assert used <= 60 * 1.1 + fixed


# ---- under change ----


def rows_of(frame: pd.DataFrame) -> set[tuple[Any, ...]]:
    return set(map(tuple, frame.astype(object).where(frame.notna(), None).to_numpy()))


@settings(max_examples=40 * EFFORT, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([1, 5, 30, 60]),
    spread=st.sampled_from(
        [("2024-03-01 11:59:50", 0.0001), ("2024-02-25", 1), ("2024-01-15", 45), ("2022-01-01", 800)]
    ),
    since=st.sampled_from([datetime(2021, 12, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]),
    vouchers=st.sampled_from([1, 2, 4]),
    count=st.sampled_from([1, 2, 3, 5, 7]),
    workers=st.sampled_from([1, 2, 4]),
    rate=st.sampled_from([0.5, 1, 3]),
    changes=st.sampled_from([3, 10, 30]),
    tick=st.sampled_from([0, 0.001, 0.3, 2]),
    switches=strategies.SWITCHES,
    faults=st.booleans(),
)
def test_every_code_that_existed_at_the_start_is_read_once_in_a_state_that_it_had(
    seed: int,
    n: int,
    spread: tuple[str, float],
    since: datetime,
    vouchers: int,
    count: int,
    workers: int,
    rate: float,
    changes: int,
    tick: float,
    switches: dict[str, str],
    faults: bool,
) -> None:
    clock = HandClock()
    codes = make_codes(n, vouchers=vouchers, start=spread[0], days=spread[1], seed=seed)
    codes["UpdatedUtc"] = codes["UpdatedUtc"].clip(upper=pd.Timestamp(clock()))
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None, keep_history=True, **switches) as sandbox,
        sandbox.client(clock=clock, rate_limit=(10**6, 1.0)) as client,
    ):
        sandbox.faults.mutate(rate, seed=seed)
        mutate = sandbox.faults.on_page

        def on_page(server: Any, number: int) -> None:
            clock.forward(tick)
            if number <= changes:
                mutate(server, number)

        sandbox.faults.on_page = on_page
        if faults:
            sandbox.faults.at_random(
                {"500": 0.02, "429": 0.01, "lost-before": 0.005, "truncated": 0.005}, seed=seed
            )
        before = sandbox.codes().query("UpdatedUtc >= @since")
        pull = Pull(client, dict.fromkeys(scopes(sandbox.voucher_ids), since), workers=workers, count=count)
        got = contract.to_pandas(pull.run())
        note(f"{len(sandbox.requests)} requests")
        assert set(before["Id"]) <= set(got["Id"])
        assert not got["Id"].duplicated().any()
        assert rows_of(got) <= rows_of(sandbox.history())


def test_a_code_that_slips_past_the_reader_is_found_by_a_closing_read() -> None:
    """The very case that a plain loop over the cursor loses."""
    codes = make_codes(3_000, start="2024-02-20", days=9)
    clock = HandClock()
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None) as sandbox,
        sandbox.client(clock=clock) as client,
    ):
        unread = codes["Id"].iloc[:20]

        def on_page(server: vt.Sandbox, number: int) -> None:
            clock.forward(1)
            if number == 65:
                server.touch(unread)

        sandbox.faults.on_page = on_page
        got = vt.fetch(client, sandbox.voucher_ids, workers=1, progress=False)
        assert set(unread) <= set(got["Id"])
        assert len(got) == 3_000


def test_a_cursor_of_one_closing_read_may_be_touched_before_the_next_which_has_fewer_scopes() -> None:
    codes = make_codes(10, vouchers=2, start="2024-02-20", days=5)
    clock = HandClock()
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None) as sandbox,
        sandbox.client(clock=clock, rate_limit=(10**6, 1.0)) as client,
    ):
        first, second = (list(codes[codes["VoucherId"] == voucher]["Id"]) for voucher in sandbox.voucher_ids)
        # By the number of waits: for changes to settle, after each closing read that was not atomic.
        touches = {0: [first[0], second[0]], 1: second[1:4], 2: second[2:4]}

        def on_page(server: vt.Sandbox, number: int) -> None:
            if number > 1:  # the first asks for the clock
                for code_id in touches.pop(len(clock.waits), []):
                    server.touch([code_id])
                    clock.forward(0.01)

        sandbox.faults.on_page = on_page
        since = datetime(2024, 2, 1, tzinfo=UTC)
        pull = Pull(client, dict.fromkeys(scopes(sandbox.voucher_ids), since), workers=1, count=1)
        got = contract.to_pandas(pull.run())
        assert touches == {}
        assert rows_of(got) == rows_of(sandbox.codes())


def test_a_pull_that_cannot_catch_up_with_the_changes_fails_and_says_how_much_was_moving() -> None:
    clock = HandClock()
    codes = make_codes(30, start="2024-02-20", days=9)
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None) as sandbox,
        sandbox.client(clock=clock) as client,
    ):
        sandbox.faults.on_page = lambda server, number: server.touch(codes["Id"])
        pull = Pull(
            client, dict.fromkeys(scopes(sandbox.voucher_ids), contract.EARLIEST), workers=2, count=10
        )
        with pytest.raises(IncompleteReadError, match=f"still changing after {MAX_CLOSINGS} closing reads"):
            pull.run()


def test_codes_changed_just_before_the_pull_only_delay_it_by_the_margin() -> None:
    clock = HandClock()
    codes = make_codes(2_500, start="2024-02-20", days=9)
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None) as sandbox,
        sandbox.client(clock=clock) as client,
    ):
        sandbox.touch(codes["Id"])
        assert_same(vt.fetch(client, sandbox.voucher_ids, progress=False), sandbox.codes())
        assert sum(clock.waits) <= CLOSING_MARGIN.total_seconds() + 2


# ---- servers that misbehave ----


def test_a_timeout_on_the_server_is_met_with_smaller_pages_and_shorter_intervals() -> None:
    with served(make_codes(3_000, days=30)) as (sandbox, client):
        client.now()
        sandbox.faults.next("voucherCodes/getAll", "none", *["408"] * 6)
        assert_same(vt.fetch(client, sandbox.voucher_ids, workers=2, progress=False), sandbox.codes())


def test_faults_that_pass_do_not_harm_a_pull() -> None:
    with served(make_codes(20_000, vouchers=3, days=900)) as (sandbox, client):
        client.now()
        sandbox.faults.retry_after_s = 0
        sandbox.faults.at_random({"500": 0.02, "429": 0.01, "lost-before": 0.01, "truncated": 0.01}, seed=3)
        assert_same(vt.fetch(client, sandbox.voucher_ids, progress=False), sandbox.codes())
        assert sum(sandbox.faults.happened.values()) > 0


def test_a_fault_that_stays_ends_the_pull_with_its_own_error_and_no_thread_left() -> None:
    clock = HandClock()
    with (
        vt.Sandbox(make_codes(50), clock=clock, rate_limit=None) as sandbox,
        sandbox.client(clock=clock) as client,
    ):
        client.now()
        sandbox.faults.at_random({"500": 1.0})
        with pytest.raises(ServerError):
            vt.fetch(client, sandbox.voucher_ids, progress=False)
    assert not walkers()


def test_refused_tokens_end_the_pull_at_once() -> None:
    with served(make_codes(50)) as (sandbox, _):
        client = vt.Client(sandbox.address, sandbox.client_token, "another-token")
        with client, pytest.raises(UnauthorizedError):
            vt.fetch(client, sandbox.voucher_ids, progress=False)
        assert [request.status for request in sandbox.requests] == [401]


def answer_with(server: HTTPServer, pages: Any) -> None:
    """Let a server answer every page of codes by a function of the request's body."""

    def handle(request: Request) -> Response:
        return Response(pages(request.get_json()), content_type="application/json")

    server.expect_request("/api/connector/v1/voucherCodes/getAll").respond_with_handler(handle)


def body_of(codes: pd.DataFrame, cursor: str | None) -> str:
    records = [
        {key: value.isoformat() if isinstance(value, pd.Timestamp) else value for key, value in row.items()}
        for row in codes.to_dict("records")
    ]
    return json.dumps({"VoucherCodes": records, "Cursor": cursor})


def test_a_cursor_that_is_answered_again_and_again_is_an_error(httpserver: HTTPServer) -> None:
    codes = make_codes(1000)
    same = body_of(codes, codes["Id"].iloc[-1])
    answer_with(httpserver, lambda body: same)
    client = vt.Client(httpserver.url_for("").rstrip("/"), "c", "a", rate_limit=(10**6, 1.0))
    with client, pytest.raises(IncompleteReadError, match="was answered twice"):
        vt.fetch(client, codes["VoucherId"].unique(), since="2024-01-01T00:00Z", workers=1, progress=False)


def test_an_empty_page_with_a_new_cursor_is_not_taken_for_the_end(httpserver: HTTPServer) -> None:
    codes = make_codes(1500, days=20).sort_values("UpdatedUtc", ascending=False, ignore_index=True)
    detour = codes["Id"].iloc[0]

    def pages(body: dict[str, Any]) -> str:
        start, end = (pd.Timestamp(body["UpdatedUtc"][key]) for key in ("StartUtc", "EndUtc"))
        asked = codes[codes["UpdatedUtc"].between(start, end)]
        cursor = body["Limitation"].get("Cursor")
        if cursor is None:
            return body_of(asked[:1000], asked["Id"].iloc[999] if len(asked) > 1000 else None)
        return body_of(asked[1000:], None) if cursor == detour else body_of(asked[:0], detour)

    answer_with(httpserver, pages)
    with vt.Client(httpserver.url_for("").rstrip("/"), "c", "a", rate_limit=(10**6, 1.0)) as client:
        got = vt.fetch(client, codes["VoucherId"].unique(), since="2023-01-01T00:00Z", progress=False)
    assert_same(got, contract.to_pandas(contract.to_arrow(codes)))


def test_a_page_without_content_is_an_empty_page(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/connector/v1/voucherCodes/getAll").respond_with_data(b"", status=204)
    with vt.Client(httpserver.url_for("").rstrip("/"), "c", "a", rate_limit=(10**6, 1.0)) as client:
        assert len(vt.fetch(client, make_codes(1)["VoucherId"], progress=False)) == 0


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voucher_ids": []}, "empty, which never means all"),
        ({"voucher_ids": ["no-uuid"]}, "'no-uuid' at position 0 is no UUID"),
        ({"voucher_ids": pd.DataFrame({"Name": ["x"]})}, "lacks the column Id"),
        ({"since": datetime(2024, 1, 1)}, "since=.* has no time zone"),
        ({"until": "2024-01-01"}, "until=.* has no time zone"),
        ({"since": "2024-02-01T00:00Z", "until": "2024-01-01T00:00Z"}, "lies after"),
        ({"voucher_code_ids": []}, "empty"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_sent(arguments: dict[str, Any], message: str) -> None:
    with served() as (sandbox, client):
        with pytest.raises(InputError, match=message):
            vt.fetch(client, **({"voucher_ids": sandbox.voucher_ids, "progress": False} | arguments))
        assert not sandbox.requests


def test_an_interrupt_stops_all_workers_at_once_and_leaves_no_thread() -> None:
    with served(make_codes(5_000, start="2018-01-01", days=2_000)) as (sandbox, client):

        def become_slow(server: vt.Sandbox, number: int) -> None:
            if number == 10:
                server.faults.latency_ms = 60_000.0
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

        sandbox.faults.on_page = become_slow
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            vt.fetch(client, sandbox.voucher_ids, workers=4, progress=False)
        assert time.monotonic() - began < 30
        assert not walkers()
        sandbox.faults.off()
        assert_same(vt.fetch(client, sandbox.voucher_ids, progress=False), sandbox.codes())
