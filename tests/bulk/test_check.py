"""The guard that no code is deleted while guests can use it, and plans held against the live state."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from bulk.served import NOON, new_rows, read, served, writes
from support import HandClock, make_codes

import vouchertools as vt
from vouchertools.bulk import check as check_module
from vouchertools.bulk.apply import apply_plan, resume_run
from vouchertools.bulk.check import check_plan
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import plan_add, plan_delete, plan_undo
from vouchertools.errors import InputError, NotFoundError, PlanError, RunError

#: Days whose end matters: both switches of the clocks, and where midnight is skipped, in each zone.
LAST_DAYS = {
    "Pacific/Auckland": ["2012-04-01", "2012-09-30", "2012-12-31"],
    "Europe/Prague": ["2012-03-25", "2012-10-28", "2012-06-15"],
    "Pacific/Honolulu": ["2012-03-11", "2012-12-31"],
    "America/Santiago": ["2012-04-28", "2012-09-01", "2012-09-02"],
}
DAYS = [(zone, day) for zone, days in LAST_DAYS.items() for day in days]


def first_instant(zone: str, day: str) -> datetime:
    """The first instant of a local day in UTC, found by trying every minute of it."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=16)
    minutes = (start + timedelta(minutes=number) for number in range(40 * 60))
    return next(minute for minute in minutes if str(minute.astimezone(ZoneInfo(zone)).date()) == day)


def served_on_its_last_day(zone: str, day: str, clock: HandClock) -> Any:
    """Codes whose window ends with a local day, the way Mews writes dates."""
    codes = make_codes(3, start="2012-02-01", days=30, deleted=0.0)
    codes["ValidityEndUtc"] = pd.Timestamp(first_instant(zone, day))
    vouchers = pd.DataFrame({"Id": codes["VoucherId"].unique(), "TimeZone": [zone]})
    return served(codes, vouchers=vouchers, clock=clock, client={"clock": clock}, updated_required=False)


def make_plans(client: vt.Client, sandbox: vt.Sandbox, zone: str) -> list[Plan]:
    """All ways to plan a deletion: the right zone, none, wrong ones, another instant to judge at."""
    codes = read(sandbox, client)
    later = client.now() + timedelta(days=3)
    return [
        plan_delete(codes, tz=zone),
        plan_delete(codes),
        plan_delete(codes, tz="Pacific/Kiritimati", reason="a zone that is ahead of all"),
        plan_delete(codes, tz="Pacific/Pago_Pago", reason="a zone that is behind all"),
        plan_delete(codes, tz=client.vouchers(), as_of=later, reason="judged at a later instant"),
    ]


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_a_code_valid_through_today_is_not_deleted_by_any_path(zone: str, day: str) -> None:
    end = first_instant(zone, day)
    after = first_instant(zone, str((datetime.fromisoformat(day) + timedelta(days=1)).date()))
    clock = HandClock(end - timedelta(seconds=1))
    with served_on_its_last_day(zone, day, clock) as (sandbox, client, _):
        plans = make_plans(client, sandbox, zone)
        for now in (end, after - timedelta(seconds=1)):
            clock.forward((now - clock()).total_seconds())
            for plan in plans:
                with pytest.raises(PlanError, match="can still be used"):
                    apply_plan(client, plan, confirm=3, progress=False)
        checks = check_plan(client, plans[-1], progress=False)
        assert set(checks["Level"]) == {"allow_valid"}
        assert writes(sandbox) == 0
        assert set(sandbox.codes()["ActivityState"]) == {"Active"}


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_it_is_deleted_once_that_day_is_over_or_when_the_call_says_so(zone: str, day: str) -> None:
    after = first_instant(zone, str((datetime.fromisoformat(day) + timedelta(days=1)).date()))
    for now, allow in ((after, False), (after - timedelta(seconds=1), True)):
        clock = HandClock(now)
        with served_on_its_last_day(zone, day, clock) as (sandbox, client, _):
            plan = plan_delete(read(sandbox, client), tz=zone)
            run = apply_plan(client, plan, confirm=3, allow_valid=allow, progress=False)
            assert run.counts == {"deleted": 3}


