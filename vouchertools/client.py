"""One authenticated, rate-limited, retrying connection to Mews, and the operations of its API.

Tokens travel in the body of every request, so they are put in at the very last moment, in the one frame that also
catches whatever goes wrong there. An error leaves that frame as a value and is raised outside, without a cause: so no traceback,
however verbose, shows a token, and a server that echoes one is masked.
"""

import json
import logging
import threading
import weakref
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Final, Literal, Self

import httpx
import pandas as pd
from pydantic import SecretStr

from vouchertools import contract
from vouchertools.contract import Interval, Page
from vouchertools.errors import (
    ApiError,
    IncompleteReadError,
    InputError,
    NoAnswerError,
    SettingsError,
    UnreachableError,
    UnreadableAnswerError,
    error_for_status,
)
from vouchertools.pace import Pace, Retry, Time
from vouchertools.settings import check_address, is_loopback

#: The sandbox names itself in this header; nothing else makes an environment a sandbox.
SANDBOX_HEADER: Final = "Vouchertools-Sandbox"
#: Hosts of Mews and what an analyst calls them (guidelines: environments).
ENVIRONMENTS: Final = {"api.mews.com": "production", "api.mews-demo.com": "demo"}
#: Idle connections are dropped before common servers drop them (5 s), so that no request leaves on a dead one.
KEEPALIVE_S: Final = 3.0

_LOG = logging.getLogger("vouchertools")
_NEVER_REACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


