"""One authenticated, rate-limited, retrying connection to Mews, and the operations of its API."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final, Literal, Self

import pandas as pd
from pydantic import SecretStr

from vouchertools import contract
from vouchertools.bulk.show import Notice, Panel
from vouchertools.contract import Interval, Page
from vouchertools.errors import (
    ApiError,
    IncompleteReadError,
    InputError,
    RateLimitedError,
    UnreadableAnswerError,
)
from vouchertools.pace import Pace, Retry, Time
from vouchertools.wire import Wire, secret

#: Hosts of Mews and what an analyst calls them (guidelines: environments).
ENVIRONMENTS: Final = {"api.mews.com": "production", "api.mews-demo.com": "demo"}

_VOUCHER_DTYPES: Final = {
    "Id": "str",
    "Name": "str",
    "ServiceId": "str",
    "ServiceName": "str",
    "EnterpriseId": "str",
    "EnterpriseName": "str",
    "TimeZone": "str",
    "Type": "str",
    "IsActive": "boolean",
    "CreatedUtc": "datetime64[us, UTC]",
    "UpdatedUtc": "datetime64[us, UTC]",
    "ExternalIdentifier": "str",
}


class Client:
    """A connection to one Mews platform with one pair of tokens; also a context manager.

    Safe to use from several threads. Reads are repeated on 408, 429, 5xx, unreadable answers and lost
    connections; writes only where the server cannot have acted (429, no connection).

    Parameters
    ----------
    platform_address
        Such as ``https://api.mews.com``; plain http only to this machine.
    client_token, access_token
        The two tokens of the integration; never shown again.
    client
        Name and version of the application, as Mews will see it. None: this package's.
    enterprise_id
        The enterprise that adds and deletes go to; needed with a portfolio access token unless given at each
        call.
    rate_limit
        Most requests, and in how many seconds. Mews allows 200 in 30 per access token, which other programs
        may share.
    timeout
        Seconds to wait for a connection, and for each piece of an answer.
    settle_s
        Seconds of server time after which a write that was never answered cannot come into effect any more.
        An assumption: servers give up on a request after tens of seconds.
    retry
        When and how often a request is repeated.
    clock
        The clock and the waiting; for tests.

    Raises
    ------
    SettingsError
        The address or a token cannot be used.
    InputError
        The enterprise id or the rate limit cannot be used.
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
        # From here on no frame of this package holds a token that a traceback could show.
        client_token = secret(client_token, "client_token")
        access_token = secret(access_token, "access_token")
        self._clock = clock or Time()
        self._wire = Wire(
            platform_address,
            client_token,
            access_token,
            client_name=client or f"vouchertools/{version('vouchertools')}",
            timeout=timeout,
            clock=self._clock,
        )
        self._pace = Pace(*rate_limit, self._clock)
        self._retry = retry or Retry()
        self.settle_s = settle_s
        self.enterprise_id = _optional_id(enterprise_id, "enterprise_id")
        #: Whether this server refuses reads without `UpdatedUtc`; learned at the first such read.
        self.requires_updated = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "_wire"):  # as tracebacks show one that could not be made
            return "Client(unusable)"
        return f"Client(environment={self._known_environment!r}, address={self._wire.address!r}, tokens=***)"

    def _repr_html_(self) -> str:
        if not hasattr(self, "_wire"):
            return "Client(unusable)"
        name = self._known_environment
        safe = name.startswith("sandbox-")
        words = "A sandbox: nothing done here reaches a hotel." if safe else "What is written here is real."
        facts = {"at": self._wire.address, "enterprise": self.enterprise_id or "", "tokens": "***"}
        return Panel(f"Client of {name}", facts, [Notice("good" if safe else "careful", words)]).to_html()

    def close(self) -> None:
        """Close the connections; a closed client cannot be used again."""
        self._wire.close()

    @property
    def environment(self) -> str:
        """``production``, ``demo``, ``sandbox-<id>``, else ``host:port``.

        Only a sandbox that names itself makes the environment a sandbox: an address on this machine may be a
        tunnel to production. So where the host is not one of Mews, the first look asks the server.

        Raises
        ------
        ApiError
            The server had to be asked and gave no answer.
        """
        if self._wire.host not in ENVIRONMENTS and not self._wire.has_answered:
            self._hear()
        return self._known_environment

    @property
    def _known_environment(self) -> str:
        sandbox_id = self._wire.sandbox_id
        return ENVIRONMENTS.get(self._wire.host) or (
            f"sandbox-{sandbox_id}" if sandbox_id else self._wire.place
        )

    @property
    def is_sandbox(self) -> bool:
        """Whether this is a sandbox: a write there is a rehearsal."""
        return self.environment.startswith("sandbox-")

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that tell two access tokens apart and give neither away."""
        return self._wire.fingerprint

    def now(self) -> pd.Timestamp:
        """The server's clock, UTC: the `Date` of its latest answer, carried on. Never ahead of the server.

        Raises
        ------
        ApiError
            The server had to be asked and gave no answer, or one that does not tell the time.
        """
        if self._wire.server_now is None:
            self._hear()
        now = self._wire.server_now
        if now is None:
            raise UnreadableAnswerError(
                "The answers carry no readable Date header, so the server's clock is unknown."
            )
        return pd.Timestamp(now).as_unit("us")

    def monotonic(self) -> float:
        """Seconds on this machine's clock, only ever forward; for durations."""
        return self._clock.monotonic()

    def wait(self, seconds: float) -> None:
        """Wait for so many seconds; an interrupt, or `stop` from another thread, ends it."""
        self._pace.sleep(seconds, self._pace.stops)

    def stop(self, *, requests: bool = True) -> None:
        """End every call under way in other threads where it waits or repeats, by `pace.Stopped`.

        Requests already sent are broken off too, unless told to let them end; a write that was broken off
        ends by `NoAnswerError`. The client stays usable.
        """
        self._pace.stop()
        if requests:
            self._wire.break_off()

    @property
    def last_request_id(self) -> str | None:
        """The server's `Request-Id` of this thread's latest answer; None before the first."""
        return self._wire.last_request_id

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
            Start and end of `UpdatedUtc`, aware, at most three months apart; None sends no bounds, which the
            reference does not allow.
        voucher_code_ids, enterprise_ids
            At most 1000 ids each; None means no restriction.
        count
            Most codes to answer, 1 to 1000.
        cursor
            `Page.cursor` of the page before.

        Returns
        -------
        Page
            ``table`` (Arrow, the columns of ``fetch``) and ``cursor`` (None on an empty page).

        Raises
        ------
        InputError
            An argument cannot be used; nothing was sent.
        ApiError
            The API refused or failed.
        """
        if not isinstance(count, int) or not 1 <= count <= contract.MAX_ITEMS:
            raise InputError(f"count={count} is not in 1..{contract.MAX_ITEMS}.")
        return self.page(
            _at_most(contract.require_ids(voucher_ids, "voucher_ids"), "voucher_ids"),
            updated=_interval(updated),
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
        """`get_all` for callers that have checked; `retry_408=False` leaves a 408 to them."""
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
            1 to 1000 rows with ``VoucherId``, ``Value`` and, where wanted, ``ValidityStartUtc`` and
            ``ValidityEndUtc``.
        enterprise_id
            The enterprise of the vouchers; None: the client's.

        Returns
        -------
        DataFrame
            The created codes in the shape of ``fetch``, in any order; ``attrs["request_id"]`` is the
            server's.

        Raises
        ------
        InputError
            A row cannot be used; nothing was sent.
        ApiError
            The API refused or failed. The codes may have been added after a `NoAnswerError` that is no
            `UnreachableError`, an `UnreadableAnswerError`, a 408, 409 or 5xx.
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
        """One call of ``voucherCodes/delete``: not repeated once the server may have acted.

        Parameters
        ----------
        voucher_code_ids
            1 to 1000 ids of codes, or a frame with an ``Id`` column.
        enterprise_id
            The enterprise of their vouchers; None: the client's.

        Raises
        ------
        InputError
            An id cannot be used; nothing was sent.
        ApiError
            As for `add`.
        """
        ids = _at_most(contract.require_ids(voucher_code_ids, "voucher_code_ids"), "voucher_code_ids")
        self._call(
            "voucherCodes/delete",
            {**self._enterprise(enterprise_id), "VoucherCodeIds": list(ids)},
            kind="write",
        )

    def vouchers(self, service_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Every voucher that the access token can see, inactive ones and those of inactive services too.

        Parameters
        ----------
        service_ids
            Only the vouchers of these services; None: of all.

        Returns
        -------
        DataFrame
            One row a voucher, sorted by enterprise and name: ``Id``, ``Name``, ``ServiceId``,
            ``ServiceName``, ``EnterpriseId``, ``EnterpriseName``, ``TimeZone`` (IANA), ``Type``,
            ``IsActive`` (``boolean``), ``CreatedUtc``, ``UpdatedUtc`` (``datetime64[us, UTC]``),
            ``ExternalIdentifier``; ``str`` where nothing else is said.

        Raises
        ------
        InputError
            A service id cannot be used; nothing was sent.
        ApiError
            The API refused or failed.
        IncompleteReadError
            The pages cannot be trusted.
        """
        only = {} if service_ids is None else {"ServiceIds": contract.require_ids(service_ids, "service_ids")}
        enterprises = self._records("enterprises/getAll", {})
        services = self._records("services/getAll", only)
        of = {"Extent": {"Vouchers": True}, "ServiceIds": [service["Id"] for service in services]}
        vouchers = self._records("vouchers/getAll", of) if services else []
        return _voucher_frame(enterprises, services, vouchers)

    def _enterprise(self, enterprise_id: str | None) -> dict[str, Any]:
        chosen = _optional_id(enterprise_id, "enterprise_id") or self.enterprise_id
        return {} if chosen is None else {"EnterpriseId": chosen}

    def _records(self, operation: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Every record of a paged operation; `ServiceIds` are sent in pieces of at most 1000."""
        found: dict[str, dict[str, Any]] = {}
        given = body.get("ServiceIds")
        pieces = [{}] if given is None else [{"ServiceIds": list(ids)} for ids in contract.chunks(given)]
        for piece in pieces:
            cursor: str | None = None
            used: set[str] = set()
            while True:
                limitation = {"Count": contract.MAX_ITEMS} | ({} if cursor is None else {"Cursor": cursor})
                asked = {**body, **piece, "Limitation": limitation}
                items, cursor = self._call(operation, asked, kind="read")
                found.update((item["Id"], item) for item in items)
                if cursor is None or len(items) < contract.MAX_ITEMS:
                    break
                if cursor in used:
                    raise IncompleteReadError(
                        f"{operation} answered the cursor {cursor} twice: its pages cannot be trusted."
                    )
                used.add(cursor)
        return list(found.values())

    def _call(
        self, operation: str, body: dict[str, Any], *, kind: Literal["read", "read-once-on-408", "write"]
    ) -> Any:
        stops = self._pace.stops
        loop = self._retry.loop(
            write=kind == "write", pace=self._pace, stops=stops, retry_408=kind != "read-once-on-408"
        )
        return loop(self._once, operation, body, stops)

    def _once(self, operation: str, body: dict[str, Any], stops: int) -> Any:
        with self._pace.request(stops):
            outcome = self._wire.exchange(
                operation, body, before_sending=lambda: self._pace.raise_if_stopped(stops)
            )
            if isinstance(outcome, RateLimitedError):
                # Nobody slips through before the loop has decided for how long all have to hold.
                self._pace.hold(self._retry.base_s / 2)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _hear(self) -> None:
        """Hear from the server, for its clock and its name; whatever else the answer says does not matter."""
        stops = self._pace.stops

        def ask() -> None:
            try:
                self._once("enterprises/getAll", {"Limitation": {"Count": 1}}, stops)
            except ApiError:
                if not self._wire.has_answered:
                    raise

        self._retry.loop(write=False, pace=self._pace, stops=stops)(ask)


def _interval(updated: Any) -> Interval | None:
    if updated is None or isinstance(updated, Interval):
        return updated
    if not isinstance(updated, (tuple, list)) or len(updated) != 2:
        raise InputError("updated must be a pair: the start and the end, aware.")
    start, end = (contract.to_utc(instant, "updated") for instant in updated)
    if start > end:
        raise InputError(f"updated starts at {start} after it ends at {end}. Swap the two.")
    return Interval(start, end)


def _at_most(items: Sequence[Any], name: str) -> Any:
    if len(items) > contract.MAX_ITEMS:
        raise InputError(
            f"{name} has {len(items)} items; one call takes at most {contract.MAX_ITEMS}. "
            "vt.fetch and vt.apply_plan take any number."
        )
    return items


def _optional_id(value: str | None, name: str) -> str | None:
    return None if value is None else contract.require_ids([value], name)[0]


def _optional_ids(ids: Iterable[str] | None, name: str) -> list[str] | None:
    checked: list[str] | None = None if ids is None else _at_most(contract.require_ids(ids, name), name)
    return checked


def _voucher_frame(
    enterprises: list[dict[str, Any]], services: list[dict[str, Any]], vouchers: list[dict[str, Any]]
) -> pd.DataFrame:
    by_enterprise = {item["Id"]: item for item in enterprises}
    by_service = {item["Id"]: item for item in services}
    try:
        rows = [_voucher_row(voucher, by_service, by_enterprise) for voucher in vouchers]
        frame = pd.DataFrame(rows, columns=list(_VOUCHER_DTYPES))
        for column in ("CreatedUtc", "UpdatedUtc"):
            frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601")
        frame = frame.astype(_VOUCHER_DTYPES)
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableAnswerError(
            f"A voucher, service or enterprise has a field that is not what the contract promises: {error}"
        ) from None
    return frame.sort_values(["EnterpriseName", "Name", "Id"], ignore_index=True)


def _voucher_row(
    voucher: dict[str, Any], services: dict[str, dict[str, Any]], enterprises: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    service = services.get(voucher.get("ServiceId", ""), {})
    enterprise_id = voucher.get("EnterpriseId") or service.get("EnterpriseId")
    enterprise = enterprises.get(enterprise_id or "", {})
    row = {
        **{column: voucher.get(column) for column in _VOUCHER_DTYPES},
        "ServiceName": service.get("Name") or next(iter((service.get("Names") or {}).values()), None),
        "EnterpriseId": enterprise_id,
        "EnterpriseName": enterprise.get("Name"),
        "TimeZone": enterprise.get("TimeZoneIdentifier"),
    }
    for column, dtype in _VOUCHER_DTYPES.items():
        kind = bool if dtype == "boolean" else str
        if not isinstance(row[column], kind | None):
            raise TypeError(f"{column} of voucher {voucher['Id']} is {type(row[column]).__name__}")
    return row
