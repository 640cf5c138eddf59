"""The journal: durable, private, readable by others, and never with a token in it."""

import sqlite3
import stat
from pathlib import Path

import pandas as pd
import pytest
from bulk.served import new_rows, read, served

from vouchertools.bulk.apply import apply_plan
from vouchertools.bulk.journal import Journal
from vouchertools.bulk.planning import plan_add, plan_delete
from vouchertools.bulk.records import Code, Row, RunFacts, from_micros, to_codes, to_frame, to_micros
from vouchertools.bulk.run import get_run, list_runs
from vouchertools.errors import InputError, JournalError, PlanError, RunError


def facts(number: int = 1, *, rehearsal: bool = False) -> RunFacts:
    return RunFacts(f"run-{number}", "add", "demo", rehearsal, "d" * 64, "", None, None, False, 5, 5, 5)


def row(n: int = 0) -> Row:
    return Row(n, Code("", "v", f"V{n}", None, 10, None, None, "Active"), held=frozenset({"a", "b"}))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        run, rows = facts(), [row(0), row(1), row(2)]
        journal.begin(run, rows)
        sending = journal.intend(run, rows[:2], "e", now=7)
        sending.answer, sending.request_id, sending.message = "unanswered", "r", "lost"
        rows[0].tried = rows[1].tried = True
        journal.conclude(run, sending, rows[:2], now=8)
        rows[0].outcome, rows[0].proved, rows[0].message = "added", True, "read back"
        rows[0].new = Code("id", "v", "V0", None, 10, 7, 7, "Active")
        sending.settled = True
        journal.settle(run, [sending], rows[:2])
    with Journal(tmp_path / "journal.sqlite", create=False) as journal:
        record = journal.load("run-1")
        rows[2].held = None
        assert record.rows == rows
        assert record.sendings == [sending]
        assert record.facts.seen == 8


def test_an_intent_without_an_answer_leaves_its_rows_unknown(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        run, rows = facts(), [row(0), row(1), row(2)]
        journal.begin(run, rows)
        journal.intend(run, rows[:2], None, now=7)
    assert get_run("run-1", journal=path).counts == {"unknown": 2, "open": 1}
    listed = list_runs(journal=path).iloc[0]
    assert (listed["State"], listed["Unknown"], listed["Open"]) == ("cut off", 2, 1)


def test_a_digest_is_spent_by_the_first_intent_and_by_no_rehearsal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        runs = [facts(1, rehearsal=True), facts(2), facts(3)]
        for run in runs:
            journal.begin(run, [row()])
        journal.intend(runs[0], [row()], None, now=7)
        assert journal.spent_by("d" * 64, "demo") is None
        journal.intend(runs[1], [row()], None, now=7)
        journal.intend(runs[1], [row()], None, now=8)
        with pytest.raises(PlanError, match="already applied: run run-2"):
            journal.intend(runs[2], [row()], None, now=9)
        assert journal.load("run-3").sendings == []
        assert journal.spent_by("d" * 64, "production") is None


def test_only_its_owner_can_read_it_side_files_and_locks_too(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.sqlite"
    with Journal(path) as journal, journal.lock("127.0.0.1:80"):
        journal.begin(facts(), [row()])
        files = sorted(path.parent.iterdir())
        assert len(files) == 4
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_no_token_and_no_body_ever_gets_into_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with served() as (sandbox, client, _):
        sandbox.faults.next("voucherCodes/delete", "500", "401")
        plan = plan_delete(read(sandbox, client))
        with pytest.raises(RunError):
            apply_plan(client, plan, confirm=40, progress=False, journal=path)
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        assert plan.frame["Id"][0].encode() in content
        for token in (sandbox.client_token, sandbox.access_token):
            assert token.encode() not in content
        assert b"AccessToken" not in content


def test_it_is_durable_before_a_request_leaves(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    seen: list[int] = []
    with served() as (sandbox, client, _):
        plan = plan_add(new_rows(sandbox, 3), environment=client.environment)
        add = type(client).add

        def look(self: object, *args: object, **options: object) -> pd.DataFrame:
            with sqlite3.connect(path) as other:
                seen.append(other.execute("SELECT count(*) FROM sending WHERE answer IS NULL").fetchone()[0])
            other.close()
            return add(self, *args, **options)  # type: ignore[arg-type]

        type(client).add = look  # type: ignore[assignment,method-assign]
        try:
            run = apply_plan(client, plan, confirm=3, progress=False, journal=path)
        finally:
            type(client).add = add  # type: ignore[method-assign]
    assert seen == [1]
    assert run.counts == {"added": 3}


def test_a_journal_that_cannot_be_written_stops_before_anything_is_sent(tmp_path: Path) -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "journal.sqlite", tmp_path):
            with pytest.raises(JournalError, match="cannot be opened"):
                apply_plan(client, plan, confirm=40, progress=False, journal=path)
        assert set(sandbox.codes()["ActivityState"]) == {"Active"}


def test_a_file_that_is_no_journal_or_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(JournalError, match="version 99"):
        Journal(path)
    path.write_bytes(b"no database at all, but long enough to be one, or so it seems" * 40)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(path)


def test_without_a_journal_there_are_no_runs(tmp_path: Path) -> None:
    runs = list_runs()
    assert runs.empty
    assert runs.dtypes.astype(str)[["Id", "StartedUtc", "Codes", "Rehearsal"]].tolist() == [
        "str",
        "datetime64[us, UTC]",
        "int64",
        "bool",
    ]
    assert not (tmp_path / "data").exists()
    with pytest.raises(JournalError, match="no journal"):
        get_run("run-1")
    with Journal(tmp_path / "journal.sqlite"), pytest.raises(InputError, match="no run"):
        get_run("run-1", journal=tmp_path / "journal.sqlite")


def test_codes_survive_the_way_into_the_journal_and_back() -> None:
    codes = [
        Code("a", "V", "007", None, to_micros(pd.Timestamp("9999-12-31T23:59:59.999999Z")), 0, -1, "Active"),
        Code("B", "v", None, -(10**15), None, None, None, "Deleted"),
    ]
    assert to_codes(to_frame(codes)) == codes
    assert to_codes(to_frame([])) == []
    assert from_micros(1_700_000_000_123_456) == pd.Timestamp("2023-11-14T22:13:20.123456Z")
    assert codes[0].same_as(codes[0]._replace(id="A", voucher_id="v"))
    assert not codes[0].same_as(codes[0]._replace(end=None))