def test_without_any_zone_a_code_counts_as_usable_for_25_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = make_codes(1, start="2012-02-01", days=30, deleted=0.0)

    def refuse(self: vt.Client, service_ids: Any = None) -> pd.DataFrame:
        raise NotFoundError("no such operation", status_code=404)

    monkeypatch.setattr(vt.Client, "vouchers", refuse)
    for hours, usable in ((24, True), (26, False)):
        codes["ValidityEndUtc"] = pd.Timestamp(NOON) - pd.Timedelta(hours=hours)
        with served(codes) as (sandbox, client, _):
            plan = plan_delete(read(sandbox, client), reason=str(hours))
            if usable:
                with pytest.raises(PlanError, match="can still be used"):
                    apply_plan(client, plan, confirm=1, progress=False)
            else:
                assert apply_plan(client, plan, confirm=1, progress=False).counts == {"deleted": 1}


def test_a_resume_goes_through_the_same_guard() -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client))
        sandbox.faults.next("voucherCodes/delete", "401")
        with pytest.raises(RunError) as caught:
            apply_plan(client, plan, confirm=40, progress=False)
        early = HandClock(datetime(2012, 2, 2, tzinfo=UTC))
        sandbox._clock = early
        with sandbox.client(clock=early) as back, pytest.raises(PlanError, match="can still be used"):
            resume_run(back, caught.value.run.id, progress=False)


def test_undoing_an_addition_needs_the_word_and_says_so() -> None:
    with served() as (sandbox, client, _):
        run = apply_plan(
            client, plan_add(new_rows(sandbox, 2), environment=client.environment), confirm=2, progress=False
        )
        plan = plan_undo(run)
        assert "allow_valid=True" in repr(plan)
        with pytest.raises(PlanError, match="can still be used"):
            apply_plan(client, plan, confirm=2, progress=False)


# ---- check_plan ----


def found(checks: pd.DataFrame) -> dict[str, int]:
    return {str(name): int(number) for name, number in checks["Check"].value_counts().items()}


@pytest.mark.parametrize("required", [True, False])
def test_a_check_finds_what_changed_since_and_sends_nothing(required: bool) -> None:
    with served(updated_required=required) as (sandbox, client, clock):
        codes = read(sandbox, client)
        unknown = codes.tail(1).assign(Id="00000000-0000-4000-8000-00000000dead")
        plan = plan_delete(
            pd.concat([codes, unknown]), environment=client.environment, as_of=codes.attrs["read_utc"]
        )
        assert found(check_plan(client, plan, progress=False)) == {"missing": 1}
        clock.forward(60)
        sandbox.touch(codes["Id"].head(2))
        sandbox.delete_codes(codes["Id"].tail(3))
        checks = check_plan(client, plan, progress=False)
        assert found(checks) == {"missing": 1, "changed": 2, "already deleted": 3}
        assert set(checks.set_index("Check").loc["changed", "Id"]) == set(codes["Id"].head(2))
        assert checks.columns.tolist() == plan.checks.columns.tolist()
        assert writes(sandbox) == 0


def test_a_check_of_an_addition_finds_what_exists_and_what_nobody_can_use() -> None:
    codes = make_codes(4, vouchers=2, start="2012-02-01", days=60, deleted=0.0)
    ids = codes["VoucherId"].unique()
    vouchers = pd.DataFrame({"Id": ids, "TimeZone": "Europe/Prague", "IsActive": [True, False]})
    with served(codes, vouchers=vouchers) as (sandbox, client, _):
        rows = pd.DataFrame(
            {
                "VoucherId": [ids[0], ids[0], ids[1], "00000000-0000-4000-8000-00000000dead"],
                "Value": [codes["Value"][0], codes["Value"][2].lower(), "NEW", "NEW"],
            }
        )
        plan = plan_add(rows, environment=client.environment)
        assert found(check_plan(client, plan, progress=False)) == {
            "exists": 1,
            "other case": 1,
            "inactive voucher": 1,
            "unknown voucher": 1,
        }
        assert writes(sandbox) == 0


def test_a_check_says_where_a_plan_would_be_refused_or_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (sandbox, client, _):
        plan = plan_delete(read(sandbox, client), environment="production")
        assert found(check_plan(client, plan, progress=False)) == {"rehearsal": 1}
        monkeypatch.setattr(vt.Client, "environment", "demo")
        monkeypatch.setattr(vt.Client, "is_sandbox", False)
        checks = check_plan(client, plan, progress=False)
        assert checks.set_index("Check").loc["environment", "Level"] == "stop"


def test_only_a_plan_is_checked_and_applied() -> None:
    with served() as (sandbox, client, _):
        for function in (check_plan, apply_plan):
            options = {} if function is check_plan else {"confirm": 1}
            with pytest.raises(InputError, match="must be a Plan"):
                function(client, read(sandbox, client), **options)  # type: ignore[arg-type]
        assert check_module.USABLE == ("valid", "future")
