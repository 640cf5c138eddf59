"""Clocks moved by hand, codes to serve, the settings that lead to a sandbox, and how hard the tests try."""

import os
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from vouchertools.pace import Time
from vouchertools.sandbox import Server

#: How much harder than usual tests with random schedules try; ``TEST_EFFORT=25`` for an hour of doubt.
EFFORT = int(os.environ.get("TEST_EFFORT", "1"))


class HandClock(Time):
    """One clock for sandbox and client: it moves only when somebody waits, and then at once.

    Call it for the sandbox's time, pass it to a client as ``clock``.
    """

    def __init__(self, start: datetime = datetime(2024, 3, 1, 12, tzinfo=UTC)) -> None:
        self._start = start
        self._lock = threading.Lock()
        self.elapsed = 0.0
        self.waits: list[float] = []

    def __call__(self) -> datetime:
        return self._start + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    def forward(self, seconds: float) -> None:
        with self._lock:
            self.elapsed += seconds

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        if seconds is None:
            condition.wait(0.01)
            return
        self.waits.append(seconds)
        self.forward(seconds)


def point_at(sandbox: Server, patch: pytest.MonkeyPatch) -> None:
    """Set the settings that lead to a sandbox."""
    patch.setenv("MEWS_PLATFORM_ADDRESS", sandbox.address)
    patch.setenv("MEWS_CLIENT_TOKEN", sandbox.client_token)
    patch.setenv("MEWS_ACCESS_TOKEN", sandbox.access_token)


def make_codes(
    n: int,
    *,
    vouchers: int = 1,
    start: str = "2023-01-01",
    days: float = 365,
    seed: int = 0,
    deleted: float = 0.2,
) -> pd.DataFrame:
    """Codes of some vouchers, updated at random instants of a stretch of days; whole seconds."""
    rng = np.random.default_rng(seed)

    def ids(count: int, kind: int) -> list[str]:
        high, low = rng.integers(0, 2**63, count), rng.integers(0, 2**63, count)
        texts = [f"{a:016x}{b:016x}" for a, b in zip(high, low, strict=True)]
        return [f"{t[:8]}-{t[8:12]}-{kind:04x}-{t[16:20]}-{t[20:32]}" for t in texts]

    updated = pd.Timestamp(start, tz="UTC") + pd.to_timedelta(
        np.sort(rng.integers(0, max(1, int(days * 86400)), n)), unit="s"
    )
    created = updated - pd.to_timedelta(rng.integers(0, 10 * 86400, n), unit="s")
    return pd.DataFrame(
        {
            "Id": ids(n, 1),
            "VoucherId": np.resize(np.array(ids(vouchers, 2), dtype=object), n),
            "Value": [f"C-{i:07d}" for i in range(n)],
            "ValidityStartUtc": pd.DatetimeIndex(created).floor("D"),
            "ValidityEndUtc": pd.DatetimeIndex(updated).floor("D") + pd.Timedelta("30D"),
            "CreatedUtc": created,
            "UpdatedUtc": updated,
            "ActivityState": np.where(rng.random(n) < deleted, "Deleted", "Active"),
        }
    )
