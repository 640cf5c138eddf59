"""One request and its answer: broken servers, the server's clock and name, and no token anywhere."""

import gc
import json
import logging
import pickle
import signal
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from raw import ACCESS_TOKEN, CLIENT_TOKEN, DATE, RawServer, Reply, answer
from support import HandClock, make_codes

import vouchertools as vt
from vouchertools.errors import (
    ApiError,
    BadRequestError,
    InputError,
    NoAnswerError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    SettingsError,
    UnauthorizedError,
    UnreachableError,
    UnreadableAnswerError,
)
from vouchertools.pace import Retry, Stopped, Time
from vouchertools.wire import Wire, _http_date

YEARS = ("2023-01-01T00:00:00Z", "2023-03-01T00:00:00Z")
VOUCHER, CODE = str(UUID(int=1)), str(UUID(int=2))
ONCE = Retry(attempts=1, attempts_unanswered=1)
HTML = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
PAGE = json.dumps(
    {"VoucherCodes": [{"Id": CODE, "VoucherId": VOUCHER, "ActivityState": "Active"}], "Cursor": CODE}
)


def client_of(address: str, **options: Any) -> vt.Client:
    options = {"retry": ONCE, "clock": HandClock(), "timeout": 10.0} | options
    return vt.Client(address, CLIENT_TOKEN, ACCESS_TOKEN, **options)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def failure(*replies: Reply, act: Callable[[vt.Client], Any] | None = None, **options: Any) -> BaseException:
    """How a call ends whose server gives these replies."""
    with RawServer(*replies) as server, client_of(server.address, **options) as client:
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            (act or read)(client)
        return caught.value


def read(client: vt.Client) -> Any:
    return client.get_all([VOUCHER])


def delete(client: vt.Client) -> Any:
    return client.delete([CODE])


def add(client: vt.Client) -> Any:
    return client.add(pd.DataFrame({"VoucherId": [VOUCHER], "Value": ["A"]}))


# ---- answers that break the contract ----


@pytest.mark.parametrize("act", [read, add, delete, vt.Client.vouchers])
@pytest.mark.parametrize(
    "body",
    [HTML, "", "   ", "null", "[]", "5", '"text"', "not json", "{", '{"VoucherCodes": [', "\xff"],
)
def test_a_success_that_cannot_be_read_is_never_taken_for_one(act: Callable[..., Any], body: str) -> None:
    error = failure(answer(body), act=act)
    assert type(error) is UnreadableAnswerError
    assert (error.status_code, error.request_id) == (200, "r-1")


@pytest.mark.parametrize("act", [read, add, vt.Client.vouchers])
@pytest.mark.parametrize("body", ["{}", '{"Message": "?"}', '{"VoucherCodes": null, "Enterprises": null}'])
def test_a_success_of_another_shape_is_never_taken_for_one(act: Callable[..., Any], body: str) -> None:
    assert type(failure(answer(body), act=act)) is UnreadableAnswerError


@pytest.mark.parametrize("act", [read, add, delete, vt.Client.vouchers])
@pytest.mark.parametrize("arrived", [0, 1, 40, len(PAGE) - 1])
def test_an_answer_that_is_cut_off_is_unreadable_not_lost(act: Callable[..., Any], arrived: int) -> None:
    error = failure(answer(PAGE[:arrived], length=len(PAGE)), act=act)
    assert type(error) is UnreadableAnswerError
    assert "was cut off" in str(error)
    assert error.request_id == "r-1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_a_refusal_whose_explanation_is_cut_off_is_still_that_refusal(status: int) -> None:
    error = failure(answer('{"Message": "No', status, length=100))
    assert isinstance(error, ApiError)
    assert error.status_code == status
    assert not isinstance(error, UnreadableAnswerError)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"Message": "Invalid Count", "RequestId": "x"}', "Invalid Count"),
        ('{"Message": "Kód není platný"}', "Kód není platný"),
        (HTML, "voucherCodes/getAll was answered with an HTML page."),
        ("", "voucherCodes/getAll was answered with no explanation."),
        ("{}", "voucherCodes/getAll was answered with no explanation."),
        ("[]", "voucherCodes/getAll was answered with no explanation."),
        ("null", "voucherCodes/getAll was answered with no explanation."),
        ('{"Message": null}', "voucherCodes/getAll was answered with no explanation."),
        ('{"Message": " "}', "voucherCodes/getAll was answered with no explanation."),
        ('{"Message": {"a": 1}}', "voucherCodes/getAll was answered with no explanation."),
        ("[" * 200_000, "voucherCodes/getAll was answered with no explanation."),
    ],
)
def test_a_refusal_carries_the_servers_own_words_or_says_that_there_are_none(body: str, message: str) -> None:
    error = failure(answer(body, 400))
    assert isinstance(error, BadRequestError)
    assert error.message == message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_so_tokens_stay_where_they_were_sent(status: int) -> None:
    with RawServer(answer(PAGE)) as other:
        error = failure(answer("", status, Location=f"{other.address}/api/connector/v1/voucherCodes/getAll"))
        assert other.bodies == []
    assert type(error) is UnreadableAnswerError
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("status", [402, 407, 418, 422, 451])
def test_a_status_outside_the_contract_is_unreadable(status: int) -> None:
    error = failure(answer("{}", status))
    assert type(error) is UnreadableAnswerError
    assert "is a proxy in between?" in str(error)


