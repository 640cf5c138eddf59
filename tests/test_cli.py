"""The command line as its users meet it: what it prints, what it leaves behind, and how it fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from support import point_at

import vouchertools as vt
from vouchertools import cli


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch):
    """Settings that lead to a sandbox which outlives a command."""
    with vt.Sandbox() as sandbox:
        point_at(sandbox, monkeypatch)
        yield sandbox


def test_demo_shows_the_counts_and_leaves_parquet_and_chart(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo"]) == 0
    out = capsys.readouterr().out
    assert "sandbox-" in out
    assert "6,633 codes" in out
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    codes = pd.read_parquet("data/demo/codes.parquet")
    assert len(codes) == 6633
    assert rows["All"][-1] == "6,633"
    assert rows["All"][-2] == f"{(codes['ActivityState'] == 'Deleted').sum():,}"
    assert "Autumn 2017 Loyalty 18" in rows
    assert "Without codes: Spring 2018 Preview (no codes)" in out
    assert Path("data/demo/status.png").read_bytes().startswith(b"\x89PNG")
    for place in ("data/demo/codes.parquet", "data/demo/status.png"):
        assert place in out


def test_demo_can_be_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo"]) == 0
    assert cli.run(["demo"]) == 0
    assert len(list(Path("data/demo/cache").iterdir())) == 1


def test_fetch_fills_the_cache_and_says_where(
    settings: vt.Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fetch"]) == 0
    out = capsys.readouterr().out
    assert "6,633 codes of sandbox-" in out
    assert len(vt.Cache("data/cache").read()) == 6633
    assert str(Path("data/cache")) in out


def test_fetch_of_one_voucher_reads_only_that(
    settings: vt.Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    with settings.client() as client:
        vouchers = client.vouchers().set_index("Name")
    chosen = vouchers.at["Autumn 2017 Loyalty 18", "Id"]
    assert cli.run(["fetch", chosen]) == 0
    assert "1,133 codes" in capsys.readouterr().out
    assert set(vt.Cache("data/cache").read()["VoucherId"]) == {chosen}


def test_summary_judges_at_the_instant_asked_for(
    settings: vt.Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    def all_row(*arguments: str) -> list[str]:
        assert cli.run(["summary", *arguments]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("All")).split()

    now, later = all_row(), all_row("--as-of", "2030-01-01T00:00Z")
    assert now[-1] == later[-1] == "6,633"
    assert later[2] == "·", "by 2030 nothing is future any more"
    assert now[2] != "·"


def test_summary_draws_into_the_file_asked_for(settings: vt.Sandbox) -> None:
    assert cli.run(["summary", "--plot", "charts/now.svg"]) == 0
    assert "<svg" in Path("charts/now.svg").read_text(encoding="utf-8")


def test_export_writes_what_fetch_reads(settings: vt.Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", "codes.parquet"]) == 0
    assert "6,633 codes written to codes.parquet" in capsys.readouterr().out
    shown = pd.read_parquet("codes.parquet").sort_values("Id", ignore_index=True)
    truth = settings.codes()
    truth = truth[truth["Id"].isin(shown["Id"])].sort_values("Id", ignore_index=True)
    assert len(shown) == 6633
    for column in ("VoucherId", "Value", "ActivityState", "UpdatedUtc"):
        pd.testing.assert_series_equal(shown[column], truth[column], check_dtype=False)


def test_masked_export_holds_no_value(settings: vt.Sandbox) -> None:
    assert cli.run(["export", "masked.csv", "--mask"]) == 0
    text = Path("masked.csv").read_text(encoding="utf-8")
    assert not [value for value in settings.codes()["Value"].dropna() if len(value) > 8 and value in text]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["export", "codes.doc"], 1, "codes.doc"),
        (["summary", "--as-of", "2024-05-01"], 1, "time zone. For UTC: 2024-05-01T00:00:00Z."),
        (["summary", "--as-of", ""], 1, "no instant"),
        (["summary", "--plot", "chart"], 1, "ends in none of .png, .pdf, .svg"),
        (["summary", "--as-of", "soon"], 1, "no instant"),
        (["summary", "--plot", "chart.doc"], 1, "chart.doc"),
        (["fetch", "00000000-0000-0000-0000-000000000000"], 1, "00000000-0000-0000-0000-000000000000"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["fetch", "--nonsense"], 2, "vouchertools fetch --help"),
        (["fetch", "--workers", "0"], 2, "--workers"),
        (["export"], 2, "vouchertools export --help"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    settings: vt.Sandbox, arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vouchertools: ")]
    assert says in line


def test_what_should_not_happen_is_one_line_too_and_traceback_shows_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("the roof fell in")

    monkeypatch.setattr(vt, "connect", fail)
    assert cli.run(["fetch"]) == 1
    assert capsys.readouterr().err.startswith("vouchertools: RuntimeError: the roof fell in.")
    with pytest.raises(RuntimeError, match="the roof fell in"):
        cli.run(["--traceback", "fetch"])


def test_half_set_settings_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEWS_CLIENT_TOKEN", "half-of-it")
    assert cli.run(["fetch"]) == 1
    err = capsys.readouterr().err
    assert "MEWS_ACCESS_TOKEN" in err
    assert "half-of-it" not in err
    assert err.count("\n") == 1


def test_a_wrong_token_is_one_line_without_the_token(
    settings: vt.Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEWS_ACCESS_TOKEN", "wrong-and-secret")
    assert cli.run(["fetch"]) == 1
    err = capsys.readouterr().err
    assert "HTTP 401" in err
    assert "wrong-and-secret" not in err


def test_sandbox_prints_settings_that_work_and_keeps_its_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _talk_to_a_sandbox(monkeypatch)
    again = _talk_to_a_sandbox(monkeypatch)
    assert again["active"] == first["active"] - 1
    assert first["environment"] == again["environment"]


def test_sandbox_on_a_taken_port_says_so(settings: vt.Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    port = settings.address.rpartition(":")[2]
    assert cli.run(["sandbox", "--port", port]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"vouchertools: Port {port} cannot be used")
    assert err.count("\n") == 1


def test_two_sandboxes_do_not_share_one_store(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    with FileLock("data/sandbox.sqlite.lock"):
        assert cli.run(["sandbox", "--port", "0"]) == 1
    assert "already running" in capsys.readouterr().err


def test_a_fresh_sandbox_starts_over_from_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _talk_to_a_sandbox(monkeypatch)
    fresh = _talk_to_a_sandbox(monkeypatch, "--fresh")
    assert fresh["active"] == first["active"]
    assert fresh["environment"] != first["environment"]


def _talk_to_a_sandbox(monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """Start the command, use the settings that it prints, delete one active code, stop it by Ctrl+C."""
    start = [sys.executable, "-u", "-c", "from vouchertools.cli import main; main()"]
    command = [*start, "sandbox", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        try:
            lines = [server.stdout.readline() for _ in range(6)]
            for name, _, value in (line.strip().partition("=") for line in lines if line.startswith("MEWS_")):
                monkeypatch.setenv(name, value)
            with vt.connect() as client:
                codes = vt.fetch(client, client.vouchers(), progress=False)
                active = codes[codes["ActivityState"] == "Active"]
                client.delete(active["Id"].head(1))
                return {"active": len(active), "environment": client.environment}
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=20) == 0
