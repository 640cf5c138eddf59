"""The server: codes, clock, tokens and faults of one sandbox, and its thread."""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pandas as pd

from vouchertools.sandbox import sample
from vouchertools.sandbox.estate import Estate, make_estate
from vouchertools.sandbox.faults import Faults
from vouchertools.sandbox.frames import check_uuids, frame_from_rows, rows_from_frame, voucher_ids_of
from vouchertools.sandbox.store import Store
from vouchertools.sandbox.switches import Switches
from vouchertools.sandbox.times import NEVER, SECOND, from_micros, show, ticking, to_micros

if TYPE_CHECKING:
    from vouchertools.sandbox.listener import Listener

#: A clock that is kept on disk is written this far ahead, so that it never goes back after a crash.
CLOCK_AHEAD = timedelta(seconds=60)
#: So many requests, and so many cursors, are remembered.
REMEMBERED_REQUESTS = 100_000
REMEMBERED_CURSORS = 64


class Request(NamedTuple):
    """One line of the log.

    ``status`` is None where the connection was closed without an answer; ``size`` is that of the body in
    bytes; ``utc`` is the sandbox's clock when the answer left.
    """

    operation: str
    status: int | None
    utc: datetime
    size: int
    fault: str


class Server:
    """A local Mews on 127.0.0.1: a context manager around a real HTTP server in a thread.

    Parameters
    ----------
    codes
        Codes to serve: ``VoucherId`` and any of ``Id``, ``Value``, ``ValidityStartUtc``, ``ValidityEndUtc``,
        ``CreatedUtc``, ``UpdatedUtc`` (with a time zone), ``ActivityState``. None for the sample.
    vouchers
        Their vouchers: ``Id`` and any of ``Name``, ``ServiceId``, ``EnterpriseId``, ``EnterpriseName``,
        ``TimeZone``, ``Type``, ``IsActive``; made up where missing. Only together with ``codes``.
    port
        0 for any free one.
    clock
        Where the clock starts to tick from, or a function that tells the time. None for 2017-11-10 12:00 UTC
        with the sample, else for the present.
    store
        A SQLite file that keeps codes, tokens, instance id and clock; made where there is none, gone on with
        where there is one. None for memory.
    **switches
        See `Switches`.

    Attributes
    ----------
    address
        ``http://127.0.0.1:<port>``.
    client_token, access_token, portfolio_token
        ``access_token`` reaches the first enterprise, ``portfolio_token`` all of them.
    instance_id
        Eight hexadecimal digits; sent in the header ``Vouchertools-Sandbox``.
    enterprise_ids
        All enterprises; the first is the one of ``access_token``.
    voucher_ids
        All vouchers of the first enterprise, those without codes too.
    faults
        What can be made to go wrong.

    Raises
    ------
    ValueError
        An unknown switch, codes or vouchers that cannot be served, ``codes`` for a store that holds some.
    OSError
        The port is taken, or the store is in use.
    """

    def __init__(
        self,
        codes: pd.DataFrame | None = None,
        vouchers: pd.DataFrame | None = None,
        *,
        port: int = 0,
        clock: datetime | Callable[[], datetime] | None = None,
        store: str | Path | None = None,
        **switches: Any,
    ) -> None:
        self.switches = Switches.parse(switches)
        if vouchers is not None and codes is None:
            raise ValueError("vouchers without codes: give both.")
        self.faults = Faults()
        self.cursors: deque[str] = deque(maxlen=REMEMBERED_CURSORS)
        self._log: deque[Request] = deque(maxlen=REMEMBERED_REQUESTS)
        self._port = port
        self._listener: Listener | None = None
        self._store = Store(
            None if store is None else Path(store),
            order="updated" if self.switches.order == "UpdatedUtc" else "created",
            unique_values=self.switches.duplicate_values == "refused",
            keep_history=self.switches.keep_history,
        )
        try:
            self._is_kept = store is not None
            self._open(codes, vouchers, clock)
        except BaseException:
            self._store.close()
            raise

    def _open(
        self,
        codes: pd.DataFrame | None,
        vouchers: pd.DataFrame | None,
        clock: datetime | Callable[[], datetime] | None,
    ) -> None:
        known = self._store.get_fact("estate")
        if known is not None and codes is not None:
            raise ValueError("This store already holds codes: give another file, or no codes.")
        kept = self._store.get_fact("clock")
        if clock is None:
            clock = sample.CLOCK if codes is None else datetime.now(UTC)
            if kept is not None:
                clock = from_micros(int(kept))
        self._clock = clock if callable(clock) else ticking(clock)
        self._clock_kept_to = self._clock()
        with self._store.transaction():
            if known is not None:
                self._estate = Estate(**json.loads(known))
            else:
                self._fill(codes, vouchers)
            self.instance_id = self._keep("instance_id", partial(secrets.token_hex, 4))
            self.client_token = self._keep("client_token", _make_token)
            self.access_token = self._keep("access_token", _make_token)
            self.portfolio_token = self._keep("portfolio_token", _make_token)
        self.enterprise_ids: list[str] = [record["Id"] for record in self._estate.enterprises]
        first = self.enterprise_ids[0].lower()
        self.voucher_ids: list[str] = [
            record["Id"] for record in self._estate.vouchers if record["EnterpriseId"].lower() == first
        ]

    def _fill(self, codes: pd.DataFrame | None, vouchers: pd.DataFrame | None) -> None:
        now = self._micros()
        if codes is None:
            codes, estate = sample.read()
        else:
            estate = make_estate(voucher_ids_of(codes), vouchers, now=json.loads(show(now)))
        self._estate = estate
        self._store.load(rows_from_frame(codes, estate.place, now=now))
        self._store.set_fact("estate", json.dumps(estate.to_records()))

    def _keep(self, name: str, make: Callable[[], str]) -> str:
        fact = self._store.get_fact(name)
        if fact is None:
            fact = make()
            self._store.set_fact(name, fact)
        return fact

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        place = self.address if self._listener else "not started"
        return f"<{type(self).__name__} {self.instance_id} {place}>"

    def start(self) -> Self:
        """Start to serve; return when the address can be reached. Does nothing where it already serves."""
        if self._listener is not None:
            return self
        from vouchertools.sandbox.app import Desk, make_app
        from vouchertools.sandbox.listener import Listener
        from vouchertools.sandbox.operations import Operations, Scope

        listener = Listener(self._port)
        enterprises = [enterprise.lower() for enterprise in self.enterprise_ids]
        desk = Desk(
            instance_id=self.instance_id,
            client_token=self.client_token,
            scopes={
                self.access_token: Scope(frozenset(enterprises[:1]), is_portfolio=False),
                self.portfolio_token: Scope(frozenset(enterprises), is_portfolio=True),
            },
            switches=self.switches,
            faults=self.faults,
            now=self._micros,
            note=self._note,
            turn_page=lambda: self.faults.on_page and partial(self.faults.on_page, self),
            give_cursor=self.cursors.append,
            drop=listener.drop,
        )
        listener.start(make_app(Operations(self._store, self._estate, self.switches), desk))
        self._listener = listener
        return self

    def stop(self) -> None:
        """Stop to serve and close the store; what is late is not carried out."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        if self._is_kept:
            self._store.set_fact("clock", str(to_micros(self._clock())))
            self._is_kept = False
        self._store.close()

    @property
    def address(self) -> str:
        """The platform address.

        Raises
        ------
        RuntimeError
            The server is not started.
        """
        if self._listener is None:
            raise RuntimeError("The sandbox is not started: use it in a with statement, or call start().")
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def requests(self) -> list[Request]:
        """The log: every request that was answered or lost, oldest first; the last 100,000 of them."""
        return list(self._log)

    def now(self) -> datetime:
        """Tell the sandbox's time, UTC."""
        return from_micros(self._micros())

    def codes(self) -> pd.DataFrame:
        """Show every code of every enterprise as the API does, by ``Id``: the truth in tests."""
        self.faults.settle(self._micros())
        return frame_from_rows(self._store.rows(), self._all_voucher_ids())

    def history(self) -> pd.DataFrame:
        """Show every state that a code ever had, the present ones too; needs ``keep_history=True``."""
        if not self.switches.keep_history:
            raise RuntimeError("The sandbox keeps no history: switch it on with keep_history=True.")
        self.faults.settle(self._micros())
        return frame_from_rows(self._store.past_rows() + self._store.rows(), self._all_voucher_ids())

    def vouchers(self) -> pd.DataFrame:
        """Show the vouchers of every enterprise, the fields of the API as columns."""
        return pd.DataFrame(self._estate.vouchers)

    def touch(self, ids: Iterable[str]) -> None:
        """Update codes as a colleague would, without changing a field that is shown but ``UpdatedUtc``."""
        self._change(ids)

    def delete_codes(self, ids: Iterable[str]) -> None:
        """Delete codes as a colleague would; deleted ones are deleted again."""
        self._change(ids, active=0)

    def change_window(self, ids: Iterable[str], start: datetime | None, end: datetime | None) -> None:
        """Set the validity window of codes as a colleague would; None for an open side."""
        self._change(ids, starts=_micros_of(start), ends=_micros_of(end))

    def add_codes(self, codes: pd.DataFrame | Sequence[tuple[str, str]]) -> list[str]:
        """Add codes as a colleague would; return their ids.

        ``codes`` is a frame of ``VoucherId``, ``Value`` and windows, or pairs of the first two.
        """
        frame = (
            codes if isinstance(codes, pd.DataFrame) else pd.DataFrame(codes, columns=["VoucherId", "Value"])
        )
        kept = frame.drop(columns=["CreatedUtc", "UpdatedUtc", "ActivityState"], errors="ignore")
        rows = list(rows_from_frame(kept, self._estate.place, now=self._stamp()))
        return [row[1] for row in self._store.add(rows)]

    def random_id(self, share: float) -> str | None:
        """Pick the code that stands at this share (0 to 1) of all that ever arrived."""
        return self._store.random_id(share)

    def _change(self, ids: Iterable[str], **columns: int) -> None:
        wanted = check_uuids(list(ids), "ids")
        with self._store.transaction():
            missing = {code.lower() for code in wanted} - set(self._store.find(wanted))
            if missing:
                raise ValueError(f"The sandbox has no code {sorted(missing)[0]}.")
            self._store.change(wanted, updated=self._stamp(), **columns)

    def _all_voucher_ids(self) -> list[str]:
        return [record["Id"] for record in self._estate.vouchers]

    def _stamp(self) -> int:
        now = self._micros()
        return now - now % SECOND if self.switches.stored_precision == "s" else now

    def _micros(self) -> int:
        now = self._clock()
        if self._is_kept and now >= self._clock_kept_to:
            self._clock_kept_to = now + CLOCK_AHEAD
            self._store.set_fact("clock", str(to_micros(self._clock_kept_to)))
        return to_micros(now)

    def _note(self, operation: str, status: int | None, size: int, fault: str) -> None:
        self._log.append(Request(operation, status, self.now(), size, fault))


def _make_token() -> str:
    return f"{secrets.token_hex(16).upper()}-{secrets.token_hex(16).upper()}"


def _micros_of(instant: datetime | None) -> int:
    return NEVER if instant is None else to_micros(instant)