def test_no_content_is_an_empty_page_or_an_empty_success() -> None:
    with RawServer(answer(status=204)) as server, client_of(server.address) as client:
        page = client.get_all([VOUCHER])
        assert (len(page), page.cursor) == (0, None)
        assert client.delete([CODE]) is None
        assert client.vouchers().empty


def test_no_content_says_nothing_about_what_was_added() -> None:
    assert type(failure(answer(status=204), act=add)) is UnreadableAnswerError


def test_vouchers_with_fields_of_another_type_are_refused() -> None:
    enterprises = answer(json.dumps({"Enterprises": [{"Id": "e", "Name": "Hotel"}], "Cursor": None}))
    service = {"Id": "s", "EnterpriseId": "e", "Names": {"en-US": "Stay"}}
    services = answer(json.dumps({"Services": [service], "Cursor": None}))
    voucher = {"Id": "v", "ServiceId": "s", "Name": "Spring", "IsActive": True}
    for change in (
        {"CreatedUtc": "soon"},
        {"UpdatedUtc": {}},
        {"IsActive": "yes"},
        {"ServiceId": ["s"]},
        {"EnterpriseId": ["e"]},
        {"Name": 5},
        {"ExternalIdentifier": {"a": 1}},
    ):
        vouchers = answer(json.dumps({"Vouchers": [voucher | change], "Cursor": None}))
        error = failure(enterprises, services, vouchers, act=vt.Client.vouchers)
        assert type(error) is UnreadableAnswerError, change
        assert "not what the contract promises" in str(error)
    odd_services = answer(json.dumps({"Services": [service | {"Names": ["Stay"]}], "Cursor": None}))
    vouchers = answer(json.dumps({"Vouchers": [voucher], "Cursor": None}))
    error = failure(enterprises, odd_services, vouchers, act=vt.Client.vouchers)
    assert type(error) is UnreadableAnswerError


def test_a_cursor_that_comes_twice_is_an_error_rather_than_an_endless_walk() -> None:
    full = answer(json.dumps({"Enterprises": [{"Id": f"e{i}"} for i in range(1000)], "Cursor": "again"}))
    error = failure(full, act=vt.Client.vouchers)
    assert isinstance(error, vt.VoucherToolsError)
    assert "answered the cursor again twice" in str(error)


# ---- no answer ----


def test_a_refused_connection_is_unreachable_and_a_closed_one_is_no_answer() -> None:
    with client_of(f"http://127.0.0.1:{closed_port()}") as client, pytest.raises(UnreachableError) as caught:
        client.get_all([VOUCHER])
    assert "Check the network and MEWS_PLATFORM_ADDRESS." in str(caught.value)
    assert caught.value.status_code is None
    lost = failure(None)
    assert type(lost) is NoAnswerError
    assert lost.request_id is None


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with (
        client_of("https://nowhere.invalid") as client,
        pytest.raises(UnreachableError, match=r"nowhere\.invalid"),
    ):
        client.get_all([VOUCHER])


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 200 OK\r\nContent-", b"\x16\x03\x01 no http at all\r\n\r\n", b"\r\n"]
)
def test_half_a_head_or_another_protocol_is_no_answer(reply: bytes) -> None:
    assert type(failure(reply)) is NoAnswerError


def test_a_server_that_says_nothing_in_time_is_no_answer() -> None:
    gate = threading.Event()

    def hang(_: bytes) -> None:
        gate.wait(20)

    try:
        with RawServer(hang) as server, client_of(server.address, timeout=0.2) as client:
            with pytest.raises(NoAnswerError) as caught:
                client.delete([CODE])
            assert type(caught.value) is NoAnswerError
            assert "timed out" in str(caught.value)
            gate.set()
    finally:
        gate.set()


