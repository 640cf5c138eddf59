"""Faults: what each one answers, what it leaves behind, and when it strikes."""

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pandas as pd
import pytest

from vouchertools.sandbox import Faults

ADD = "voucherCodes/add"
GET_CODES = "voucherCodes/getAll"


def values(mews: Any) -> list[str]:
    return mews.server.codes()["Value"].tolist()


@pytest.mark.parametrize("status", [403, 408, 409, 413, 429, 500, 501])
def test_a_status_is_answered_instead_of_acting(serve: Callable[..., Any], status: int) -> None:
    mews = serve()
    mews.server.faults.next(ADD, str(status))
    answer = mews.post(ADD)
    assert answer.status_code == status
    assert answer.json()["RequestId"] == answer.headers["Request-Id"]
    assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert "NEW" not in values(mews)
    assert mews.post(ADD).status_code == 200


def test_a_limited_answer_may_keep_quiet_about_the_wait(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next(ADD, "429-bare", "429")
    mews.server.faults.retry_after_s = 17
    assert [mews.post(ADD).headers.get("Retry-After") for _ in range(3)] == [None, "17", None]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_proxies_answer_in_html(serve: Callable[..., Any], status: int) -> None:
    mews = serve()
    mews.server.faults.next("*", str(status))
    answer = mews.post(ADD)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert answer.text.startswith("<html>")
    assert answer.headers["Vouchertools-Sandbox"] == mews.server.instance_id


@pytest.mark.parametrize("fault", ["500-after", "503-after", "408-after", "409-after"])
def test_a_status_may_follow_the_act(serve: Callable[..., Any], fault: str) -> None:
    mews = serve()
    mews.server.faults.next(ADD, fault)
    assert mews.post(ADD).status_code == int(fault[:3])
    assert values(mews).count("NEW") == 1


@pytest.mark.parametrize(("fault", "added"), [("lost-before", 0), ("lost-after", 1), ("late", 0)])
def test_a_lost_connection_gives_no_answer(serve: Callable[..., Any], fault: str, added: int) -> None:
    mews = serve()
    mews.server.faults.next(ADD, fault)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        mews.post(ADD)
    assert values(mews).count("NEW") == added
    last = mews.server.requests[-1]
    assert (last.operation, last.status, last.fault) == (ADD, None, fault)
    assert mews.post(GET_CODES).status_code == 200


def test_a_truncated_answer_breaks_off_after_the_act(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next("*", "truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        mews.post(ADD)
    assert values(mews).count("NEW") == 1


def test_a_garbled_answer_is_a_success_of_another_shape(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next("*", "garbled", "not-json")
    garbled, not_json = mews.post(ADD), mews.post(ADD)
    assert (garbled.status_code, garbled.json()) == (200, {"Result": ["OK"]})
    assert (not_json.status_code, not_json.text) == (200, "<p>OK</p>")
    assert values(mews).count("NEW") == 2


def test_late_is_done_when_the_clock_says_so(serve: Callable[..., Any], clock: Any) -> None:
    mews = serve()
    mews.server.faults.commit_late_s = 90
    mews.server.faults.next(ADD, "late")
    with pytest.raises(httpx.RemoteProtocolError):
        mews.post(ADD)
    clock.move(seconds=89)
    assert mews.server.faults.late_count == 1
    assert len(mews.read()) == len(values(mews)) == 10
    clock.move(seconds=1)
    assert [code["UpdatedUtc"] for code in mews.read() if code["Value"] == "NEW"] == ["2023-10-09T12:00:00Z"]
    assert (mews.server.faults.late_count, values(mews).count("NEW")) == (0, 1)


def test_late_is_done_when_it_is_released(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next("voucherCodes/*", "late", "late")
    for operation in (ADD, "voucherCodes/delete"):
        with pytest.raises(httpx.RemoteProtocolError):
            mews.post(operation)
    mews.server.faults.off()
    assert mews.server.faults.release() == 2
    assert values(mews).count("NEW") == 1
    assert (mews.server.codes()["ActivityState"] == "Deleted").sum() == 1
    assert mews.server.faults.release() == 0


def test_late_may_come_to_nothing(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next("*", "late")
    with pytest.raises(httpx.RemoteProtocolError):
        mews.post("voucherCodes/delete")
    assert mews.post("voucherCodes/delete").status_code == 200
    before = mews.server.codes()
    mews.server.faults.release()
    assert mews.server.codes().equals(before)


def test_a_malformed_body_is_refused_at_once_even_when_late(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next(ADD, "late")
    assert mews.post(ADD, VoucherCodeParameters=[]).status_code == 400
    assert mews.server.faults.late_count == 0


def test_a_hanging_request_is_done_after_the_client_has_gone(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next(ADD, "hang")
    with pytest.raises(httpx.ReadTimeout):
        mews.http.post(ADD, json=mews.body(ADD), timeout=0.05)
    assert "NEW" not in values(mews)
    assert mews.server.faults.release() == 1
    assert values(mews).count("NEW") == 1


def test_scheduled_faults_come_in_turn_and_only_to_their_operation(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next(ADD, "500", "none", "409")
    assert mews.post(GET_CODES).status_code == 200
    assert [mews.post(ADD).status_code for _ in range(4)] == [500, 200, 409, 200]
    assert mews.server.faults.happened == {(ADD, "500"): 1, (ADD, "409"): 1}


def test_nothing_strikes_where_the_tokens_are_wrong(serve: Callable[..., Any]) -> None:
    mews = serve()
    mews.server.faults.next("*", "500")
    assert mews.post(GET_CODES, AccessToken="wrong").status_code == 401
    assert mews.post(GET_CODES).status_code == 500


def test_random_faults_are_as_frequent_as_asked_and_repeatable() -> None:
    drawn = []
    for _ in range(2):
        faults = Faults()
        faults.at_random({"500": 0.2, "lost-after": 0.1}, operation="voucherCodes/*", seed=7)
        faults.at_random({"429": 1.0})
        drawn.append([faults.draw(ADD) for _ in range(2000)])
        assert {faults.draw("enterprises/getAll") for _ in range(9)} == {"429"}
        assert faults.happened[ADD, "500"] == drawn[-1].count("500")
        faults.off()
        assert {faults.draw(ADD) for _ in range(100)} == {"none"}
    assert drawn[0] == drawn[1]
    counts = {name: drawn[0].count(name) for name in ("500", "lost-after", "none")}
    assert sum(counts.values()) == 2000
    assert 340 < counts["500"] < 460
    assert 150 < counts["lost-after"] < 250


@pytest.mark.parametrize("name", ["200", "600", "lost", "429-after", "500-before", ""])
def test_an_unknown_fault_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="There is no fault"):
        Faults().next(ADD, name)
    with pytest.raises(ValueError, match="There is no fault"):
        Faults().at_random({name: 0.1})


@pytest.mark.parametrize("rates", [{"500": -0.1}, {"500": 0.6, "409": 0.6}])
def test_impossible_probabilities_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"probabilit"):
        Faults().at_random(rates)


def test_latency_is_drawn_from_its_range() -> None:
    faults = Faults()
    assert faults.draw_latency_s() == 0
    faults.latency_ms = 150
    assert faults.draw_latency_s() == 0.15
    faults.latency_ms = (10, 20)
    drawn = {faults.draw_latency_s() for _ in range(50)}
    assert len(drawn) > 10
    assert all(0.01 <= one <= 0.02 for one in drawn)


def test_codes_change_before_a_page_is_read(serve: Callable[..., Any]) -> None:
    mews = serve()
    seen: list[int] = []

    def change(server: Any, number: int) -> None:
        seen.append(number)
        server.add_codes([(server.voucher_ids[0], f"PAGE-{number}")])
        assert mews.post("enterprises/getAll").status_code == 200

    mews.server.faults.on_page = change
    assert [
        len(mews.read(UpdatedUtc={"StartUtc": "2023-10-09T12:00:00Z", "EndUtc": "2023-10-09T12:01:00Z"}))
    ] == [2]
    assert len(mews.read()) == 12
    assert seen == [1, 2]


def test_mutation_meets_cursors_and_leaves_no_code_without_its_history(
    serve: Callable[..., Any], codes_of: Callable[..., pd.DataFrame]
) -> None:
    codes = codes_of(5000)
    mews = serve(codes, keep_history=True)
    mews.server.faults.mutate(2.5, seed=3)
    cursors: list[str] = []
    limitation: dict[str, Any] = {"Count": 10}
    for _ in range(40):
        page = mews.post(GET_CODES, Limitation=limitation).json()
        cursors.append(page["Cursor"])
        limitation["Cursor"] = page["Cursor"] if page["VoucherCodes"] else None
    history = mews.server.history()
    changed = history["Id"].value_counts().loc[lambda times: times > 1].index
    assert len(set(cursors) & set(changed)) > 10
    assert set(codes["Id"]) <= set(history["Id"])
    assert history["Value"].str.startswith("M-").any()
    assert (mews.server.codes()["ActivityState"] == "Deleted").any()
    added = mews.server.codes().query("Value.str.startswith('M-')")
    assert 40 * 2.5 * 0.8 < len(history) - len(codes) < 40 * 2.5 * 1.2
    assert len(added) < len(history) - len(codes)


def test_a_client_that_leaves_early_harms_nobody(serve: Callable[..., Any]) -> None:
    mews = serve()
    host, port = mews.server.address.removeprefix("http://").split(":")
    head = f"POST /api/connector/v1/{ADD} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall((head + "Content-Length: 1000\r\n\r\n{").encode())
    assert mews.post(ADD).status_code == 200
    assert values(mews).count("NEW") == 1
