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
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
from pydantic import SecretStr

from vouchertools import contract
from vouchertools.contract import Page
from vouchertools.errors import (
    ApiError,
    NoAnswerError,
    SettingsError,
    UnreachableError,
    UnreadableAnswerError,
    error_for_status,
)
from vouchertools.pace import Time
from vouchertools.settings import check_address, is_loopback

#: The sandbox names itself in this header; nothing else makes an environment a sandbox.
SANDBOX_HEADER: Final = "Vouchertools-Sandbox"
#: Idle connections are dropped before common servers drop them (5 s), so that no request leaves on a dead
#: one.
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
    sandbox_id
        What the sandbox calls itself; None before the first answer, and for anything but a sandbox.
    """

    def __init__(
        self,
        platform_address: str,
        client_token: str | SecretStr,
        access_token: str | SecretStr,
        *,
        client_name: str,
        timeout: float,
        clock: Time,
    ) -> None:
        self.address = check_address(platform_address)
        url = httpx.URL(self.address)
        self.host = url.host
        self.place = f"{url.host}:{url.port}" if url.port else url.host
        self.sandbox_id: str | None = None
        self._tokens = (_secret(client_token, "client_token"), _secret(access_token, "access_token"))
        self._client_name = client_name
        self._clock = clock
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEEPALIVE_S
            ),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            trust_env=not is_loopback(self.address),
        )
        self._server_time: tuple[datetime, float] | None = None
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._local = threading.local()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that tell two access tokens apart and give neither away."""
        seed = f"vouchertools {self.place} {self._tokens[1].get_secret_value()}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

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
        for connection in list(self._sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed meanwhile

    def exchange(self, operation: str, body: dict[str, Any]) -> Any:
        """Send one request and understand its answer; what went wrong is returned, not raised."""
        client_token, access_token = self._tokens
        try:
            content = json.dumps(
                {
                    "ClientToken": client_token.get_secret_value(),
                    "AccessToken": access_token.get_secret_value(),
                    "Client": self._client_name,
                    **body,
                }
            ).encode()
            with self._http.stream(
                "POST",
                f"{self.address}{contract.API_PATH}{operation}",
                content=content,
                extensions={"trace": self._trace},
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
            return error.with_traceback(None)

    def _understand(self, operation: str, response: httpx.Response) -> Any:
        request_id = self._local.request_id = response.headers.get("Request-Id")
        status = response.status_code
        try:
            content = response.read()
        except httpx.HTTPError as error:
            failure: ApiError = UnreadableAnswerError(f"The answer to {operation} was cut off: {error}.")
            if status >= 300:
                failure = error_for_status(status, f"{operation} failed; the explanation was cut off.")
        else:
            failure = self._note_server(response)  # type: ignore[assignment]
            if failure is None:
                try:
                    if 200 <= status < 300:
                        return _parse(operation, status, content)
                    failure = error_for_status(
                        status, _message(operation, content), retry_after=self._retry_after(response)
                    )
                except ApiError as error:
                    failure = error
        failure.message = self._mask(failure.message)
        failure.args = (failure.message,)
        failure.status_code, failure.request_id = status, request_id
        _LOG.debug("%s: %s", operation, failure)
        return failure.with_traceback(None)

    def _note_server(self, response: httpx.Response) -> ApiError | None:
        """Learn the server's clock and name; an error if another sandbox answers than before."""
        date = _http_date(response.headers.get("Date"))
        if date is not None:
            self._server_time = (date, self._clock.monotonic())
        sandbox_id = response.headers.get(SANDBOX_HEADER)
        if sandbox_id is not None:
            if self.sandbox_id not in (None, sandbox_id):
                return NoAnswerError(
                    f"Another sandbox answers at {self.place} than before.",
                    advice="Make a new client for it.",
                )
            self.sandbox_id = sandbox_id
        return None

    def _retry_after(self, response: httpx.Response) -> float | None:
        text = response.headers.get("Retry-After")
        if text is None:
            return None
        try:
            return max(0.0, float(text))
        except ValueError:
            until = _http_date(text)
            since = _http_date(response.headers.get("Date")) or datetime.now(UTC)
            return None if until is None else max(0.0, (until - since).total_seconds())

    def _mask(self, text: str) -> str:
        for token in self._tokens:
            text = text.replace(token.get_secret_value(), "***")
        return text

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Remember each new socket, so that `stop` can break off what waits for it."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                self._sockets.add(connection)


def _secret(token: str | SecretStr, name: str) -> SecretStr:
    secret = token if isinstance(token, SecretStr) else SecretStr(token)
    if not secret.get_secret_value().strip():
        raise SettingsError(f"{name} is empty. Take it from the integration's settings in Mews.")
    return secret


def _parse(operation: str, status: int, content: bytes) -> Any:
    """What a 2xx says; 204 is an empty page, or an empty success."""
    if operation == "voucherCodes/getAll":
        return Page(contract.empty_table(), None) if status == 204 else contract.parse_page(content)
    if operation == "voucherCodes/add":
        if status == 204:
            raise UnreadableAnswerError("The answer to voucherCodes/add names no created codes.")
        return contract.parse_added(content)
    if status == 204:
        key = {"voucherCodes/delete": None}.get(operation, operation.split("/")[0].capitalize())
        return {} if key is None else {key: [], "Cursor": None}
    try:
        answer = json.loads(content)
    except ValueError:
        raise UnreadableAnswerError(
            f"The answer to {operation} is no JSON; it begins with {content[:40]!r}."
        ) from None
    if not isinstance(answer, dict):
        raise UnreadableAnswerError(f"The answer to {operation} is no JSON object.")
    return answer


def _message(operation: str, content: bytes) -> str:
    """The server's own words about a refusal."""
    try:
        message = json.loads(content)["Message"]
    except (ValueError, KeyError, TypeError):
        kind = "an HTML page" if content.lstrip()[:1] == b"<" else "no explanation"
        return f"{operation} was answered with {kind}."
    return f"{operation}: {message}"


def _http_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (TypeError, ValueError):
        return None
