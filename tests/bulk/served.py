"""A sandbox, a client, a clock that moves only when somebody waits; and what a test asks of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from support import HandClock, make_codes

import vouchertools as vt

#: The present of these tests. A pull asks for everything since January 2012, so this keeps it short.
NOON = datetime(2012, 6, 1, 12, tzinfo=UTC)
KEY = ["VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc"]


@contextmanager
def served(
    codes: pd.DataFrame | None = None,
    *,
    client: dict[str, Any] | None = None,
    vouchers: pd.DataFrame | None = None,
    **switches: Any,
) -> Iterator[tuple[vt.Sandbox, vt.Client, HandClock]]:
    """Serve some codes at `NOON`: by default 40 of two vouchers, expired."""
    clock = HandClock(NOON)
    codes = make_codes(40, vouchers=2, start="2012-02-01", days=60, deleted=0.0) if codes is None else codes
    options = {"rate_limit": (10**6, 1.0), "clock": clock} | (client or {})
    switches = {"clock": clock, "rate_limit": None} | switches
    with vt.Sandbox(codes, vouchers, **switches) as sandbox, sandbox.client(**options) as connection:
        yield sandbox, connection, clock


def read(sandbox: vt.Sandbox, client: vt.Client) -> pd.DataFrame:
    return vt.fetch(client, sandbox.voucher_ids, progress=False)


def new_rows(sandbox: vt.Sandbox, n: int, prefix: str = "NEW") -> pd.DataFrame:
    """Rows to add, for the two vouchers in turn, with windows."""
    return pd.DataFrame(
        {
            "VoucherId": [sandbox.voucher_ids[i % len(sandbox.voucher_ids)] for i in range(n)],
            "Value": [f"{prefix}-{i:04d}" for i in range(n)],
            "ValidityStartUtc": pd.Timestamp("2012-06-01T00:00:00Z"),
            "ValidityEndUtc": pd.Timestamp("2012-06-30T22:00:00Z"),
        }
    )


def writes(sandbox: vt.Sandbox) -> int:
    """How many requests that write the sandbox has seen."""
    return sum(
        request.operation in ("voucherCodes/add", "voucherCodes/delete") for request in sandbox.requests
    )


def reads(sandbox: vt.Sandbox) -> int:
    return sum(request.operation == "voucherCodes/getAll" for request in sandbox.requests)


def active(sandbox: vt.Sandbox) -> list[tuple[Any, ...]]:
    """Voucher, value and window of every active code, sorted; ids left out."""
    codes = sandbox.codes()
    codes = codes[codes["ActivityState"] == "Active"][KEY].astype("str").fillna("")
    return sorted(codes.itertuples(index=False, name=None))
