"""Applying plans on the sandbox: what is done, what is left alone, what stops, and how it is taken back."""

import _thread
import json
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bulk.served import NOON, active, new_rows, read, reads, served, writes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import HandClock, make_codes

import vouchertools as vt
from vouchertools.bulk import work
from vouchertools.bulk.apply import apply_plan, resume_run
from vouchertools.bulk.journal import Journal
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import plan_add, plan_delete, plan_undo
from vouchertools.bulk.run import Run, get_run, list_runs
from vouchertools.errors import (
    ConflictError,
    InputError,
    JournalError,
    NoAnswerError,
    PlanError,
    RunError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
)


def apply(client: vt.Client, plan: Plan, **options: Any) -> Run:
    return apply_plan(client, plan, **{"confirm": len(plan), "progress": False} | options)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MAX_ITEMS", 2)
    monkeypatch.setattr(work, "WORKERS", 2)


# ---- there and back ----


def test_a_delete_and_its_undo_leave_the_same_values_and_windows() -> None:
    clock = HandClock(datetime(2017, 11, 10, 12, tzinfo=UTC))
    with vt.Sandbox(rate_limit=None, clock=clock) as sandbox, sandbox.client(clock=clock) as client:
        before = active(sandbox)
        vouchers = client.vouchers()
        codes = vt.fetch(client, vouchers, progress=False)
        expired = codes[vt.status(codes, as_of=codes.attrs["read_utc"], tz=vouchers) == "expired"]
        run = apply(client, plan_delete(expired, tz=vouchers, reason="spring clean"))
        assert run.counts == {"deleted": len(expired)}
        assert len(active(sandbox)) == len(before) - len(expired)
        undo = apply(client, plan_undo(run))
        assert undo.counts == {"added": len(expired)}
        assert active(sandbox) == before


def test_an_addition_and_its_undo_leave_what_was_there() -> None:
    with served() as (sandbox, client, _):
        before = active(sandbox)
        run = apply(client, plan_add(new_rows(sandbox, 12), existing=read(sandbox, client)))
        assert run.counts == {"added": 12}
        truth = sandbox.codes().set_index("Id").loc[run.frame["Id"]]
        assert truth["Value"].tolist() == run.frame["Value"].tolist()
        assert set(truth["ValidityEndUtc"]) == {pd.Timestamp("2012-06-30T22:00:00Z")}
        undo = plan_undo(run)
        assert set(undo.checks["Level"]) == {"allow_valid"}
        with pytest.raises(PlanError, match="allow_valid=True"):
            apply(client, undo)
        assert apply(client, undo, allow_valid=True).counts == {"deleted": 12}
        assert active(sandbox) == before


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 1.0), twice=st.booleans())
def test_whatever_is_deleted_comes_back_and_can_go_again(seed: int, share: float, twice: bool) -> None:
    codes = make_codes(30, vouchers=2, start="2012-02-01", days=60, deleted=0.2, seed=seed)
    if twice:
        codes["Value"] = codes["Value"].str.slice(0, 8)
    with served(codes) as (sandbox, client, clock):
        before = active(sandbox)
        chosen = read(sandbox, client).sample(frac=share, random_state=seed % 1000)
        plan = plan_delete(chosen)
        first = apply(client, plan)
        gone = active(sandbox)
        if first.counts["deleted"]:
            clock.forward(1)
            restored = apply(client, plan_undo(first))
            assert active(sandbox) == before
            again = plan_undo(restored)
            key = ["VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc"]
            was = plan.frame[plan.frame["ActivityState"] == "Active"]
            pd.testing.assert_frame_equal(
                again.frame[key].sort_values(key, ignore_index=True),
                was[key].sort_values(key, ignore_index=True),
            )
            assert apply(client, again).counts == {"deleted": len(was)}
            assert active(sandbox) == gone


