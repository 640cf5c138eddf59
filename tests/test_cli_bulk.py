"""Changing codes from the command line: plan, check, apply, runs, resume, undo, for people and programs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import make_codes, point_at

import vouchertools as vt
from vouchertools import cli

STRANGER = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[vt.Sandbox]:
    """A sandbox that outlives a command: 30 codes long expired, 4 still usable, 2 of them equal."""
    old = make_codes(30, vouchers=2, start="2023-01-01", days=60, deleted=0.0)
    new = make_codes(4, start="2023-02-01", days=60, deleted=0.0, seed=1).assign(
        VoucherId=old["VoucherId"][0], Value=["TWICE", "TWICE", "A", "B"], ValidityEndUtc=None
    )
    new["ValidityEndUtc"] = pd.to_datetime(new["ValidityEndUtc"], utc=True)
    codes = pd.concat([old, new], ignore_index=True)
    with vt.Sandbox(codes, rate_limit=None) as served:
        point_at(served, monkeypatch)
        yield served


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Run a command with ``--json``: its exit code and its document."""

    def run(*arguments: str) -> tuple[int, Any]:
        code = cli.run([*arguments, "--json"])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else None

    return run


def test_expired_codes_are_planned_checked_deleted_and_brought_back(
    sandbox: vt.Sandbox, call: Callable[..., tuple[int, Any]]
) -> None:
    code, plan = call("plan", "delete", "--expired-for", "30", "--to", "plan.parquet", "--reason", "old")
    assert (code, plan["codes"], plan["statuses"], plan["reason"]) == (0, 30, {"expired": 30}, "old")
    assert call("check", "plan.parquet") == (0, {"codes": 30, "digest": plan["digest"], "checks": []})
    code, run = call("apply", "plan.parquet", "--confirm", "30")
    assert (code, run["state"], run["counts"]) == (0, "finished", {"deleted": 30})
    code, listed = call("runs")
    assert (code, [row["Id"] for row in listed], listed[0]["Done"]) == (0, [run["id"]], 30)
    code, shown = call("runs", run["id"])
    assert code == 0
    assert {row["Outcome"] for row in shown["codes"]} == {"deleted"}
    assert call("resume", run["id"])[1]["counts"] == {"deleted": 30}
    code, undo = call("undo", run["id"])
    assert (code, undo["kind"], undo["codes"], undo["undo_of"]) == (0, "add", 30, run["id"])
    code, restored = call("undo", run["id"], "--confirm", "30")
    assert (code, restored["counts"]) == (0, {"added": 30})
    assert (sandbox.codes()["ActivityState"] == "Active").sum() == 34


def test_conditions_narrow_a_selection(sandbox: vt.Sandbox, call: Callable[..., tuple[int, Any]]) -> None:
    assert call("plan", "delete", "--duplicates", "--to", "a.parquet")[1]["codes"] == 1
    Path("values.txt").write_text("TWICE\nA\nC-0000001\n", encoding="utf-8")
    assert call("plan", "delete", "--values", "values.txt", "--to", "b.parquet")[1]["codes"] == 4
    both = call("plan", "delete", "--values", "values.txt", "--expired-for", "1", "--to", "c.parquet")
    assert both[1]["codes"] == 1
    voucher = sandbox.codes().query("Value == 'C-0000001'")["VoucherId"].iloc[0]
    one = call("plan", "delete", voucher, "--expired-for", "1", "--to", "d.parquet")
    assert one[1]["codes"] == 15


