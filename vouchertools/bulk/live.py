"""The live state as far as a run needs it: given codes, who holds a value, whose a voucher is. Reads only.

Where a server insists on ``UpdatedUtc``, given codes are first asked for in the stretch of time in which
they were last updated, as far as is known, then since the selection; only what still does not turn up is
looked for in all the years.
"""

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pandas as pd

from vouchertools import contract
from vouchertools.bulk.records import Code, from_micros, to_codes
from vouchertools.client import Client
from vouchertools.errors import (
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
    UnreadableAnswerError,
)
from vouchertools.fetch import fetch

#: Intervals end this far ahead of the server's clock, so that nothing is too new.
AHEAD: Final = timedelta(days=1)
#: Each look at who holds a value reaches back this much before the previous one began: the server's clock
#: is known to the second, and what another client adds may become visible a moment after its timestamp.
OVERLAP: Final = timedelta(seconds=1)
#: A look back at what became of a request reaches back this much before it was sent.
LOOK_BACK: Final = timedelta(seconds=60)


def read_codes(client: Client, codes: Sequence[Code], *, since: int | None) -> dict[str, Code]:
    """At most 1000 codes as they are now, by their id in lower case; those that do not exist are missing.

    Parameters
    ----------
    client
        The connection.
    codes
        The codes as they were known last.
    since
        When that was, in microseconds since 1970; None: unknown.
    """
    vouchers = list(dict.fromkeys(code.voucher_id for code in codes))
    wanted = {code.id.lower(): code for code in codes}
    if not client.requires_updated:
        try:
            page = client.get_all(vouchers, voucher_code_ids=[code.id for code in codes])
            return _by_id(page.table)
        except BadRequestError:
            # Some servers insist on UpdatedUtc; if it was something else, the next read fails as well.
            pass
    found: dict[str, Code] = {}
    for stretch in _stretches(client, codes, since):
        for interval in contract.intervals(*stretch):
            missing = [code.id for id_, code in wanted.items() if id_ not in found]
            if not missing:
                break
            page = client.get_all(vouchers, updated=(interval.start, interval.end), voucher_code_ids=missing)
            found |= _by_id(page.table)
    client.requires_updated = True
    missing = [code.id for id_, code in wanted.items() if id_ not in found]
    if missing:
        late = fetch(client, vouchers, voucher_code_ids=missing, progress=False)
        found |= {code.id.lower(): code for code in to_codes(late)}
    return found


def read_estate(client: Client) -> pd.DataFrame | None:
    """The vouchers that the token can see; None where it may not ask."""
    try:
        return client.vouchers()
    except (BadRequestError, ForbiddenError, NotFoundError, UnauthorizedError, UnreadableAnswerError):
        return None


class Holdings:
    """Which codes hold the vouchers-and-values of a run to add.

    Read once in full, then for the price of what changed. Only what the run is about is kept.

    Parameters
    ----------
    client
        The connection.
    codes
        The rows to add.
    """

    def __init__(self, client: Client, codes: Iterable[Code]) -> None:
        self._client = client
        codes = list(codes)
        self._vouchers = {code.voucher_id.lower(): code.voucher_id for code in codes}
        self._held: dict[tuple[str, str | None], dict[str, Code]] = {code.key: {} for code in codes}
        self._lock = threading.Lock()
        self._looks = 0
        #: For each voucher: the number of the latest look at it, and the server's clock when that began.
        self._looked: dict[str, tuple[int, datetime]] = {}

    def of(self, code: Code) -> list[Code]:
        """Every code, in any state, with the voucher and value of this one."""
        return list(self._held[code.key].values())

    def read_all(self, *, progress: bool) -> None:
        """Read the vouchers completely; nothing where there are none."""
        if not self._vouchers:
            return
        frame = fetch(self._client, list(self._vouchers.values()), progress=progress)
        self._absorb(frame)
        self._looks += 1
        began = contract.to_utc(frame.attrs["read_utc"], "read_utc")
        self._looked = dict.fromkeys(self._vouchers, (self._looks, began))

    def look(self, codes: Iterable[Code]) -> None:
        """Take in what changed in these codes' vouchers until now; threads that ask at once share a look."""
        asked = self._looks
        vouchers = self._vouchers
        if len(vouchers) > contract.MAX_ITEMS:
            vouchers = {code.voucher_id.lower(): code.voucher_id for code in codes}
        with self._lock:
            if all(self._looked[voucher][0] > asked for voucher in vouchers):
                return
            self._looks += 1
            began = self._client.now()
            since = min(self._looked[voucher][1] for voucher in vouchers) - OVERLAP
            for piece in contract.chunks(list(vouchers.values())):
                for interval in contract.intervals(since, began + AHEAD):
                    self._walk(piece, interval)
            self._looked.update(dict.fromkeys(vouchers, (self._looks, began)))

    def look_back(self, codes: Iterable[Code], *, since: int) -> None:
        """Take in everything that was added or touched since an instant, provably complete."""
        vouchers = {code.voucher_id.lower(): code.voucher_id for code in codes}
        start = from_micros(since) - LOOK_BACK
        self._absorb(fetch(self._client, list(vouchers.values()), since=start, progress=False))

    def _walk(self, vouchers: Sequence[str], interval: contract.Interval) -> None:
        """Read an interval page by page.

        Codes that are added meanwhile come in front and disturb nothing; were a cursor's code touched,
        some other client's change could be missed, as if it came a moment later.
        """
        cursor: str | None = None
        used: set[str] = set()
        while True:
            page = self._client.get_all(vouchers, updated=(interval.start, interval.end), cursor=cursor)
            self._absorb(contract.to_pandas(page.table))
            cursor = page.cursor
            if cursor is None or len(page) < contract.MAX_ITEMS or cursor in used:
                return
            used.add(cursor)

    def _absorb(self, frame: pd.DataFrame) -> None:
        keys = zip(frame["VoucherId"].str.lower().tolist(), frame["Value"].tolist(), strict=True)
        for code in to_codes(frame[np.array([key in self._held for key in keys], dtype=bool)]):
            self._held[code.key][code.id.lower()] = code


def _stretches(client: Client, codes: Sequence[Code], since: int | None) -> list[tuple[datetime, datetime]]:
    """Where in time given codes are looked for: where they were updated last, and since then."""
    end = client.now().to_pydatetime() + AHEAD
    known = [code.updated for code in codes if code.updated is not None]
    if not known:
        return [] if since is None else [(from_micros(since).to_pydatetime() - LOOK_BACK, end)]
    first, last = (from_micros(number).to_pydatetime() for number in (min(known), max(known)))
    if end - first <= contract.MAX_INTERVAL:
        return [(first, end)]
    touched = end if since is None else max(last, from_micros(since).to_pydatetime())
    return [(first, last + timedelta(seconds=1)), (min(touched, end - AHEAD), end)]


def _by_id(table: Any) -> dict[str, Code]:
    return {code.id.lower(): code for code in to_codes(contract.to_pandas(table))}