def test_an_undo_restores_one_of_two_equal_values() -> None:
    codes = make_codes(2, start="2012-02-01", days=60, deleted=0.0).assign(Value="TWICE")
    with served(codes) as (sandbox, client, clock):
        before = active(sandbox)
        run = apply(client, plan_delete(read(sandbox, client).head(1)))
        clock.forward(1)
        assert apply(client, plan_undo(run)).counts == {"added": 1}
        assert [row[1] for row in active(sandbox)] == [row[1] for row in before] == ["TWICE", "TWICE"]


def test_an_undo_adds_nothing_where_somebody_put_the_value_back() -> None:
    with served() as (sandbox, client, clock):
        run = apply(client, plan_delete(read(sandbox, client).head(2)))
        clock.forward(1)
        back = run.frame.iloc[0]
        sandbox.add_codes([(back["VoucherId"], back["Value"])])
        undo = apply(client, plan_undo(run))
        assert undo.counts == {"added": 1, "exists": 1}
        again = plan_undo(run, reason="once more")
        assert apply(client, again).counts == {"exists": 2}


def test_what_cannot_come_back_is_said_before_and_left_out_after() -> None:
    codes = make_codes(3, start="2012-02-01", days=60, deleted=0.0)
    codes.loc[0, "Value"] = None
    with served(codes) as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        assert plan.checks["Check"].tolist() == ["no way back"]
        run = apply(client, plan)
        undo = plan_undo(run)
        assert len(undo) == 2
        assert "no way back" in set(undo.checks["Check"])


def test_a_run_that_changed_nothing_cannot_be_undone() -> None:
    with served() as (sandbox, client, _):
        codes = read(sandbox, client).head(2)
        sandbox.delete_codes(codes["Id"])
        run = apply(client, plan_delete(codes))
        assert run.counts == {"already deleted": 2}
        with pytest.raises(PlanError, match="cannot be undone"):
            plan_undo(run)


# ---- guards ----


def test_nothing_is_sent_unless_the_number_is_confirmed() -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        for confirm, error in ((39, PlanError), (0, PlanError), (True, InputError), ("40", InputError)):
            with pytest.raises(error, match="confirm"):
                apply(client, plan, confirm=confirm)
        assert writes(sandbox) == 0
        assert list_runs().empty


def test_a_plan_is_refused_anywhere_but_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        for environment in ("production", "demo", "127.0.0.1:8000"):
            monkeypatch.setattr(vt.Client, "environment", environment)
            with pytest.raises(PlanError, match=f"made for sandbox-.* connected to {environment}"):
                apply(client, plan)
        unbound = plan_add(new_rows(sandbox, 1))
        with pytest.raises(PlanError, match="names no environment"):
            apply(client, unbound)
        assert writes(sandbox) == 0


def test_a_plan_with_rows_that_must_not_be_sent_is_refused_even_if_its_checks_were_lost() -> None:
    with served() as (sandbox, client, _):
        plan = plan_add(new_rows(sandbox, 2).assign(Value=["A", "B" * 129]))
        with pytest.raises(PlanError, match="1 rows cannot be applied"):
            apply(client, plan)
        bare = Plan("add", plan.frame, plan.checks.head(0), None, "")
        with pytest.raises(PlanError, match="128 characters"):
            apply(client, bare)
        assert writes(sandbox) == 0


def test_a_plan_can_be_applied_once() -> None:
    with served() as (sandbox, client, _):
        rows = new_rows(sandbox, 3)
        run = apply(client, plan_add(rows, environment=client.environment))
        with pytest.raises(PlanError, match=f"already applied: run {run.id}.*resume_run.*another reason"):
            apply(client, plan_add(rows.iloc[::-1], environment=client.environment))
        assert writes(sandbox) == 1
        again = plan_add(rows, reason="again", environment=client.environment)
        assert apply(client, again).counts == {"exists": 3}


def test_a_rehearsal_on_a_copy_spends_nothing() -> None:
    with served() as (sandbox, client, _):
        codes = read(sandbox, client)
        plan = plan_delete(codes)
        for _ in range(2):
            with served(codes) as (copy, on_copy, _):
                rehearsal = apply(on_copy, plan)
                assert rehearsal.rehearsal
                assert rehearsal.counts == {"deleted": 40}
                assert active(copy) == []
        assert writes(sandbox) == 0
        run = apply(client, plan)
        assert not run.rehearsal
        assert run.counts == {"deleted": 40}
        assert list_runs()["Rehearsal"].tolist() == [False, True, True]