def test_values_that_no_active_code_has_are_named(
    sandbox: vt.Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("values.txt").write_text("TWICE\ntwice\nNEVER \n", encoding="utf-8")
    assert cli.run(["plan", "delete", "--values", "values.txt", "--to", "a.parquet"]) == 0
    err = capsys.readouterr().err
    assert "2 of 3 values in values.txt belong to no active code" in err
    assert "'NEVER ', 'twice'" in err


def test_a_plan_to_add_shows_the_names_of_its_vouchers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with vt.Sandbox() as sandbox, sandbox.client() as client:
        point_at(sandbox, monkeypatch)
        voucher = client.vouchers().iloc[0]
        Path("rows.csv").write_text(f"VoucherId,Value\n{voucher['Id']},007\n", encoding="utf-8")
        assert cli.run(["plan", "add", "rows.csv", "--to", "plan.parquet"]) == 0
    assert voucher["Name"] in capsys.readouterr().out


def test_the_list_of_runs_tells_rehearsals_refusals_and_undos(
    sandbox: vt.Sandbox, call: Callable[..., tuple[int, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    call("plan", "delete", "--expired-for", "30", "--to", "plan.parquet")
    run = call("apply", "plan.parquet", "--confirm", "30")[1]
    call("undo", run["id"], "--confirm", "30")
    assert cli.run(["runs"]) == 0
    shown = capsys.readouterr().out
    assert f"undoes {run['id']}" in shown
    assert "Refused" in shown
    assert cli.run(["apply", "plan.parquet", "--confirm", "30"]) == 1
    assert f"'vouchertools resume {run['id']}'" in capsys.readouterr().err


def test_rows_of_a_file_are_added_and_taken_away_again(
    sandbox: vt.Sandbox, call: Callable[..., tuple[int, Any]]
) -> None:
    voucher = sandbox.codes()["VoucherId"].iloc[0]
    Path("rows.csv").write_text(f"VoucherId,Value\n{voucher},007\n{voucher},008\n", encoding="utf-8")
    code, plan = call("plan", "add", "rows.csv", "--to", "plan.parquet")
    assert (code, plan["kind"], plan["codes"]) == (0, "add", 2)
    code, run = call("apply", "plan.parquet", "--confirm", "2")
    assert (code, run["counts"]) == (0, {"added": 2})
    assert {"007", "008"} <= set(sandbox.codes()["Value"])
    assert call("undo", run["id"], "--confirm", "2")[0] == 1
    code, undone = call("undo", run["id"], "--confirm", "2", "--allow-valid")
    assert (code, undone["counts"]) == (0, {"deleted": 2})


def test_what_is_not_as_planned_is_exit_code_3(
    sandbox: vt.Sandbox, call: Callable[..., tuple[int, Any]]
) -> None:
    call("plan", "delete", "--expired-for", "30", "--to", "plan.parquet")
    sandbox.touch(vt.Plan.load("plan.parquet").frame["Id"].head(2))
    code, checked = call("check", "plan.parquet")
    assert code == 3
    assert [(row["Check"], row["Codes"]) for row in checked["checks"]] == [("changed", 2)]
    code, run = call("apply", "plan.parquet", "--confirm", "30")
    assert (code, run["counts"]) == (3, {"deleted": 28, "changed": 2})


def test_what_cannot_be_done_is_exit_code_1_and_one_line(
    sandbox: vt.Sandbox, call: Callable[..., tuple[int, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    call("plan", "delete", "--expired-for", "30", "--to", "plan.parquet")
    Path("empty.txt").write_text("\n", encoding="utf-8")
    Path("strange.csv").write_text(f"VoucherId,Value\n{STRANGER},007\n", encoding="utf-8")
    for arguments, words in (
        (["apply", "plan.parquet", "--confirm", "7"], "You confirm 7 codes"),
        (["apply", "missing.parquet", "--confirm", "7"], "no file missing.parquet"),
        (["plan", "delete", STRANGER, "--duplicates", "--to", "x.parquet"], f"no voucher {STRANGER}"),
        (["plan", "delete", "--values", "empty.txt", "--to", "x.parquet"], "empty.txt holds no values"),
        (["plan", "add", "strange.csv", "--to", "x.parquet"], f"no voucher {STRANGER}"),
        (["plan", "delete", "--to", "x.parquet"], "never means all"),
        (["plan", "delete", "--expired-for", "99999", "--to", "x.parquet"], "never means all"),
        (["resume", "nothing"], "no journal"),
        (["plan", "add", "missing.csv", "--to", "x.parquet"], "cannot be read"),
    ):
        assert cli.run(arguments) == 1
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.splitlines()[-1].startswith("vouchertools: ")
        assert "Traceback" not in captured.err
    sandbox.faults.next("voucherCodes/delete", "401")
    code, run = call("apply", "plan.parquet", "--confirm", "30")
    assert (code, run["state"], run["counts"]) == (1, "stopped", {"open": 30})
    assert cli.run(["apply", "plan.parquet"]) == 2


def test_for_people_it_says_what_was_found_and_what_to_do_next(
    sandbox: vt.Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["runs"]) == 0
    assert "Nothing was ever applied" in capsys.readouterr().out
    assert cli.run(["plan", "delete", "--duplicates", "--to", "plan.parquet"]) == 0
    out = capsys.readouterr().out
    assert "A plan to delete 1 code" in out
    assert "still usable" in out
    assert "vouchertools apply plan.parquet --confirm 1 --allow-valid" in out
    assert cli.run(["check", "plan.parquet"]) == 3
    assert "still usable" in capsys.readouterr().out
    assert cli.run(["apply", "plan.parquet", "--confirm", "1", "--allow-valid"]) == 0
    assert "1 of 1 codes deleted" in capsys.readouterr().out
    assert cli.run(["runs"]) == 0
    assert "finished" in capsys.readouterr().out