def test_a_closed_client_says_so() -> None:
    client = client_of("http://127.0.0.1:9")
    client.close()
    with pytest.raises(InputError, match="This client is closed"):
        client.get_all([VOUCHER])


# ---- Retry-After ----


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("Fri, 01 Mar 2024 12:00:42 GMT", 42.0),
        ("Fri, 01 Mar 2024 11:59:00 GMT", 0.0),
        ("Fri, 01 Mar 2024 13:00:42 +0100", 42.0),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_seconds_or_a_date_by_the_servers_own_clock(
    header: str | None, seconds: float | None, status: int
) -> None:
    headers = {} if header is None else {"Retry_After": header}
    error = failure(answer("{}", status, **headers))
    assert isinstance(error, RateLimitedError if status == 429 else ServerError)
    assert error.retry_after == seconds


def test_a_date_in_retry_after_is_waited_for_though_the_laptops_clock_is_years_off() -> None:
    clock = HandClock()
    limited = answer("{}", 429, Retry_After="Fri, 01 Mar 2024 12:00:42 GMT")
    with (
        RawServer(limited, answer(PAGE)) as server,
        client_of(server.address, clock=clock, retry=Retry()) as client,
    ):
        assert len(client.get_all([VOUCHER])) == 1
    assert clock.waits == [42.0]


# ---- the server's clock and name ----


def test_now_is_the_servers_clock_carried_on_without_asking_again() -> None:
    clock = HandClock()
    with RawServer(answer(PAGE)) as server, client_of(server.address, clock=clock) as client:
        assert client.now().isoformat() == "2024-03-01T12:00:00+00:00"
        clock.forward(90.5)
        assert client.now().isoformat() == "2024-03-01T12:01:30.500000+00:00"
        assert len(server.bodies) == 1
        client.get_all([VOUCHER])
        assert client.now().isoformat() == "2024-03-01T12:00:00+00:00"


def test_now_does_not_depend_on_the_laptops_date(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(answer(PAGE)) as server, client_of(server.address) as client:
        monkeypatch.setattr(time, "time", lambda: 86_400.0)
        assert client.now().isoformat() == "2024-03-01T12:00:00+00:00"


@pytest.mark.parametrize("date", [None, "", "soon", "2024-03-01T12:00:00Z", "Fri, 99 Mar 2024 12:00:00 GMT"])
def test_a_server_that_does_not_tell_the_time_is_a_clear_error_once_it_is_needed(date: str | None) -> None:
    with RawServer(answer(PAGE, date=date)) as server, client_of(server.address, retry=Retry()) as client:
        assert len(client.get_all([VOUCHER])) == 1
        assert client.environment == f"127.0.0.1:{server.port}"
        with pytest.raises(UnreadableAnswerError, match="no readable Date header"):
            client.now()
        assert len(server.bodies) == 2


@pytest.mark.parametrize("reply", [answer(HTML, 502), answer("{}", 401), answer("{}", 429), answer(HTML)])
def test_any_answer_tells_the_time(reply: bytes) -> None:
    with RawServer(reply) as server, client_of(server.address, retry=Retry()) as client:
        assert client.now().isoformat() == "2024-03-01T12:00:00+00:00"
        assert len(server.bodies) == 1


@pytest.mark.parametrize("ask", [lambda client: client.now(), lambda client: client.environment])
def test_asking_a_server_that_is_not_there_is_unreachable(ask: Callable[[vt.Client], Any]) -> None:
    clock = HandClock()
    with client_of(f"http://127.0.0.1:{closed_port()}", clock=clock, retry=Retry()) as client:
        with pytest.raises(UnreachableError):
            ask(client)
        assert len(clock.waits) == 4


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{1,5} \d\d:\d\d:\d\d [-+]?\w{3,4}")
)
def test_a_date_that_cannot_be_read_is_none_and_never_a_crash(text: str) -> None:
    date = _http_date(text)
    assert date is None or date.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", [DATE, "Fri, 01 Mar 2024 12:00:00 -0000", "Fri Mar  1 12:00:00 2024"])
