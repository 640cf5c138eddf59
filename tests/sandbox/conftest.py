"""A sandbox to talk to in plain HTTP: these tests know nothing of the package's own client."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pandas as pd
import pytest

from vouchertools.sandbox import Server

NOON = datetime(2023, 10, 9, 12, tzinfo=UTC)


class Clock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def move(self, **by: float) -> None:
        self.time += timedelta(**by)


class Caller:
    """Posts bodies to one sandbox, with the tokens and whatever an operation cannot do without."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(base_url=f"{server.address}/api/connector/v1/", timeout=20, verify=False)
        self.tokens = {
            "ClientToken": server.client_token,
            "AccessToken": server.access_token,
            "Client": "tests 1.0",
        }
        ids = server.codes()["Id"]
        self.least: dict[str, dict[str, Any]] = {
            "voucherCodes/getAll": {
                "Limitation": {"Count": 1000},
                "VoucherIds": server.voucher_ids,
                "UpdatedUtc": {"StartUtc": "2023-08-01T00:00:00Z", "EndUtc": "2023-11-01T00:00:00Z"},
            },
            "voucherCodes/add": {
                "VoucherCodeParameters": [{"VoucherId": server.voucher_ids[0], "Value": "NEW"}]
            },
            "voucherCodes/delete": {"VoucherCodeIds": ids.head(1).tolist()},
            "enterprises/getAll": {"Limitation": {"Count": 1000}},
            "services/getAll": {"Limitation": {"Count": 1000}},
            "vouchers/getAll": {
                "Limitation": {"Count": 1000},
                "Extent": {"Vouchers": True},
                "ServiceIds": server.vouchers()["ServiceId"].unique().tolist(),
            },
        }

    def body(self, operation: str, **fields: Any) -> dict[str, Any]:
        return {**self.tokens, **self.least[operation], **fields}

    def post(self, operation: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        content = json.dumps(self.body(operation, **fields))
        headers = {"Content-Type": "application/json", **(headers or {})}
        return self.http.post(operation, content=content, headers=headers)

    def read(self, **fields: Any) -> list[dict[str, Any]]:
        """Walk over all pages of codes."""
        codes: list[dict[str, Any]] = []
        limitation = {"Count": 1000, **fields.pop("Limitation", {})}
        while True:
            answer = self.post("voucherCodes/getAll", Limitation=limitation, **fields)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            codes += page["VoucherCodes"]
            if len(page["VoucherCodes"]) < limitation["Count"]:
                return codes
            limitation["Cursor"] = page["Cursor"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def serve(clock: Clock) -> Iterator[Callable[..., Caller]]:
    """Start a sandbox over some codes (default: ten), with a clock that stands still, and call it."""
    callers: list[Caller] = []

    def start(
        codes: pd.DataFrame | None = None, vouchers: pd.DataFrame | None = None, **options: Any
    ) -> Caller:
        codes = make_codes(10) if codes is None else codes
        server = Server(codes, vouchers, **{"clock": clock, **options}).start()
        callers.append(Caller(server))
        return callers[-1]

    yield start
    for caller in callers:
        caller.http.close()
        caller.server.stop()


def uuid_of(number: int) -> str:
    return str(UUID(int=number))


def make_codes(count: int, *, vouchers: int = 2, step: str = "1min") -> pd.DataFrame:
    """Make codes of some vouchers in turn, updated one ``step`` after the other until the clock's noon."""
    updated = pd.Timestamp(NOON).as_unit("us") - pd.Series(range(count))[::-1].reset_index(
        drop=True
    ) * pd.Timedelta(step)
    return pd.DataFrame(
        {
            "Id": [uuid_of(number + 1) for number in range(count)],
            "VoucherId": [uuid_of(10**6 + number % vouchers) for number in range(count)],
            "Value": [f"CODE-{number}" for number in range(count)],
            "ValidityStartUtc": pd.Series([pd.NaT] * count, dtype="datetime64[us, UTC]"),
            "ValidityEndUtc": pd.Series([pd.Timestamp("2023-12-31T23:00:00Z")] * count).astype(
                "datetime64[us, UTC]"
            ),
            "CreatedUtc": updated - pd.Timedelta(days=1),
            "UpdatedUtc": updated,
            "ActivityState": ["Active"] * count,
        }
    )


@pytest.fixture
def codes_of() -> Callable[..., pd.DataFrame]:
    return make_codes
