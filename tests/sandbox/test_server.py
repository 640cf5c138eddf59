"""The server around the operations: clock, limit, many clients at once, frames, and the store on disk."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vouchertools.sandbox import Server, Switches
from vouchertools.sandbox.app import Window

ADD = "voucherCodes/add"
GET_CODES = "voucherCodes/getAll"


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"ordering": "UpdatedUtc"}, "no switch 'ordering'.*order, interval"),
        ({"order": "Id"}, "choose one of 'UpdatedUtc'"),
    ],
)
def test_unknown_switches_are_one_clear_error(switches: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Server(**switches)


def test_defaults_are_those_of_the_contract() -> None:
    defaults = Switches()
    assert (defaults.updated_required, defaults.rate_limit, defaults.order) == (
        True,
        (200, 30.0),
        "UpdatedUtc",
    )


def test_sample_is_served_without_arguments() -> None:
    with Server() as server:
        assert len(server.codes()) > 6000
        assert timedelta() <= server.now() - datetime(2017, 11, 10, 12, tzinfo=UTC) < timedelta(minutes=5)
        assert len(server.enterprise_ids) == 2
        held = set(server.codes()["VoucherId"])
        assert len(set(server.voucher_ids) - held) == 1
        assert {"str", "datetime64[us, UTC]"} == {str(dtype) for dtype in server.codes().dtypes}
        assert server.codes()["Id"].is_monotonic_increasing


def test_own_codes_are_served_in_the_present(codes_of: Callable[..., pd.DataFrame]) -> None:
    codes = codes_of(3)
    with Server(codes) as server:
        assert abs(server.now() - datetime.now(UTC)) < timedelta(minutes=5)
        pd.testing.assert_frame_equal(server.codes(), codes.astype(server.codes().dtypes.to_dict()))


def test_clock_ticks_on_from_where_it_is_set(codes_of: Callable[..., pd.DataFrame]) -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    with Server(codes_of(1), clock=start) as server:
        first, second = server.now(), server.now()
        assert start <= first < second < start + timedelta(minutes=5)
    with pytest.raises(ValueError, match="no time zone"):
        Server(codes_of(1), clock=datetime(2030, 1, 1))


def test_a_frame_needs_no_more_than_vouchers(clock: Any) -> None:
    voucher = "00000000-0000-0000-0000-00000000abcd"
    with Server(pd.DataFrame({"VoucherId": [voucher] * 3}), clock=clock) as server:
        codes = server.codes()
        assert codes["Id"].nunique() == 3
        assert codes["Value"].isna().all()
        assert (codes["CreatedUtc"] == clock.time).all()
        assert (codes["UpdatedUtc"] == clock.time).all()
        assert (codes["ActivityState"] == "Active").all()
        assert codes["ValidityEndUtc"].isna().all()
        assert server.voucher_ids == [voucher]


def test_empty_frames_are_served(serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]) -> None:
    codes = codes_of(1)
    with Server(codes.head(0), codes[["VoucherId"]].set_axis(["Id"], axis=1)) as server:
        assert server.codes().empty
        assert server.codes().dtypes.equals(serve().server.codes().dtypes)
        assert len(server.voucher_ids) == 1


BAD_FRAMES = [
    ({"Id": "x"}, "no UUID"),
    ({"VoucherId": "x"}, "no UUID"),
    ({"VoucherId": None}, "no UUID"),
    ({"Id": "00000000-0000-0000-0000-000000000001"}, "twice"),
    ({"ActivityState": "active"}, "only Active and Deleted"),
    ({"UpdatedUtc": pd.Timestamp("2023-01-01")}, "time zone"),
    ({"ValidityEndUtc": "2023-01-01T00:00:00Z"}, "time zone"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_FRAMES)
def test_a_frame_that_cannot_be_served_is_refused(
    codes_of: Callable[..., pd.DataFrame], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Server(codes_of(2).assign(**columns))


def test_vouchers_that_cannot_be_served_are_refused(codes_of: Callable[..., pd.DataFrame]) -> None:
    codes = codes_of(2)
    ids = codes["VoucherId"].tolist()
    both = {"EnterpriseId": "e", "TimeZone": ["Europe/Prague", "Asia/Tokyo"]}
    for vouchers, message in [
        (pd.DataFrame({"Id": [ids[0]] * 2}), "twice"),
        (pd.DataFrame({"Name": ["x"]}), "no column Id"),
        (pd.DataFrame({"Id": ids, **both}), "two time zones"),
    ]:
        with pytest.raises(ValueError, match=message):
            Server(codes, vouchers)
    with pytest.raises(ValueError, match="give both"):
        Server(vouchers=pd.DataFrame({"Id": ids}))
    with pytest.raises(ValueError, match="no column VoucherId"):
        Server(codes[["Id"]])


def test_each_time_zone_is_an_enterprise_where_none_is_named(codes_of: Callable[..., pd.DataFrame]) -> None:
    codes = codes_of(4, vouchers=4)
    zones = ["Asia/Tokyo", None, "Europe/Prague", "Asia/Tokyo"]
    with Server(codes, pd.DataFrame({"Id": codes["VoucherId"], "TimeZone": zones})) as server:
        by_enterprise = server.vouchers().groupby("EnterpriseId", sort=False)["Id"].size()
        assert by_enterprise.tolist() == [3, 1]
        assert server.enterprise_ids == by_enterprise.index.tolist()
        assert len(server.voucher_ids) == 3


def test_window_lets_in_as_many_as_it_says_and_slides() -> None:
    window = Window((3, 30.0))
    assert [window.take("a", now) for now in (0.0, 1.0, 10.0)] == [0, 0, 0]
    assert window.take("a", 10.5) == 19.5
    assert window.take("b", 10.5) == 0
    assert window.take("a", 29.9) == pytest.approx(0.1)
    assert [window.take("a", 30.0), window.take("a", 30.5)] == [0, 0.5]
    assert [window.take("a", 31.0), window.take("a", 32.0)] == [0, 8.0]
    assert {Window(None).take("a", 0.0) for _ in range(1000)} == {0}


def test_over_the_limit_is_429_for_this_token_alone(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve(rate_limit=(3, 30.0), rate_clock="sandbox")
    statuses = [mews.post(GET_CODES, VoucherIds=[]).status_code for _ in range(2)]
    clock.move(seconds=10.5)
    statuses += [mews.post(ADD).status_code, mews.post(ADD).status_code]
    assert statuses == [400, 400, 200, 429]
    limited = mews.post(GET_CODES)
    assert limited.headers["Retry-After"] == "20"
    assert limited.json()["RequestId"] == limited.headers["Request-Id"]
    assert mews.post(GET_CODES, AccessToken=mews.server.portfolio_token).status_code == 200
    assert mews.server.codes()["Value"].tolist().count("NEW") == 1
    clock.move(seconds=19.5)
    assert [mews.post(ADD).status_code for _ in range(3)] == [200, 200, 429]


def test_limit_of_real_time_is_the_default(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve(retry_after=False)
    statuses = [mews.post("enterprises/getAll").status_code for _ in range(201)]
    assert statuses == [200] * 200 + [429]
    clock.move(days=1)
    limited = mews.post("enterprises/getAll")
    assert limited.status_code == 429
    assert "Retry-After" not in limited.headers


def test_log_tells_every_request_and_no_token(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve()
    content = mews.post(GET_CODES).request.content
    mews.post(ADD, AccessToken="wrong")
    mews.http.post("nowhere")
    mews.server.faults.next("*", "500")
    mews.post(ADD)
    log = mews.server.requests
    assert [(line.operation, line.status, line.fault) for line in log] == [
        (GET_CODES, 200, "none"),
        (ADD, 401, "none"),
        ("nowhere", 404, "none"),
        (ADD, 500, "500"),
    ]
    assert log[0].size == len(content)
    assert {line.utc for line in log} == {clock.time}
    for secret in (mews.server.access_token, mews.server.client_token, mews.server.portfolio_token):
        assert secret not in repr((log, mews.server))


def test_many_clients_at_once_lose_and_double_nothing(serve: Callable[..., Any]) -> None:
    mews = serve(rate_limit=None)

    def work(number: int) -> int:
        batch = [
            {"VoucherId": mews.server.voucher_ids[0], "Value": f"W-{number}-{item}"} for item in range(50)
        ]
        assert mews.post(ADD, VoucherCodeParameters=batch).status_code == 200
        return len(mews.post(GET_CODES).json()["VoucherCodes"])

    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(work, range(32)))
    assert {count % 50 for count in seen if count < 1000} == {10}
    values = mews.server.codes()["Value"]
    assert len(values) == 10 + 32 * 50
    assert values.is_unique


def test_a_slow_request_does_not_hold_up_others(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mews = serve()
    arrived, go_on = threading.Event(), threading.Event()

    def hold(server: Any, number: int) -> None:
        arrived.set()
        assert go_on.wait(20)

    mews.server.faults.on_page = hold
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(mews.post, GET_CODES)
        assert arrived.wait(20)
        assert mews.post(ADD).status_code == 200
        assert not slow.done()
        go_on.set()
        assert len(slow.result().json()["VoucherCodes"]) == 11


def test_latency_holds_up_nobody_and_ends_with_the_server(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mews = serve()
    arrived = threading.Event()
    waits = iter([3600.0, 0.0])

    def draw() -> float:
        arrived.set()
        return next(waits)

    monkeypatch.setattr(mews.server.faults, "draw_latency_s", draw)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(mews.post, ADD)
        assert arrived.wait(20)
        assert mews.post(ADD).status_code == 200
        mews.server.stop()
        assert slow.exception() is not None


def test_server_can_only_be_reached_while_it_serves(codes_of: Callable[..., pd.DataFrame]) -> None:
    server = Server(codes_of(1))
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.address
    assert "not started" in repr(server)
    threads = threading.active_count()
    with server:
        assert server.start() is server
        assert server.instance_id in repr(server)
        assert threading.active_count() == threads + 1
        with pytest.raises(OSError, match="cannot be used"):
            Server(codes_of(1), port=int(server.address.rpartition(":")[2])).start()
    assert threading.active_count() == threads


def test_two_sandboxes_are_strangers(serve: Callable[..., Any]) -> None:
    one, other = serve(), serve()
    assert one.server.instance_id != other.server.instance_id
    assert other.post(GET_CODES, **one.tokens).status_code == 401


def test_store_outlives_the_server(serve: Callable[..., Any], clock: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite"
    first = serve(store=path)
    first.post(ADD)
    codes, tokens = first.server.codes(), first.tokens
    first.server.stop()
    assert path.stat().st_mode & 0o777 == 0o600
    with Server(store=path, clock=clock, order="CreatedUtc", duplicate_values="refused") as again:
        assert again.codes().equals(codes)
        assert (again.client_token, again.access_token) == (tokens["ClientToken"], tokens["AccessToken"])
        assert again.instance_id == first.server.instance_id
        assert again.voucher_ids == first.server.voucher_ids
        with pytest.raises(OSError, match="cannot be used"):
            Server(store=path)
    with pytest.raises(ValueError, match="already holds codes"):
        Server(codes, store=path)


def test_kept_clock_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vouchertools.sandbox.server.CLOCK_AHEAD", timedelta(days=1))
    path = tmp_path / "store.sqlite"
    with Server(store=path) as first:
        stopped = first.now()
    with Server(store=path) as again:
        assert stopped <= again.now() < stopped + timedelta(minutes=5)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("this is no database" * 100)
    with pytest.raises(OSError, match="cannot be used"):
        Server(store=path)


SERVE_AND_CHANGE = """
import sys
from vouchertools.sandbox import Server
server = Server(store=sys.argv[1]).start()
server.add_codes([(server.voucher_ids[0], "KEPT")])
print(server.now().isoformat(), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_killed_server_loses_nothing_and_its_clock_never_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    command = [sys.executable, "-c", SERVE_AND_CHANGE, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = datetime.fromisoformat(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    with Server(store=path) as server:
        assert "KEPT" in server.codes()["Value"].tolist()
        assert told <= server.now() < told + timedelta(minutes=5)
