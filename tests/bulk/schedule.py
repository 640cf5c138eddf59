"""One run under a random schedule of faults, kills and colleagues, and what it got wrong: nothing, one hopes.

A kill is what ``kill -9`` leaves behind: from one instant on nothing is written to the journal and nothing is
sent, while requests under way still take effect at the server.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from bulk.served import NOON
from support import HandClock, make_codes

import vouchertools as vt
from vouchertools.bulk import work
from vouchertools.bulk.apply import apply_plan, resume_run
from vouchertools.bulk.journal import Journal
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import plan_add, plan_delete, plan_undo
from vouchertools.bulk.run import Run, list_runs
from vouchertools.errors import RunError
from vouchertools.pace import Retry

SETTLE_S = 120.0
WRITE_FAULTS = (
    "408",
    "409",
    "429",
    "429-bare",
    "500",
    "502",
    "503",
    "408-after",
    "409-after",
    "500-after",
    "504-after",
    "lost-before",
    "lost-after",
    "late",
    "truncated",
    "garbled",
    "not-json",
)
READ_FAULTS = ("429", "500", "502", "lost-before", "truncated")
NEVER_KILLED = 10**9
#: A voucher that no hotel has: the server refuses what is to be added to it.
BAD_VOUCHER = "00000000-0000-4000-8000-000000000bad"


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Guillotine:
    """Falls at one event of a process: a journal write begun or about to end, a request sent or answered.

    `at` counts the events.
    """

    at: int
    events: int = 0
    dead: bool = False
    lock: Any = field(default_factory=threading.Lock)

    def step(self) -> None:
        with self.lock:
            self.events += 1
            self.dead = self.dead or self.events >= self.at
        if self.dead:
            raise Killed

    @contextmanager
    def over(self, client: vt.Client) -> Iterator[None]:
        """Hang it over a client and every journal."""
        exchange, transaction = client._wire.exchange, Journal._transaction

        def watched_exchange(*args: Any, **options: Any) -> Any:
            self.step()
            answer = exchange(*args, **options)
            self.step()
            return answer

        @contextmanager
        def watched_transaction(journal: Journal) -> Iterator[Any]:
            self.step()
            with transaction(journal) as db:
                yield db
                self.step()

        client._wire.exchange = watched_exchange  # type: ignore[method-assign]
        Journal._transaction = watched_transaction  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            Journal._transaction = transaction  # type: ignore[method-assign]


@dataclass
class Outcome:
    """What a schedule came to: the mistakes, and how much happened."""

    mistakes: list[str]
    kind: str
    rows: int
    kills: int
    resumes: int
    faults: Counter[str]
    outcomes: Counter[str]
    seconds: float


def run_schedule(seed: int, folder: Path) -> Outcome:
    """Apply one plan under the schedule that a seed stands for, to its end."""
    began = time.perf_counter()
    chance = random.Random(seed)
    clock = HandClock(NOON)
    kind = chance.choice(["add", "delete", "undo"])
    switches: dict[str, Any] = {
        "duplicate_values": "accepted" if kind == "undo" else chance.choice(["accepted", "refused"]),
        "deleting_deleted": chance.choice(["accepted", "refused"]),
        "updated_required": chance.choice([True, False]),
        "order": chance.choice(["UpdatedUtc", "CreatedUtc"]),
        "interval": chance.choice(["half-open", "inclusive"]),
        "stored_precision": chance.choice(["us", "s"]),
        "state": chance.choice(["both", "ActivityState", "IsActive"]),
    }
    codes = make_codes(chance.randint(20, 80), vouchers=3, start="2012-05-20", days=5, seed=seed, deleted=0.1)
    if kind == "undo":
        codes["Value"] = [f"C-{number % 9}" for number in range(len(codes))]
    work.MAX_ITEMS = chance.choice([2, 5, 20])  # type: ignore[misc]
    with vt.Sandbox(codes, clock=clock, rate_limit=None, **switches) as sandbox:
        with sandbox.client(rate_limit=(10**6, 1.0), clock=clock) as client:
            before = vt.fetch(client, sandbox.voucher_ids, progress=False)
            plan = _make_plan(kind, before, sandbox, chance)
            if kind == "undo":
                path = folder / f"first-{seed}.sqlite"
                run = apply_plan(
                    client, plan, confirm=len(plan), allow_valid=True, progress=False, journal=path
                )
                plan, before = plan_undo(run), sandbox.codes()
                clock.forward(5)
        colleague = _Colleague(kind, plan, chance)
        sandbox.faults.on_page = colleague
        rate = chance.choice([0.0, 0.2, 0.5, 0.8])
        chosen = chance.sample(WRITE_FAULTS, chance.randint(1, 5)) + ["late"] * chance.randint(0, 1)
        sandbox.faults.at_random(
            {name: rate / len(set(chosen)) for name in set(chosen)},
            operation=f"voucherCodes/{plan.kind}",
            seed=seed,
        )
        sandbox.faults.at_random(
            {name: chance.choice([0.0, 0.04]) for name in READ_FAULTS}, operation="*", seed=seed + 1
        )
        sandbox.faults.commit_late_s = chance.uniform(1.0, SETTLE_S - 1.0)
        path = folder / f"journal-{seed}.sqlite"
        kills = [chance.randint(1, 60) for _ in range(chance.choice([0, 0, 1, 2, 3]))]
        run, resumes = _to_the_end(sandbox, plan, path, kills, clock)
        clock.forward(10 * SETTLE_S)
        sandbox.faults.release()
        truth = sandbox.codes()
        mistakes = _FIND[kind](run, plan, before, truth, colleague)
        happened = Counter({name: number for (_, name), number in sandbox.faults.happened.items()})
    return Outcome(
        [f"seed {seed}: {mistake}" for mistake in mistakes],
        kind,
        len(plan),
        len(kills),
        resumes,
        happened,
        run.counts,
        time.perf_counter() - began,
    )


def _make_plan(kind: str, before: pd.DataFrame, sandbox: vt.Sandbox, chance: random.Random) -> Plan:
    if kind != "add":
        return plan_delete(before.sample(frac=chance.choice([0.3, 1.0]), random_state=chance.randint(0, 99)))
    n = chance.randint(5, 60)
    rows = pd.DataFrame(
        {
            "VoucherId": [chance.choice(sandbox.voucher_ids) for _ in range(n)],
            "Value": [f"N-{i:04d}" for i in range(n)],
            "ValidityStartUtc": pd.Timestamp("2012-05-31T22:00:00Z"),
            "ValidityEndUtc": pd.Series(
                [pd.Timestamp("2012-06-30T22:00:00Z") if i % 3 else None for i in range(n)]
            ).astype("datetime64[us, UTC]"),
        }
    )
    for _ in range(chance.choice([0, 0, 1, 2])):
        rows.loc[chance.randrange(n), "VoucherId"] = BAD_VOUCHER
    existing = before[before["ActivityState"] == "Active"].head(3)
    gone = before[before["ActivityState"] == "Deleted"].head(3)
    rows = pd.concat([rows, existing[rows.columns], gone[rows.columns]], ignore_index=True)
    return plan_add(rows.sample(frac=1.0, random_state=n), existing=before.head(0))


class _Colleague:
    """Touches codes that are to be deleted, or adds values that are to be added, with other windows."""

    def __init__(self, kind: str, plan: Plan, chance: random.Random) -> None:
        self.ids: set[str] = set()
        self.touched: set[str] = set()
        self._kind = kind
        self._frame = plan.frame
        self._rate = 0.0 if kind == "undo" else chance.choice([0.0, 0.05, 0.2])
        self._chance = random.Random(chance.random())
        self._lock = threading.Lock()

    def __call__(self, server: Any, _page: int) -> None:
        with self._lock:
            if self._chance.random() >= self._rate:
                return
            row = self._frame.iloc[self._chance.randrange(len(self._frame))]
            if self._kind == "delete":
                self.touched.add(row["Id"])
                self._chance.choice([server.touch, server.delete_codes])([row["Id"]])
            elif row["VoucherId"] != BAD_VOUCHER:
                self.ids |= set(server.add_codes([(row["VoucherId"], row["Value"])]))


def _to_the_end(
    sandbox: vt.Sandbox, plan: Plan, path: Path, kills: list[int], clock: HandClock
) -> tuple[Run, int]:
    """Apply, and resume after each kill and each stop, until the run is finished."""
    run_id: str | None = None
    for resumes in range(100):
        retry = Retry(attempts=4, attempts_unanswered=4)
        client = sandbox.client(
            rate_limit=(10**6, 1.0), clock=clock, settle_s=SETTLE_S, retry=retry, timeout=5.0
        )
        guillotine = Guillotine(kills[resumes] if resumes < len(kills) else NEVER_KILLED)
        with client, guillotine.over(client):
            try:
                if run_id is None:
                    run = apply_plan(
                        client, plan, confirm=len(plan), allow_valid=True, progress=False, journal=path
                    )
                else:
                    run = resume_run(client, run_id, progress=False, journal=path)
            except (RunError, vt.VoucherToolsError, Killed) as error:
                if not isinstance(error, (RunError, Killed)) and run_id is None and path.exists():
                    raise
            else:
                if not (run.counts["open"] or run.counts["unknown"]):
                    return run, resumes
        runs = list_runs(journal=path)
        run_id = None if runs.empty else runs["Id"].iloc[0]
    raise AssertionError("the run never came to its end")


def _find_mistakes_of_add(
    run: Run, plan: Plan, before: pd.DataFrame, truth: pd.DataFrame, colleague: _Colleague
) -> list[str]:
    mistakes = []
    ours = truth[~truth["Id"].isin(set(before["Id"]) | colleague.ids)]
    by_key = ours.groupby(["VoucherId", "Value"])["Id"].apply(list).to_dict()
    others = truth[truth["Id"].isin(set(before["Id"]) | colleague.ids)]
    held = set(zip(others["VoucherId"], others["Value"], strict=True))
    windows = truth.set_index("Id")[["ValidityStartUtc", "ValidityEndUtc"]]
    wanted = plan.frame[["ValidityStartUtc", "ValidityEndUtc"]]
    for position, row in run.frame.iterrows():
        key = (row["VoucherId"], row["Value"])
        ids = by_key.pop(key, [])
        if len(ids) > 1:
            mistakes.append(f"{key} was added {len(ids)} times")
        if row["Outcome"] == "added":
            if ids != [row["Id"]]:
                mistakes.append(f"{key} is reported as {row['Id']}, and the server has {ids}")
            elif not windows.loc[row["Id"]].equals(wanted.loc[position].rename(row["Id"])):
                mistakes.append(f"{key} has another window")
        elif ids:
            mistakes.append(f"{key} is reported as {row['Outcome']}, and the server has {ids}")
        elif row["Outcome"] == "exists":
            if key not in held:
                mistakes.append(f"{key} is reported to exist, and does not")
        elif row["Outcome"] != "refused" or row["VoucherId"] != BAD_VOUCHER:
            mistakes.append(f"{key} is lost: {row['Outcome']}, {row['Message']}")
    if by_key:
        mistakes.append(f"{len(by_key)} values were added that nobody asked for")
    return mistakes


def _find_mistakes_of_delete(
    run: Run, plan: Plan, before: pd.DataFrame, truth: pd.DataFrame, colleague: _Colleague
) -> list[str]:
    mistakes = []
    state = truth.set_index("Id")["ActivityState"]
    was = before.set_index("Id")["ActivityState"]
    for _, row in run.frame.iterrows():
        is_deleted = state[row["Id"]] == "Deleted"
        touched = row["Id"] in colleague.touched
        right = {
            "deleted": is_deleted,
            "already deleted": is_deleted and (touched or was[row["Id"]] == "Deleted"),
            "changed": touched,
        }
        if not right.get(row["Outcome"], False):
            mistakes.append(
                f"{row['Id']} is reported as {row['Outcome']} and is {state[row['Id']]}: {row['Message']}"
            )
    untouched = truth[~truth["Id"].isin(set(plan.frame["Id"]))].set_index("Id")["ActivityState"]
    if not untouched.equals(was[untouched.index]):
        mistakes.append("codes outside the plan were deleted")
    return mistakes


def _find_mistakes_of_undo(
    run: Run, plan: Plan, before: pd.DataFrame, truth: pd.DataFrame, colleague: _Colleague
) -> list[str]:
    mistakes = [] if run.counts == {"added": len(plan)} else [f"the undo is reported {dict(run.counts)}"]
    ours = truth[~truth["Id"].isin(before["Id"])]
    key = ["VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc"]
    wanted, got = (Counter(frame[key].itertuples(index=False, name=None)) for frame in (plan.frame, ours))
    mistakes += [f"{code} was added {number} times too often" for code, number in (got - wanted).items()]
    mistakes += [f"{code} is lost {number} times" for code, number in (wanted - got).items()]
    if set(run.frame["Id"]) != set(ours["Id"]):
        mistakes.append("other ids are reported than were added")
    return mistakes


_FIND = {"add": _find_mistakes_of_add, "delete": _find_mistakes_of_delete, "undo": _find_mistakes_of_undo}