def test_two_runs_in_one_environment_do_not_run_at_the_same_time() -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        with (
            Journal() as journal,
            journal.lock(client.environment),
            pytest.raises(JournalError, match="under way"),
        ):
            apply(client, plan)
        assert writes(sandbox) == 0
        assert apply(client, plan).counts == {"deleted": 40}


# ---- somebody else is there too ----


def test_what_somebody_touched_since_the_selection_is_left_alone() -> None:
    with served() as (sandbox, client, clock):
        codes = read(sandbox, client)
        ids = codes["Id"].tolist()
        clock.forward(3600)
        sandbox.touch([ids[0]])
        sandbox.change_window([ids[1]], None, None)
        sandbox.delete_codes([ids[2]])
        unknown = codes.tail(1).assign(Id="00000000-0000-4000-8000-00000000dead")
        plan = plan_delete(
            pd.concat([codes, unknown]), environment=client.environment, as_of=codes.attrs["read_utc"]
        )
        run = apply(client, plan)
        assert run.counts == {"deleted": 37, "changed": 2, "already deleted": 1, "missing": 1}
        by_id = run.frame.set_index("Id")
        assert "UpdatedUtc" in by_id.loc[ids[0], "Message"]
        assert "ValidityEndUtc" in by_id.loc[ids[1], "Message"]
        states = sandbox.codes().set_index("Id")["ActivityState"]
        assert states[ids[0]] == states[ids[1]] == "Active"


def test_a_code_touched_between_two_batches_is_left_alone(small_batches: None) -> None:
    with served() as (sandbox, client, clock):
        plan = plan_delete(read(sandbox, client))
        last = plan.frame.sort_values("UpdatedUtc")["Id"].iloc[-1]
        clock.forward(60)

        def touch(server: Any, _page: int) -> None:
            if writes(sandbox) and not touched:
                touched.append(last)
                server.touch([last])

        touched: list[str] = []
        sandbox.faults.on_page = touch
        run = apply(client, plan)
        assert run.counts == {"deleted": 39, "changed": 1}
        assert run.frame.set_index("Id").loc[last, "Outcome"] == "changed"


@pytest.mark.parametrize("duplicates", ["accepted", "refused"])
def test_a_value_that_a_colleague_adds_meanwhile_is_not_added_again(
    small_batches: None, duplicates: str
) -> None:
    with served(duplicate_values=duplicates) as (sandbox, client, _):
        rows = new_rows(sandbox, 20)
        plan = plan_add(rows, existing=read(sandbox, client))
        added: list[str] = []

        def add(server: Any, _page: int) -> None:
            if writes(sandbox) and not added:
                last = rows.sort_values(["VoucherId", "Value"]).iloc[-1]
                added.extend(server.add_codes([(last["VoucherId"], last["Value"])]))

        sandbox.faults.on_page = add
        run = apply(client, plan)
        assert run.counts == {"added": 19, "exists": 1}
        assert added[0] in run.frame.set_index("Outcome").loc["exists", "Message"]
        assert sandbox.codes()["Value"].value_counts().max() == 1


def test_a_value_that_was_deleted_before_is_added() -> None:
    with served() as (sandbox, client, _):
        gone = read(sandbox, client).iloc[0]
        sandbox.delete_codes([gone["Id"]])
        rows = pd.DataFrame({"VoucherId": [gone["VoucherId"]], "Value": [gone["Value"]]})
        assert apply(client, plan_add(rows, existing=read(sandbox, client))).counts == {"added": 1}


