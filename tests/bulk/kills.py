"""Runs in processes of their own, killed at random instants, finished from a copy of the journal.

A nursery process has everything imported and forks a child for each run, so that a run starts at once.
The sandbox's clock moves only while the resuming client waits.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from bulk.served import NOON, writes
from support import HandClock, make_codes

import vouchertools as vt
from vouchertools.bulk.apply import apply_plan, resume_run
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import plan_add, plan_delete
from vouchertools.bulk.run import Run, list_runs

#: Rows of a batch in these runs, so that a few hundred codes make many requests.
BATCH = 10

_NURSERY = """
import json, os, sys
import vouchertools as vt
from vouchertools.bulk import work
from vouchertools.bulk.apply import apply_plan
from vouchertools.bulk.plan import Plan
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        work.MAX_ITEMS = job["batch"]
        client = vt.Client(*job["client"], rate_limit=(10**6, 1.0))
        plan = Plan.load(job["plan"])
        apply_plan(client, plan, confirm=len(plan), progress=False, journal=job["journal"])
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Nursery:
    """The process that forks a child for each run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    @contextmanager
    def run(self, job: dict[str, Any]) -> Iterator[int]:
        """Start a run and give its process id; at the end wait until the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        yield int(self._process.stdout.readline())
        self._process.stdout.readline()


@dataclass
class Killed:
    """What a kill came to: the mistakes, and in what state it left the run."""

    mistakes: list[str]
    kind: str
    left: dict[str, int]


def kill_and_finish(nursery: Nursery, seed: int, folder: Path) -> Killed:
    """Kill a run at a random instant, finish it from a copy of its journal, and compare with the sandbox."""
    chance = random.Random(seed)
    clock = HandClock(NOON)
    kind = chance.choice(["add", "delete"])
    codes = make_codes(200, vouchers=2, start="2012-02-01", days=60, deleted=0.0, seed=seed)
    duplicates = chance.choice(["accepted", "refused"])
    place = folder / f"run-{seed}"
    place.mkdir()
    with (
        vt.Sandbox(
            codes, clock=clock, rate_limit=None, updated_required=False, duplicate_values=duplicates
        ) as sandbox,
        sandbox.client(rate_limit=(10**6, 1.0), clock=clock) as client,
    ):
        plan = _plan(kind, vt.fetch(client, sandbox.voucher_ids, progress=False))
        job = {
            "client": [sandbox.address, sandbox.client_token, sandbox.access_token],
            "plan": str(plan.save(place / "plan.parquet")),
            "journal": str(place / "journal.sqlite"),
            "batch": BATCH,
        }
        after, pause = chance.randint(0, len(plan) // BATCH), chance.uniform(0.0, 0.02)
        with nursery.run(job) as process:
            tick = threading.Event()
            while writes(sandbox) < after and _is_alive(process):
                tick.wait(0.0005)
            tick.wait(pause)
            os.kill(process, signal.SIGKILL)
        run = _finish(client, plan, place)
        mistakes = _find_mistakes(run[1], plan, codes, sandbox.codes())
    return Killed([f"seed {seed}: {mistake}" for mistake in mistakes], kind, dict(run[0]))


def _plan(kind: str, codes: pd.DataFrame) -> Plan:
    if kind == "delete":
        return plan_delete(codes)
    rows = pd.DataFrame({"VoucherId": codes["VoucherId"], "Value": [f"N-{i:04d}" for i in range(len(codes))]})
    return plan_add(rows, environment=codes.attrs["environment"])


def _finish(client: vt.Client, plan: Plan, place: Path) -> tuple[dict[str, int], Run]:
    """Copy the journal as a backup would, and finish from the copy; returns how the kill had left the run."""
    copy = place / "copy"
    copy.mkdir()
    for file in place.glob("journal.sqlite*"):
        shutil.copy(file, copy / file.name)
    journal = copy / "journal.sqlite"
    runs = list_runs(journal=journal)
    if runs.empty:
        return {"nothing": 1}, apply_plan(client, plan, confirm=len(plan), progress=False, journal=journal)
    assert len(runs) == 1
    left = {name: int(runs[name].iloc[0]) for name in ("Done", "Open", "Unknown")}
    return left, resume_run(client, runs["Id"].iloc[0], progress=False, journal=journal)


def _find_mistakes(run: Run, plan: Plan, before: pd.DataFrame, truth: pd.DataFrame) -> list[str]:
    if plan.kind == "delete":
        states = truth.set_index("Id")["ActivityState"].loc[plan.frame["Id"]]
        mistakes = [f"{id_} is {state}" for id_, state in states.items() if state != "Deleted"]
        expected = {"deleted": len(plan)}
    else:
        ours = truth[~truth["Id"].isin(before["Id"])]
        wanted, got = sorted(plan.frame["Value"]), sorted(ours["Value"])
        mistakes = (
            [] if got == wanted else [f"{len(got)} codes were added, {len(set(got))} of them different"]
        )
        expected = {"added": len(plan)}
        if set(run.frame["Id"]) != set(ours["Id"]):
            mistakes.append("other ids are reported than were added")
    if run.counts != expected:
        mistakes.append(f"reported {dict(run.counts)}")
    return mistakes


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
