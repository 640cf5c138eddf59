"""One request to Mews and its answer: tokens, understanding, the server's clock.

Tokens travel in the body of every request, so they are put in at the very last moment, in the one frame that
also catches whatever goes wrong there. An error leaves that frame as a value and is raised outside, without a
cause: so no traceback, however verbose, shows a token, and a server that echoes one is masked.
"""

import hashlib
import json
import logging
import socket
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
from pydantic import SecretStr

from vouchertools import contract
from vouchertools.contract import Page
from vouchertools.errors import (
    ApiError,
    InputError,
    NoAnswerError,
    NotFoundError,
    SettingsError,
    UnreachableError,
    UnreadableAnswerError,
    error_for_status,
)
from vouchertools.pace import Time
from vouchertools.settings import check_address, is_loopback

#: The sandbox names itself in this header; nothing else makes an environment a sandbox.
SANDBOX_HEADER: Final = "Vouchertools-Sandbox"
#: Idle connections are dropped before common servers drop them (5 s): no request leaves on a dead one.
KEEPALIVE_S: Final = 3.0

_LOG = logging.getLogger("vouchertools")
_NEVER_REACHED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class Wire:
    """The connection to one platform address with one pair of tokens; safe to use from several threads.

    Parameters
    ----------
    platform_address, client_token, access_token
        As for ``vt.Client``.
    client_name
        Name and version of the application, sent with every request.
    timeout
        Seconds to wait for a connection, and for each piece of an answer.
    clock
        The clock; for tests.

    Attributes
    ----------
    address
        The platform address in its plain form.
    host
        Its host name.
    place
        Its host, with the port where one is given.
    has_answered
        Whether any answer came yet.
    sandbox_id
        What the sandbox calls itself; None before the first answer, and for anything but a sandbox.

    Raises
    ------
    SettingsError
        The address or a token cannot be used.
    """

    def __init__(
        self,
        platform_address: str,
        client_token: SecretStr,
        access_token: SecretStr,
        *,
        client_name: str,
        timeout: float,
        clock: Time,
    ) -> None:
        self.address = check_address(platform_address)
        url = _url(self.address)
        self.host = url.host
        self.place = f"{url.host}:{url.port}" if url.port else url.host
        self.has_answered = False
        self.sandbox_id: str | None = None
        self._tokens = (client_token, access_token)
        self._client_name = client_name
        self._clock = clock
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEEPALIVE_S
            ),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            trust_env=not is_loopback(self.address),
            verify=url.scheme == "https",  # loading the certificates takes 20 ms, and http has none
        )
        self._server_time: tuple[datetime, float] | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._sockets_lock = threading.Lock()
        self._local = threading.local()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that tell two access tokens apart and give neither away."""
        digest = hashlib.sha256(f"vouchertools {self.place} ".encode())
        digest.update(self._tokens[1].get_secret_value().encode())
        return digest.hexdigest()[:16]

    @property
    def last_request_id(self) -> str | None:
        """The server's `Request-Id` of this thread's latest answer."""
        return getattr(self._local, "request_id", None)

    @property
    def server_now(self) -> datetime | None:
        """The server's clock, carried on from its latest answer; None before the first."""
        if self._server_time is None:
            return None
        date, read_at = self._server_time
        return date + timedelta(seconds=self._clock.monotonic() - read_at)

    def break_off(self) -> None:
        """Shut every connection: what waits for one fails at once; new ones are made as needed."""
        with self._sockets_lock:
            sockets = list(self._sockets)
        for connection in sockets:
            try:
                # Not SSLSocket.shutdown: it takes the encryption off first, and a thread may be sending.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                continue  # closed meanwhile

    def exchange(
        self, operation: str, body: dict[str, Any], *, before_sending: Callable[[], None] = lambda: None
    ) -> Any:
        """Send one request and understand its answer; what went wrong is returned, not raised.

        `before_sending` is called when there is a connection that `break_off` would shut; what it raises
        ends the exchange.
        """

        def trace(event: str, info: dict[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                connection = info["return_value"].get_extra_info("socket")
                if connection is not None:
                    with self._sockets_lock:
                        self._sockets.add(connection)
            elif event.endswith("send_request_headers.started"):
                before_sending()

        if self._http.is_closed:
            return InputError("This client is closed. Make a new one.")
        try:
            with self._http.stream(
                "POST",
                f"{self.address}{contract.API_PATH}{operation}",
                content=self._encode(body),
                extensions={"trace": trace},
            ) as response:
                return self._understand(operation, response)
        except _NEVER_REACHED as error:
            return UnreachableError(
                f"No connection to {self.place}: {self._mask(str(error)) or type(error).__name__}.",
                advice="Check the network and MEWS_PLATFORM_ADDRESS.",
            )
        except httpx.HTTPError as error:
            return NoAnswerError(
                f"No answer from {self.place} to {operation}: "
                f"{self._mask(str(error)) or type(error).__name__}."
            )
        except BaseException as error:
            return _bare(error)

    def _encode(self, body: dict[str, Any]) -> bytes:
        client_token, access_token = self._tokens
        return json.dumps(
            {
                "ClientToken": client_token.get_secret_value(),
                "AccessToken": access_token.get_secret_value(),
                "Client": self._client_name,
                **body,
            }
        ).encode()

    def _understand(self, operation: str, response: httpx.Response) -> Any:
        """What an answer says, or the error that it is or deserves, which shows no token."""
        request_id = response.headers.get("Request-Id")
        self._local.request_id = request_id = request_id and self._mask(request_id)
        try:
            return self._read(operation, response)
        except ApiError as error:
            failure = error
        failure.message = self._mask(failure.message)
        failure.args = (failure.message,)
        failure.status_code, failure.request_id = response.status_code, request_id
        _LOG.debug("%s: %s", operation, failure)
        return _bare(failure)

    def _read(self, operation: str, response: httpx.Response) -> Any:
        self._note_server(response)
        status = response.status_code
        succeeded = 200 <= status < 300
        try:
            content = response.read()
        except httpx.HTTPError as error:
            if succeeded:
                raise UnreadableAnswerError(f"The answer to {operation} was cut off: {error}.") from None
            content = b""
        if succeeded:
            return _parse(operation, status, content)
        raise error_for_status(status, _message(operation, content), retry_after=_retry_after(response))

    def _note_server(self, response: httpx.Response) -> None:
        """Learn the server's clock and name.

        Raises
        ------
        NotFoundError
            Another sandbox answers than before, or none where one was: perhaps a tunnel to Mews.
        """
        date = _http_date(response.headers.get("Date"))
        if date is not None:
            self._server_time = (date, self._clock.monotonic())
        sandbox_id = response.headers.get(SANDBOX_HEADER)
        if self.has_answered and self.sandbox_id != sandbox_id:
            raise NotFoundError(
                f"Another server answers at {self.place} than before.", advice="Make a new client for it."
            )
        self.sandbox_id = sandbox_id
        self.has_answered = True

    def _mask(self, text: str) -> str:
        for token in self._tokens:
            text = text.replace(token.get_secret_value(), "***")
        return text


def secret(token: str | SecretStr, name: str) -> SecretStr:
    """A token as a secret, without blanks around it.

    Raises
    ------
    SettingsError
        There is nothing in it.
    """
    text = token.get_secret_value() if isinstance(token, SecretStr) else token
    if not isinstance(text, str) or not text.strip():
        raise SettingsError(f"{name} is empty. Take it from the integration's settings in Mews.")
    return SecretStr(text.strip())


def _url(address: str) -> httpx.URL:
    # Raised outside the handler: a half-made httpx.URL breaks whatever shows the variables of a traceback.
    try:
        return httpx.URL(address)
    except httpx.InvalidURL as error:
        problem = str(error)
    raise SettingsError(f"The platform address cannot be read: {problem}.")


def _bare(error: BaseException) -> BaseException:
    """An error without the frames and errors that it came through: they hold bodies."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _parse(operation: str, status: int, content: bytes) -> Any:
    """What a 2xx says; 204 is an empty page, or an empty success."""
    empty = status == 204
    if operation == "voucherCodes/getAll":
        return Page(contract.empty_table(), None) if empty else contract.parse_page(content)
    if operation == "voucherCodes/add":
        return contract.parse_added(b"" if empty else content)
    if operation == "voucherCodes/delete":
        return {} if empty else contract.parse_object(content)
    key = operation.partition("/")[0].capitalize()
    return ([], None) if empty else contract.parse_records(content, key)


def _message(operation: str, content: bytes) -> str:
    """The server's own words about a refusal."""
    try:
        message = json.loads(content)["Message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = None
    if isinstance(message, str) and message.strip():
        return message
    kind = "an HTML page" if content.lstrip()[:1] == b"<" else "no explanation"
    return f"{operation} was answered with {kind}."


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, as `Retry-After` says in seconds or as a date, which counts from the answer's own."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        until = _http_date(text)
        since = _http_date(response.headers.get("Date")) or datetime.now(UTC)
        return None if until is None else max(0.0, (until - since).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