def test_a_value_added_between_check_and_sending_is_found_by_reading_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(duplicate_values="refused") as (sandbox, client, _):
        rows = new_rows(sandbox, 10)
        colleague: list[str] = []
        add = vt.Client.add

        def late(self: vt.Client, frame: pd.DataFrame, **options: Any) -> pd.DataFrame:
            if not colleague:
                colleague.extend(sandbox.add_codes(rows.iloc[[3]]))
            return add(self, frame, **options)

        monkeypatch.setattr(vt.Client, "add", late)
        run = apply(client, plan_add(rows, environment=client.environment))
        assert run.counts == {"added": 9, "exists": 1}
        assert writes(sandbox) == 2
        assert not set(colleague) & set(run.frame["Id"])


@pytest.mark.parametrize("count", [1, 10])
def test_a_code_deleted_between_check_and_sending_is_found_by_reading_back(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served() as (sandbox, client, _):
        codes = read(sandbox, client).head(count)
        delete = vt.Client.delete

        def late(self: vt.Client, ids: Any, **options: Any) -> None:
            if (sandbox.codes()["ActivityState"] == "Active").all():
                sandbox.delete_codes([ids[0]])
            delete(self, ids, **options)

        monkeypatch.setattr(vt.Client, "delete", late)
        run = apply(client, plan_delete(codes))
        assert run.counts == +Counter({"deleted": count - 1, "already deleted": 1})


# ---- refusals ----


@pytest.mark.parametrize("bad", [1, 3])
def test_bad_rows_are_found_by_halving_and_all_others_go_through(bad: int) -> None:
    with served() as (sandbox, client, _):
        rows = new_rows(sandbox, 1000)
        places = [977, 13, 500][:bad]
        rows.loc[places, "VoucherId"] = "00000000-0000-4000-8000-00000000dead"
        run = apply(client, plan_add(rows, environment=client.environment))
        assert run.counts == {"added": 1000 - bad, "refused": bad}
        refused = run.frame[run.frame["Outcome"] == "refused"]
        assert refused.index.tolist() == sorted(places)
        assert refused["Message"].str.startswith("Invalid VoucherId: 00000000-").all()
        known = {sending.request_id for sending in run.record.sendings}
        assert set(refused["RequestId"]) <= known
        assert writes(sandbox) <= 1 + 20 * bad


def test_ten_rows_refused_alone_for_one_reason_stop_a_run_in_which_nothing_is_accepted() -> None:
    with served() as (sandbox, client, _):
        rows = new_rows(sandbox, 3000)
        rows["VoucherId"] = [f"00000000-0000-4000-8000-{number:012d}" for number in range(3000)]
        with pytest.raises(RunError, match="10 codes were refused one by one for the same reason") as caught:
            apply(client, plan_add(rows, environment=client.environment))
        assert caught.value.run.counts == {"refused": 10, "open": 2990}
        assert caught.value.run.state == "stopped"
        assert writes(sandbox) < 40


@pytest.mark.parametrize(("status", "words"), [("401", "Injected fault 401"), ("404", "Injected fault 404")])
def test_a_refused_token_or_address_stops_the_run_at_once(
    small_batches: None, status: str, words: str
) -> None:
    with served() as (sandbox, client, _):
        sandbox.faults.next("voucherCodes/delete", status)
        with pytest.raises(RunError, match=words) as caught:
            apply(client, plan_delete(read(sandbox, client)))
        assert writes(sandbox) == 1
        assert caught.value.run.counts == {"open": 40}
        assert caught.value.__cause__ is not None
        assert resume_run(client, caught.value.run.id, progress=False).counts == {"deleted": 40}


def test_a_wrong_enterprise_stops_the_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (sandbox, client, clock):
        rows = new_rows(sandbox, 40)
        plan = plan_add(rows, environment=client.environment)
        with sandbox.client(portfolio=True, clock=clock) as portfolio:
            known = portfolio.vouchers()
            monkeypatch.setattr(
                vt.Client,
                "vouchers",
                lambda self: known,
            )
            monkeypatch.setattr(
                work.Work, "_enterprise", lambda self, row: (True, "00000000-0000-4000-8000-00000000dead")
            )
            with pytest.raises(RunError, match="Invalid EnterpriseId"):
                apply(portfolio, plan)
        assert writes(sandbox) == 1


def test_a_server_that_fails_again_and_again_stops_the_run_and_a_resume_finishes_it() -> None:
    with served() as (sandbox, client, _):
        sandbox.faults.at_random({"500": 1.0}, operation="voucherCodes/delete")
        with pytest.raises(RunError, match="failed 8 times in a row") as caught:
            apply(client, plan_delete(read(sandbox, client)))
        assert caught.value.run.counts == {"open": 40}
        sandbox.faults.off()
        assert resume_run(client, caught.value.run.id, progress=False).counts == {"deleted": 40}


# ---- ambiguity, one by one ----

ANSWERED = [
    "408",
    "409",
    "500",
    "503",
    "408-after",
    "409-after",
    "500-after",
    "504-after",
    "garbled",
    "not-json",
]


@pytest.mark.parametrize("duplicates", ["accepted", "refused"])
@pytest.mark.parametrize("fault", [*ANSWERED, "truncated", "lost-before", "lost-after", "late"])
def test_an_addition_whose_answer_is_lost_is_made_once(fault: str, duplicates: str) -> None:
    with served(duplicate_values=duplicates) as (sandbox, client, clock):
        sandbox.faults.commit_late_s = 100.0
        sandbox.faults.next("voucherCodes/add", fault)
        run = apply(client, plan_add(new_rows(sandbox, 10), existing=read(sandbox, client)))
        assert run.counts == {"added": 10}
        truth = sandbox.codes()
        assert truth["Value"].value_counts().max() == 1
        assert set(run.frame["Id"]) <= set(truth["Id"])
        done_at_first = fault.endswith("-after") or fault in ("garbled", "not-json", "truncated", "late")
        assert writes(sandbox) == (1 if done_at_first else 2)
        assert (clock.elapsed >= client.settle_s) == (fault in ("lost-before", "late"))


@pytest.mark.parametrize("fault", [*ANSWERED, "truncated", "lost-before", "lost-after", "late"])
@pytest.mark.parametrize("again", ["accepted", "refused"])
def test_a_deletion_whose_answer_is_lost_is_made_once(fault: str, again: str) -> None:
    with served(deleting_deleted=again) as (sandbox, client, _):
        sandbox.faults.commit_late_s = 100.0
        sandbox.faults.next("voucherCodes/delete", fault)
        run = apply(client, plan_delete(read(sandbox, client)))
        assert run.counts == {"deleted": 40}
        assert active(sandbox) == []


@pytest.mark.parametrize("fault", ["lost-after", "lost-before", "late", "500-after", "none"])
def test_equal_values_come_back_as_often_as_they_were_deleted(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_ITEMS", 2)
    codes = make_codes(7, start="2012-02-01", days=60, deleted=0.0).assign(Value="EQUAL", ValidityEndUtc=NOON)
    codes["ValidityStartUtc"] = codes["ValidityEndUtc"] - pd.Timedelta("30D")
    codes["ValidityEndUtc"] -= pd.Timedelta("3D")
    with served(codes) as (sandbox, client, clock):
        before = active(sandbox)
        run = apply(client, plan_delete(read(sandbox, client).head(5)))
        clock.forward(5)
        sandbox.faults.commit_late_s = 100.0
        sandbox.faults.next("voucherCodes/add", "none", fault)
        undo = apply(client, plan_undo(run))
        assert undo.counts == {"added": 5}
        assert undo.frame["Id"].is_unique
        assert active(sandbox) == before


def test_an_answer_that_names_fewer_codes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (sandbox, client, _):
        add = vt.Client.add
        monkeypatch.setattr(
            vt.Client, "add", lambda self, frame, **options: add(self, frame, **options).iloc[1:]
        )
        run = apply(client, plan_add(new_rows(sandbox, 5), environment=client.environment))
        assert run.counts == {"added": 5}
        assert writes(sandbox) == 1
        assert set(run.frame["Message"]) == {"Its answer was lost; read back as added."}


def test_a_request_that_hangs_until_the_client_gives_up_is_settled() -> None:
    with served(client={"timeout": 0.3}) as (sandbox, client, clock):
        sandbox.faults.next("voucherCodes/add", "hang")
        run = apply(client, plan_add(new_rows(sandbox, 10), environment=client.environment))
        assert run.counts == {"added": 10}
        assert writes(sandbox) == 1
        assert sandbox.codes()["Value"].value_counts().max() == 1
        assert clock.elapsed >= client.settle_s


def test_a_colleague_who_adds_the_lost_value_with_another_window_is_not_taken_for_us() -> None:
    with served() as (sandbox, client, _):
        rows = new_rows(sandbox, 4)
        sandbox.faults.next("voucherCodes/add", "lost-before")
        colleague: list[str] = []

        def add(server: Any, _page: int) -> None:
            if writes(sandbox) and not colleague:
                colleague.extend(server.add_codes([(rows["VoucherId"][0], rows["Value"][0])]))

        plan = plan_add(rows, existing=read(sandbox, client))
        sandbox.faults.on_page = add
        run = apply(client, plan)
        assert run.counts == {"added": 3, "exists": 1}
        assert not set(colleague) & set(run.frame["Id"])
        assert sandbox.codes()["Value"].value_counts().max() == 1


def test_of_two_equal_codes_the_one_that_came_with_its_batch_is_ours() -> None:
    with served() as (sandbox, client, clock):
        rows = new_rows(sandbox, 4)
        sandbox.faults.next("voucherCodes/add", "lost-after")
        colleague: list[str] = []

        def add(server: Any, _page: int) -> None:
            if writes(sandbox) and not colleague:
                clock.forward(7)
                colleague.extend(server.add_codes(rows.head(1)))

        plan = plan_add(rows, existing=read(sandbox, client))
        sandbox.faults.on_page = add
        run = apply(client, plan)
        assert run.counts == {"added": 4}
        assert not set(colleague) & set(run.frame["Id"])


def test_an_answer_without_a_request_id_is_a_proxys_and_says_nothing_about_the_server() -> None:
    assert work.classify(ServerError("bad gateway", status_code=502)) == "unanswered"
    assert work.classify(ServerError("fault", status_code=500, request_id="1")) == "answered"
    assert work.classify(ConflictError("changed", status_code=409, request_id="1")) == "answered"
    assert work.classify(NoAnswerError("lost")) == "unanswered"
    assert work.classify(UnreachableError("no connection")) == "unsent"
    assert work.classify(UnauthorizedError("no", status_code=401)) == "refused"


# ---- proof ----


def test_what_the_server_accepts_and_does_not_do_is_unknown_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served() as (sandbox, client, _):
        with monkeypatch.context() as patch:
            patch.setattr(vt.Client, "delete", lambda *args, **options: None)
            run = apply(client, plan_delete(read(sandbox, client)))
        assert run.counts == {"unknown": 40}
        assert "does not show it" in run.frame["Message"].iloc[0]
        assert "resume_run" in repr(run)
        assert resume_run(client, run.id, progress=False).counts == {"deleted": 40}


def test_a_window_that_is_not_as_asked_for_is_reported() -> None:
    with served() as (sandbox, client, _):
        plan = plan_add(new_rows(sandbox, 3), existing=read(sandbox, client))

        def move(server: Any, _page: int) -> None:
            new = sandbox.codes().query("Value == 'NEW-0001'")["Id"].tolist()
            if new and writes(sandbox):
                server.change_window(new, None, None)

        sandbox.faults.on_page = move
        run = apply(client, plan)
        assert run.counts == {"added": 2, "changed": 1}
        assert (
            "another ValidityStartUtc, ValidityEndUtc"
            in run.frame.set_index("Value").loc["NEW-0001", "Message"]
        )
        assert len(plan_undo(run)) == 3


# ---- requests ----


@pytest.mark.parametrize("required", [True, False])
def test_a_deletion_takes_three_requests_a_batch(required: bool) -> None:
    codes = make_codes(5_000, vouchers=3, start="2012-02-01", days=60, deleted=0.0)
    with served(codes, updated_required=required) as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        before = reads(sandbox)
        assert apply(client, plan).counts == {"deleted": 5_000}
        assert writes(sandbox) == 5
        assert reads(sandbox) - before <= 2 * 5 + 2


# ---- portfolio ----


def test_with_a_portfolio_token_each_batch_carries_the_enterprise_of_its_vouchers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = make_codes(60, vouchers=4, start="2012-02-01", days=60, deleted=0.0)
    ids = codes["VoucherId"].unique()
    vouchers = pd.DataFrame({"Id": ids, "TimeZone": ["Europe/Prague", "Pacific/Auckland"] * 2})
    with served(codes, vouchers=vouchers) as (sandbox, _, clock):
        options: dict[str, Any] = {"portfolio": True, "rate_limit": (10**6, 1.0), "clock": clock}
        with sandbox.client(**options) as client:
            sent: list[tuple[str | None, set[str]]] = []
            delete = vt.Client.delete

            def watch(self: vt.Client, ids: Any, *, enterprise_id: str | None = None) -> None:
                sent.append((enterprise_id, set(ids)))
                delete(self, ids, enterprise_id=enterprise_id)

            monkeypatch.setattr(vt.Client, "delete", watch)
            known = client.vouchers()
            everything = vt.fetch(client, known, progress=False)
            run = apply(client, plan_delete(everything, tz=known))
            assert run.counts == {"deleted": 60}
            owner = known.set_index("Id")["EnterpriseId"]
            voucher = everything.set_index("Id")["VoucherId"]
            assert len(sent) == 2
            for enterprise_id, ids in sent:
                assert {owner[voucher[id_]] for id_ in ids} == {enterprise_id}
            assert apply(client, plan_undo(run)).counts == {"added": 60}
        rows = pd.DataFrame({"VoucherId": ["00000000-0000-4000-8000-00000000dead"], "Value": ["A"]})
        with sandbox.client(**options) as client:
            lost = apply(client, plan_add(rows, environment=client.environment))
            assert lost.counts == {"missing": 1}


# ---- interrupted, and watched ----


def test_an_interrupt_ends_in_a_true_run_that_can_be_finished(small_batches: None) -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))

        def interrupt(_server: Any, _page: int) -> None:
            if writes(sandbox) >= 2 and not interrupted:
                interrupted.append(True)
                _thread.interrupt_main()
                threading.Event().wait(0.3)  # the main thread looks up every tenth of a second

        interrupted: list[bool] = []
        sandbox.faults.on_page = interrupt
        run = apply(client, plan)
        assert run.state == "interrupted"
        assert "interrupted before its end" in repr(run)
        assert len(plan_undo(run)) == run.counts["deleted"]
        states = sandbox.codes().set_index("Id")["ActivityState"]
        for _, row in run.frame.iterrows():
            assert (row["Outcome"] == "deleted") == (states[row["Id"]] == "Deleted")
        assert run.counts["open"] > 0
        assert run.counts["unknown"] == 0
        done = writes(sandbox)
        finished = resume_run(client, run.id, progress=False)
        assert finished.counts == {"deleted": 40}
        assert writes(sandbox) == done + -(-run.counts["open"] // 2)
        assert finished.id == run.id


def test_an_interrupt_while_waiting_leaves_what_is_ambiguous_unknown() -> None:
    with served() as (sandbox, client, clock):
        plan = plan_add(new_rows(sandbox, 4), existing=read(sandbox, client))
        sandbox.faults.next("voucherCodes/add", "late")
        wait = clock.wait

        def interrupted(condition: Any, seconds: float | None) -> None:
            clock.wait = wait  # type: ignore[method-assign]
            raise KeyboardInterrupt

        clock.wait = interrupted  # type: ignore[method-assign]
        run = apply(client, plan)
        assert run.counts == {"unknown": 4}
        assert run.state == "interrupted"
        with pytest.raises(PlanError, match="added nothing"):
            plan_undo(run)
        assert resume_run(client, run.id, progress=False).counts == {"added": 4}
        assert sandbox.codes()["Value"].value_counts().max() == 1


def test_a_second_interrupt_does_not_wait_for_a_server_that_hangs() -> None:
    with served(client={"timeout": 60.0}) as (sandbox, client, _):
        plan = plan_add(new_rows(sandbox, 4), environment=client.environment)
        sandbox.faults.next("voucherCodes/add", "hang")
        timers = [threading.Timer(seconds, _thread.interrupt_main) for seconds in (1.0, 1.5)]

        def start(_server: Any, _page: int) -> None:
            while timers:
                timers.pop().start()

        sandbox.faults.on_page = start
        run = apply(client, plan)
        assert run.state == "interrupted"
        assert run.counts == {"unknown": 4}
        assert resume_run(client, run.id, progress=False).counts == {"added": 4}
        assert sandbox.codes()["Value"].value_counts().max() == 1


def test_resuming_a_finished_run_changes_nothing() -> None:
    with served() as (sandbox, client, _):
        run = apply(client, plan_delete(read(sandbox, client)))
        seen = len(sandbox.requests)
        assert resume_run(client, run.id, progress=False).counts == run.counts
        assert len(sandbox.requests) == seen
        with served() as (_, other, _), pytest.raises(PlanError, match="belongs to"):
            resume_run(other, run.id, progress=False)
        with pytest.raises(InputError, match="no run"):
            resume_run(client, "nothing", progress=False)


def test_another_process_reads_the_journal_while_a_run_is_under_way(
    small_batches: None, tmp_path: Path
) -> None:
    show = "from vouchertools.bulk.run import list_runs; print(list_runs().iloc[0].to_json())"
    with served() as (sandbox, client, _):
        seen: list[dict[str, Any]] = []

        def look(server: Any, _page: int) -> None:
            if writes(sandbox) >= 3 and not seen:
                seen.append({})
                server.faults.latency_ms = 500
                done = subprocess.run(
                    [sys.executable, "-c", show], capture_output=True, text=True, check=True
                )
                seen[0].update(json.loads(done.stdout))
                server.faults.latency_ms = 0

        plan = plan_delete(read(sandbox, client))
        sandbox.faults.on_page = look
        run = apply(client, plan)
        assert run.counts == {"deleted": 40}
        assert seen[0]["State"] == "running"
        assert seen[0]["Codes"] == 40
        assert 0 < seen[0]["Done"] < 40


def test_the_bar_counts_codes_and_shows_what_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with served() as (sandbox, client, _):
        plan = plan_add(new_rows(sandbox, 4), existing=read(sandbox, client))
        sandbox.faults.next("voucherCodes/add", "lost-before")
        apply(client, plan, progress=True)
    shown = capsys.readouterr().err
    assert "Adding voucher codes" in shown
    assert "4/4" in shown
    assert "waiting" in shown
    assert "an answer was lost" in shown


def test_get_run_shows_the_same_in_any_kernel_and_a_panel_escapes_it() -> None:
    with served() as (sandbox, client, _):
        rows = new_rows(sandbox, 3).assign(Value=["<b>A</b>", "B", "C"])
        run = apply(client, plan_add(rows, environment=client.environment, reason="<i>"))
        again = get_run(run.id)
        pd.testing.assert_frame_equal(again.frame, run.frame)
        assert repr(again) == repr(run)
        assert run.frame.columns.tolist() == ["Id", "VoucherId", "Value", "Outcome", "Message", "RequestId"]
        assert "<b>A</b>" not in run._repr_html_()
        assert "&lt;b&gt;A&lt;/b&gt;" in run._repr_html_()
        assert "3 of 3 codes added" in run._repr_html_()
        listed = list_runs().iloc[0]
        assert (listed["Id"], listed["Kind"], listed["Done"], listed["State"]) == (
            run.id,
            "add",
            3,
            "finished",
        )