def test_a_date_without_a_zone_is_utc_wherever_the_laptop_is(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert _http_date(text) == datetime(2024, 3, 1, 12, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("address", "environment"),
    [
        ("https://api.mews.com", "production"),
        ("https://API.Mews.com:443/", "production"),
        ("https://api.mews-demo.com", "demo"),
    ],
)
def test_a_host_of_mews_is_known_without_asking(address: str, environment: str) -> None:
    with client_of(address) as client:
        assert client.environment == environment
        assert not client.is_sandbox
        assert environment in repr(client)


def test_an_address_on_this_machine_is_no_sandbox_unless_it_says_so() -> None:
    with RawServer(answer(PAGE)) as server, client_of(server.address) as client:
        assert client.environment == f"127.0.0.1:{server.port}"
        assert not client.is_sandbox
        assert len(server.bodies) == 1


NAMES = {"sandbox": "0123abcd", "another sandbox": "ffffffff", "no sandbox": None}


def named(name: str, status: int = 200) -> bytes:
    headers = {} if NAMES[name] is None else {"Vouchertools_Sandbox": str(NAMES[name])}
    return answer(PAGE, status, **headers)


@pytest.mark.parametrize(("before", "after"), list(permutations(NAMES, 2)))
@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize("act", [read, delete])
def test_another_server_at_the_same_address_ends_the_call_at_once(
    before: str, after: str, status: int, act: Callable[..., Any]
) -> None:
    with (
        RawServer(named(before), named(after, status)) as server,
        client_of(server.address, retry=Retry()) as client,
    ):
        environment = client.environment
        with pytest.raises(NotFoundError, match="Another server answers at 127") as caught:
            act(client)
        assert caught.value.status_code == status
        assert len(server.bodies) == 2
        assert client.environment == environment


# ---- no token, anywhere ----


def echo(status: int = 200, before: bytes = b"", after: bytes = b"") -> Reply:
    """A server that answers with what it was sent."""
    return lambda body: answer(before + body + after, status)


def message_with(body: bytes) -> bytes:
    """A server that quotes the tokens in its explanation, as JSON and in the head."""
    sent = json.loads(body)
    text = f"Invalid AccessToken {sent['AccessToken']} for {sent['ClientToken']}"
    return answer(json.dumps({"Message": text}), 401, X_Debug="1")


def interrupt(_: bytes) -> bytes:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    return answer(PAGE)


def half_time(body: bytes) -> bytes:
    """A time that is none and holds a token."""
    token = json.loads(body)["AccessToken"]
    code = {"Id": CODE, "VoucherId": VOUCHER, "ActivityState": "Active", "CreatedUtc": f"at {token}"}
    return answer(json.dumps({"VoucherCodes": [code], "Cursor": None}))


KINDS: dict[str, Reply] = {
    "lost": None,
    "HTML": answer(HTML),
    "refused as HTML": answer(HTML, 502),
    "echo": echo(),
    "echo as text": echo(before=b"You sent: "),
    "echo and more": echo(after=b"{"),
    "echo cut short": lambda body: answer(body, length=10_000),
    "echo without an end": lambda body: answer(body[:-1]),
    "echo in UTF-16": lambda body: answer(body.decode().encode("utf-16")),
    "echo in a refusal": echo(400),
    "echo in the message": message_with,
    "echo in a time": half_time,
    "redirect": answer("", 302, Location="http://127.0.0.1:9/"),
    "cut off": answer(PAGE[:30], length=len(PAGE)),
    "another protocol": b"no http\r\n\r\n",
    "limited": answer("{}", 429, Retry_After="1"),
    "interrupt": interrupt,
}


def everything_shown_by(error: BaseException) -> str:
    """All that a log, a traceback with locals, a debugger or a pickle could show of an error."""
    shown = [repr(error), str(error), repr(error.args), repr(vars(error))]
    shown += traceback.format_exception(error)
    shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    if isinstance(error, vt.VoucherToolsError):
        shown.append(repr(pickle.dumps(error)))
    assert error.__cause__ is None
    assert error.__context__ is None
    return "\n".join(shown)


def assert_no_token(text: str) -> None:
    for token in (CLIENT_TOKEN, ACCESS_TOKEN):
        assert token not in text
        assert token[:10] not in text, "part of a token"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "act", [read, delete, add, vt.Client.vouchers], ids=["read", "delete", "add", "vouchers"]
)
def test_no_failure_shows_a_token_in_error_traceback_log_or_output(
    kind: str, act: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "vouchertools", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    retry = Retry(attempts=2, attempts_unanswered=2)
    with RawServer(KINDS[kind]) as server, client_of(server.address, retry=retry) as client:
        try:
            act(client)
        except BaseException as error:
            shown = everything_shown_by(error)
        else:
            assert act is delete
            assert kind in ("echo", "echo in UTF-16", "echo in a time")
            shown = ""
        shown += repr(client)
        assert_no_token(shown)
        assert CLIENT_TOKEN.encode() in server.bodies[0]
    assert caplog.records
    assert_no_token(
        "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
    )
    assert_no_token("".join(capfd.readouterr()))


def test_an_interrupt_is_passed_on_as_it_is_and_the_client_stays_usable() -> None:
    with RawServer(interrupt, answer(PAGE)) as server, client_of(server.address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get_all([VOUCHER])
        assert len(client.get_all([VOUCHER])) == 1
        assert len(server.bodies) == 2


def test_no_frame_of_a_client_that_could_not_be_made_shows_a_token() -> None:
    for address, options in (
        ("http://api.mews.com", {}),
        ("https://999.1.1.1", {}),
        ("https://api.mews.com", {"rate_limit": (0, 1.0)}),
        ("https://api.mews.com", {"enterprise_id": "no-uuid"}),
    ):
        with pytest.raises((SettingsError, InputError)) as caught:
            vt.Client(address, CLIENT_TOKEN, ACCESS_TOKEN, **options)  # type: ignore[arg-type]
        trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert_no_token("".join(trace.format()))


def test_an_unreachable_server_shows_no_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with client_of(f"http://127.0.0.1:{closed_port()}") as client, pytest.raises(UnreachableError) as caught:
        client.get_all([VOUCHER])
    assert_no_token(everything_shown_by(caught.value) + caplog.text)


def test_a_token_that_a_server_quotes_is_masked_and_the_rest_of_its_words_kept() -> None:
    error = failure(message_with)
    assert isinstance(error, UnauthorizedError)
    assert error.message == "Invalid AccessToken *** for ***"


def test_a_request_id_that_is_a_token_is_masked() -> None:
    error = failure(lambda body: answer("{}", 400, Request_Id=json.loads(body)["AccessToken"]))
    assert isinstance(error, BadRequestError)
    assert error.request_id == "***"


def test_no_plain_token_can_be_found_from_a_client() -> None:
    client = client_of("https://api.mews.com")
    wire: Any = client._wire
    assert_no_token(f"{client!r} {vars(client)} {vars(wire)} {client.fingerprint}")
    plain = [item for item in gc.get_referents(vars(client), vars(wire)) if isinstance(item, str)]
    assert_no_token(repr(plain))
    client.close()


def test_a_fingerprint_tells_tokens_and_places_apart_and_stays_the_same() -> None:
    def fingerprint(address: str, access_token: str) -> str:
        with vt.Client(address, CLIENT_TOKEN, access_token) as client:
            return client.fingerprint

    mews = fingerprint("https://api.mews.com", ACCESS_TOKEN)
    assert mews == fingerprint("https://API.mews.com/", f" {ACCESS_TOKEN}\n")
    assert mews != fingerprint("https://api.mews.com", ACCESS_TOKEN[:-1])
    assert mews != fingerprint("https://api.mews-demo.com", ACCESS_TOKEN)
    assert len(mews) == 16


def test_tokens_are_sent_without_blanks_around_them_and_the_client_by_its_name() -> None:
    with RawServer(answer(PAGE)) as server:
        with vt.Client(
            server.address, SecretStr(f" {CLIENT_TOKEN}"), f"{ACCESS_TOKEN}\n", client="Mine 1.0"
        ) as client:
            client.get_all([VOUCHER], count=7)
        sent = json.loads(server.bodies[0])
    assert sent == {
        "ClientToken": CLIENT_TOKEN,
        "AccessToken": ACCESS_TOKEN,
        "Client": "Mine 1.0",
        "Limitation": {"Count": 7},
        "VoucherIds": [VOUCHER],
    }


@pytest.mark.parametrize("token", ["", "  ", None, 5, SecretStr(""), SecretStr(" ")])
@pytest.mark.parametrize("which", ["client_token", "access_token"])
def test_an_empty_token_is_named_before_anything_is_sent(token: Any, which: str) -> None:
    tokens = {"client_token": CLIENT_TOKEN, "access_token": ACCESS_TOKEN} | {which: token}
    with pytest.raises(SettingsError, match=f"{which} is empty"):
        vt.Client("https://api.mews.com", **tokens)


# ---- breaking off ----


def test_breaking_off_never_takes_the_encryption_off_a_connection_in_use() -> None:
    near, far = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with far, context.wrap_socket(near, do_handshake_on_connect=False) as encrypted:
        wire = Wire(
            "https://api.mews.com",
            SecretStr(CLIENT_TOKEN),
            SecretStr(ACCESS_TOKEN),
            client_name="tests",
            timeout=1.0,
            clock=Time(),
        )
        wire._sockets.add(encrypted)
        wire.break_off()
        assert far.recv(1) == b""
        with pytest.raises((ssl.SSLError, ConnectionError)):
            encrypted.send(CLIENT_TOKEN.encode())
        with pytest.raises((ssl.SSLError, ConnectionError)):
            encrypted.unwrap()  # a ValueError where nothing is encrypted any more
        wire.close()


@pytest.fixture
def sandbox() -> Iterator[vt.Sandbox]:
    with vt.Sandbox(make_codes(20, days=30)) as sandbox:
        yield sandbox
        sandbox.faults.off()


def in_threads(n: int, act: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    """Threads that act, and how each ended."""
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(act())
        except BaseException as error:
            ends.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(n)]
    for thread in threads:
        thread.start()
    return threads, ends


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def test_stop_breaks_off_reads_under_way_at_once_and_the_client_stays_usable(sandbox: vt.Sandbox) -> None:
    sandbox.faults.next("voucherCodes/getAll", *["hang"] * 8)
    with sandbox.client() as client:
        threads, ends = in_threads(8, lambda: client.get_all(sandbox.voucher_ids, updated=YEARS))
        wait_until(lambda: len(sandbox.requests) == 8)
        began = time.monotonic()
        client.stop()
        join(threads)
        assert time.monotonic() - began < 5
        assert [type(end) for end in ends] == [Stopped] * 8
        assert len(sandbox.requests) == 8
        assert len(client.get_all(sandbox.voucher_ids, updated=YEARS)) == 20


def test_a_write_broken_off_by_stop_says_that_it_may_have_acted_and_is_not_repeated(
    sandbox: vt.Sandbox,
) -> None:
    sandbox.faults.next("voucherCodes/delete", "hang")
    code = sandbox.codes().query("ActivityState == 'Active'")["Id"].iloc[0]
    with sandbox.client() as client:
        threads, ends = in_threads(1, lambda: client.delete([code]))
        wait_until(lambda: len(sandbox.requests) == 1)
        client.stop()
        join(threads)
        assert type(ends[0]) is NoAnswerError
        assert len(sandbox.requests) == 1


def test_stop_can_let_requests_under_way_end(sandbox: vt.Sandbox) -> None:
    gate = threading.Event()
    sandbox.faults.on_page = lambda *_: gate.wait(20)
    with sandbox.client() as client:
        reading = in_threads(1, lambda: client.get_all(sandbox.voucher_ids, updated=YEARS))
        waiting = in_threads(1, lambda: client.wait(3600.0))
        wait_until(lambda: sandbox.faults._pages == 1)
        client.stop(requests=False)
        join(waiting[0])
        gate.set()
        join(reading[0])
        assert isinstance(waiting[1][0], Stopped)
        assert len(reading[1][0]) == 20


def test_a_request_that_is_stopped_before_it_is_sent_is_not_sent(sandbox: vt.Sandbox) -> None:
    with sandbox.client() as client:
        wire: Any = client._wire

        def stop() -> None:
            raise Stopped

        outcome = wire.exchange("voucherCodes/getAll", {}, before_sending=stop)
        assert isinstance(outcome, Stopped)
        assert outcome.__traceback__ is None
        assert sandbox.requests == []
        assert len(client.get_all(sandbox.voucher_ids, updated=YEARS)) == 20


def test_stops_in_the_midst_of_many_connections_leave_no_other_trace_than_stopped() -> None:
    with (
        vt.Sandbox(make_codes(5, days=30), rate_limit=None) as sandbox,
        sandbox.client(rate_limit=(10**6, 1.0)) as client,
    ):
        done = threading.Event()

        def act() -> set[type]:
            kinds: set[type] = set()
            while not done.is_set():
                try:
                    client.get_all(sandbox.voucher_ids, updated=YEARS)
                except BaseException as error:
                    kinds.add(type(error))
            return kinds

        threads, ends = in_threads(6, act)
        for _ in range(60):
            client.stop()
            threading.Event().wait(0.005)
        done.set()
        join(threads)
        assert set.union(*ends) <= {Stopped}
        assert len(client.get_all(sandbox.voucher_ids, updated=YEARS)) == 5