class Client:
    """A connection to one Mews platform with one pair of tokens; also a context manager.

    Safe to use from several threads. Reads are repeated on 408, 429, 5xx, unreadable answers and lost connections; writes only where
    the server cannot have acted (429, no connection).

    Parameters
    ----------
    platform_address
        Such as ``https://api.mews.com``; plain http only to this machine.
    client_token, access_token
        The two tokens of the integration; never shown again.
    client
        Name and version of the application, as Mews will see it. None: this package's.
    enterprise_id
        The enterprise that adds and deletes go to; needed with a portfolio access token unless given at each call.
    rate_limit
        Most requests, and in how many seconds. Mews allows 200 in 30 per access token, which other programs may share.
    timeout
        Seconds to wait for a connection, and for each piece of an answer.
    settle_s
        Seconds of server time after which a write that was never answered cannot come into effect any more. An
        assumption: servers give up on a request after tens of seconds.
    retry
        When and how often a request is repeated.
    clock
        The clock and the waiting; for tests.

    Raises
    ------
    SettingsError
        The address or a token cannot be used.
    """

    def __init__(
        self,
        platform_address: str,
        client_token: str | SecretStr,
        access_token: str | SecretStr,
        *,
        client: str | None = None,
        enterprise_id: str | None = None,
        rate_limit: tuple[int, float] = (190, 30.0),
        timeout: float = 30.0,
        settle_s: float = 120.0,
        retry: Retry | None = None,
        clock: Time | None = None,
    ) -> None:
        self._address = check_address(platform_address)
        self._tokens = (_secret(client_token, "client_token"), _secret(access_token, "access_token"))
        self._client_name = client or f"vouchertools/{version('vouchertools')}"
        self.enterprise_id = None if enterprise_id is None else contract.require_ids([enterprise_id], "enterprise_id")[0]
        self.settle_s = settle_s
        self._clock = clock or Time()
        self._pace = Pace(*rate_limit, self._clock)
        self._retry = retry or Retry()
        loopback = is_loopback(self._address)
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEEPALIVE_S),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            trust_env=not loopback,
        )
        host = httpx.URL(self._address)
        self._named = ENVIRONMENTS.get(host.host)
        self._place = f"{host.host}:{host.port}" if host.port else host.host
        self._sandbox_id: str | None = None
        self._server_time: tuple[datetime, float] | None = None
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._local = threading.local()
        #: Whether this server refuses reads without `UpdatedUtc`; learned at the first such read.
        self.requires_updated = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        place = self._named or (f"sandbox-{self._sandbox_id}" if self._sandbox_id else self._place)
        return f"Client(environment={place!r}, platform_address={self._address!r}, tokens=***)"

    def close(self) -> None:
        """Close the connections; a closed client cannot be used again."""
        self._http.close()

    # ---- who and when -------------------------------------------------------------------------------------------

    @property
    def environment(self) -> str:
        """``production``, ``demo``, ``sandbox-<id>``, else ``host:port``.

        Only a sandbox that names itself makes the environment a sandbox: an address on this machine may be a tunnel to
        production. So where the host is not one of Mews, the first look asks the server.
        """
        if self._named is not None:
            return self._named
        if self._server_time is None:
            self._probe()
        return f"sandbox-{self._sandbox_id}" if self._sandbox_id else self._place

    @property
    def is_sandbox(self) -> bool:
        """Whether this is a sandbox: a write there is a rehearsal."""
        return self.environment.startswith("sandbox-")

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that tell two access tokens apart and give neither away."""
        import hashlib

        seed = f"vouchertools {self._place} {self._tokens[1].get_secret_value()}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

    def now(self) -> pd.Timestamp:
        """The server's clock, UTC: the `Date` of its latest answer, carried on. Never ahead of the server."""
        if self._server_time is None:
            self._probe()
        assert self._server_time is not None
        date, read_at = self._server_time
        return pd.Timestamp(date + timedelta(seconds=self._clock.monotonic() - read_at)).as_unit("us")

    def wait(self, seconds: float) -> None:
        """Wait; an interrupt, or `stop` from another thread, ends it."""
        self._pace.sleep(seconds)

    def stop(self) -> None:
        """Break off every request and every wait that is under way in other threads; the client stays usable."""
        self._pace.stop()
        for connection in list(self._sockets):
            _shut(connection)

    @property
    def last_request_id(self) -> str | None:
        """The server's `Request-Id` of this thread's latest answer."""
        return getattr(self._local, "request_id", None)

    # ---- operations ---------------------------------------------------------------------------------------------

    def get_all(
        self,
        voucher_ids: Any,
        *,
        updated: Interval | tuple[Any, Any] | None = None,
        voucher_code_ids: Iterable[str] | None = None,
        enterprise_ids: Iterable[str] | None = None,
        count: int = contract.MAX_ITEMS,
        cursor: str | None = None,
    ) -> Page:
        """One page of ``voucherCodes/getAll``, newest first.

        Parameters
        ----------
        voucher_ids
            At most 1000 ids, or a frame with an ``Id`` column.
        updated
            Start and end of `UpdatedUtc`, aware; at most three months apart.
        voucher_code_ids, enterprise_ids
            At most 1000 ids each; None means no restriction.
        count
            Most codes to answer, 1 to 1000.
        cursor
            `Page.cursor` of the page before.

        Raises
        ------
        InputError
            An argument cannot be used; nothing was sent.
        ApiError
            The API refused or failed.
        """
        if isinstance(updated, tuple):
            start, end = (contract.to_utc(end, "updated") for end in updated)
            if start > end:
                raise InputError(f"updated starts at {start} after it ends at {end}. Swap the two.")
            updated = Interval(start, end)
        if not 1 <= count <= contract.MAX_ITEMS:
            raise InputError(f"count={count} is not in 1..{contract.MAX_ITEMS}.")
        return self.page(
            _at_most(contract.require_ids(voucher_ids, "voucher_ids"), "voucher_ids"),
            updated=updated,
            voucher_code_ids=_optional_ids(voucher_code_ids, "voucher_code_ids"),
            enterprise_ids=_optional_ids(enterprise_ids, "enterprise_ids"),
            count=count,
            cursor=cursor,
        )

    def page(
        self,
        voucher_ids: Sequence[str],
        *,
        updated: Interval | None,
        voucher_code_ids: Sequence[str] | None = None,
        enterprise_ids: Sequence[str] | None = None,
        count: int = contract.MAX_ITEMS,
        cursor: str | None = None,
        retry_408: bool = True,
    ) -> Page:
        """`get_all` without its checks, for callers that have made them; `retry_408=False` leaves a 408 to the caller."""
        body = contract.get_all_body(
            voucher_ids,
            updated=updated,
            voucher_code_ids=voucher_code_ids,
            enterprise_ids=enterprise_ids,
            count=count,
            cursor=cursor,
        )
        page: Page = self._call("voucherCodes/getAll", body, kind="read" if retry_408 else "read-once-on-408")
        return page

    def add(self, rows: pd.DataFrame, *, enterprise_id: str | None = None) -> pd.DataFrame:
        """One call of ``voucherCodes/add``: not repeated once the server may have acted.

        Parameters
        ----------
        rows
            1 to 1000 rows with ``VoucherId``, ``Value`` and, where wanted, ``ValidityStartUtc`` and ``ValidityEndUtc``.
        enterprise_id
            The enterprise of the vouchers; None: the client's.

        Returns
        -------
        DataFrame
            The created codes in the shape of ``fetch``, in any order; ``attrs["request_id"]`` is the server's.
        """
        items = _at_most(contract.add_items(rows), "rows")
        if not items:
            raise InputError("rows is empty: there is nothing to add.")
        body = {**self._enterprise(enterprise_id), "VoucherCodeParameters": items}
        table = self._call("voucherCodes/add", body, kind="write")
        frame = contract.to_pandas(table)
        frame.attrs["request_id"] = self.last_request_id
        return frame

    def delete(self, voucher_code_ids: Iterable[str], *, enterprise_id: str | None = None) -> None:
        """One call of ``voucherCodes/delete`` with 1 to 1000 ids: not repeated once the server may have acted."""
        ids = _at_most(contract.require_ids(voucher_code_ids, "voucher_code_ids"), "voucher_code_ids")
        self._call("voucherCodes/delete", {**self._enterprise(enterprise_id), "VoucherCodeIds": list(ids)}, kind="write")

    def vouchers(self, service_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Every voucher that the access token can see, inactive ones and those of inactive services too.

        Parameters
        ----------
        service_ids
            Only the vouchers of these services; None: of all.

        Returns
        -------
        DataFrame
            One row a voucher, sorted by enterprise and name: ``Id``, ``Name``, ``ServiceId``, ``ServiceName``, ``EnterpriseId``, ``EnterpriseName``,
            ``TimeZone`` (IANA), ``Type``, ``IsActive``, ``CreatedUtc``, ``UpdatedUtc``, ``ExternalIdentifier``.
        """
        enterprises = self._records("enterprises/getAll", {}, "Enterprises")
        only = {} if service_ids is None else {"ServiceIds": contract.require_ids(service_ids, "service_ids")}
        services = self._records("services/getAll", only, "Services", divide="ServiceIds")
        vouchers = (
            self._records(
                "vouchers/getAll",
                {"Extent": {"Vouchers": True}, "ServiceIds": [service["Id"] for service in services]},
                "Vouchers",
                divide="ServiceIds",
            )
            if services
            else []
        )
        return _voucher_frame(enterprises, services, vouchers)

    # ---- one request --------------------------------------------------------------------------------------------

    def _enterprise(self, enterprise_id: str | None) -> dict[str, Any]:
        chosen = enterprise_id or self.enterprise_id
        return {} if chosen is None else {"EnterpriseId": contract.require_ids([chosen], "enterprise_id")[0]}

    def _records(self, operation: str, body: dict[str, Any], key: str, *, divide: str = "") -> list[dict[str, Any]]:
        """Every record of a paged operation; the list under `divide` is sent in pieces of at most 1000."""
        found: dict[str, dict[str, Any]] = {}
        pieces = [{divide: list(ids)} for ids in contract.chunks(body[divide])] if divide in body else [{}]
        for piece in pieces:
            cursor, used = None, set()
            while True:
                limitation = {"Count": contract.MAX_ITEMS} | ({"Cursor": cursor} if cursor else {})
                answer = self._call(operation, {**body, **piece, "Limitation": limitation}, kind="read")
                items = contract.parse_records(answer, key)
                found.update((item["Id"], item) for item in items)
                cursor = answer.get("Cursor")
                if cursor is None or len(items) < contract.MAX_ITEMS:
                    break
                if cursor in used:
                    raise IncompleteReadError(f"{operation} answered the cursor {cursor} twice: its pages cannot be trusted.")
                used.add(cursor)
        return list(found.values())

    def _call(self, operation: str, body: dict[str, Any], *, kind: Literal["read", "read-once-on-408", "write"]) -> Any:
        retry = self._retry
        loop = retry.loop(write=kind == "write", pace=self._pace, retry_408=kind != "read-once-on-408")
        return loop(self._once, operation, body)

    def _once(self, operation: str, body: dict[str, Any]) -> Any:
        with self._pace.request():
            outcome = self._exchange(operation, body)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _probe(self) -> None:
        """Ask for the server's clock and name; what else the answer says does not matter."""
        retry = self._retry.loop(write=False, pace=self._pace)

        def ask() -> None:
            with self._pace.request():
                outcome = self._exchange("enterprises/getAll", {"Limitation": {"Count": 1}})
            if self._server_time is None and isinstance(outcome, BaseException):
                raise outcome
            if self._server_time is None:
                raise UnreadableAnswerError("The answers carry no Date header, so the server's clock is unknown.")

        retry(ask)

    def _exchange(self, operation: str, body: dict[str, Any]) -> Any:
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
                f"{self._address}{contract.API_PATH}{operation}",
                content=content,
                extensions={"trace": self._trace},
            ) as response:
                return self._understand(operation, response)
        except _NEVER_REACHED as error:
            return UnreachableError(
                f"No connection to {self._place}: {self._mask(str(error)) or type(error).__name__}.",
                advice="Check the network and MEWS_PLATFORM_ADDRESS.",
            )
        except httpx.HTTPError as error:
            return NoAnswerError(
                f"No answer from {self._place} to {operation}: {self._mask(str(error)) or type(error).__name__}."
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
                    failure = error_for_status(status, _message(operation, content), retry_after=self._retry_after(response))
                except ApiError as error:
                    failure = error
        failure.message = self._mask(failure.message)
        failure.args = (failure.message,)
        failure.status_code, failure.request_id = status, request_id
        _LOG.debug("%s: %s", operation, failure)
        return failure.with_traceback(None)

    def _note_server(self, response: httpx.Response) -> ApiError | None:
        """Learn the server's clock and name from an answer; an error if another sandbox answers than before."""
        date = _http_date(response.headers.get("Date"))
        if date is not None:
            self._server_time = (date, self._clock.monotonic())
        sandbox_id = response.headers.get(SANDBOX_HEADER)
        if sandbox_id is not None:
            if self._sandbox_id not in (None, sandbox_id):
                return NoAnswerError(
                    f"Another sandbox answers at {self._place} than before.", advice="Make a new client for it."
                )
            self._sandbox_id = sandbox_id
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


def _at_most(items: Sequence[Any], name: str) -> Any:
    if len(items) > contract.MAX_ITEMS:
        raise InputError(
            f"{name} has {len(items)} items; one call takes at most {contract.MAX_ITEMS}. vt.fetch and vt.apply_plan take any number."
        )
    return items


def _optional_ids(ids: Iterable[str] | None, name: str) -> list[str] | None:
    checked: list[str] | None = None if ids is None else _at_most(contract.require_ids(ids, name), name)
    return checked


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
        raise UnreadableAnswerError(f"The answer to {operation} is no JSON; it begins with {content[:40]!r}.") from None
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


def _shut(connection: Any) -> None:
    import socket

    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile


def _voucher_frame(
    enterprises: list[dict[str, Any]], services: list[dict[str, Any]], vouchers: list[dict[str, Any]]
) -> pd.DataFrame:
    by_enterprise = {item["Id"]: item for item in enterprises}
    by_service = {item["Id"]: item for item in services}
    rows = []
    for voucher in vouchers:
        service = by_service.get(voucher.get("ServiceId", ""), {})
        enterprise_id = voucher.get("EnterpriseId") or service.get("EnterpriseId")
        enterprise = by_enterprise.get(enterprise_id or "", {})
        rows.append(
            {
                "Id": voucher["Id"],
                "Name": voucher.get("Name"),
                "ServiceId": voucher.get("ServiceId"),
                "ServiceName": service.get("Name") or next(iter((service.get("Names") or {}).values()), None),
                "EnterpriseId": enterprise_id,
                "EnterpriseName": enterprise.get("Name"),
                "TimeZone": enterprise.get("TimeZoneIdentifier"),
                "Type": voucher.get("Type"),
                "IsActive": voucher.get("IsActive"),
                "CreatedUtc": voucher.get("CreatedUtc"),
                "UpdatedUtc": voucher.get("UpdatedUtc"),
                "ExternalIdentifier": voucher.get("ExternalIdentifier"),
            }
        )
    columns = ["Id", "Name", "ServiceId", "ServiceName", "EnterpriseId", "EnterpriseName", "TimeZone", "Type", "IsActive"]
    columns += ["CreatedUtc", "UpdatedUtc", "ExternalIdentifier"]
    frame = pd.DataFrame(rows, columns=columns)
    for column in columns:
        if column == "IsActive":
            frame[column] = frame[column].astype("boolean")
        elif column.endswith("Utc"):
            frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601").astype("datetime64[us, UTC]")
        else:
            frame[column] = frame[column].astype("str")
    return frame.sort_values(["EnterpriseName", "Name", "Id"], ignore_index=True)
