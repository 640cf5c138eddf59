"""How right, how lean and how fast changing codes in bulk is.

Run ``uv run python tests/benchmarks/bench_bulk.py`` (about an hour; ``--quick`` for three minutes). Four
parts, which ``--only`` picks from:

schedules
    Random schedules of faults, kills and colleagues over adds and deletes, each run to its end: values
    added twice, codes lost, outcomes that differ from the sandbox's table, codes left unknown.
kills
    Runs killed with ``SIGKILL`` at random instants and finished from a copy of the journal.
refusals
    A batch of 1000 with 1, 3 and 20 rows that the server refuses: requests that write, good rows done.
volume
    100,000 deletes and adds against the real request limit, in a process of its own: requests, wall over
    the least that so many requests can take, peak memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from bulk.kills import Nursery, kill_and_finish
from bulk.schedule import run_schedule
from bulk.served import new_rows, served, writes
from support import make_codes

import vouchertools as vt
from vouchertools.console import table

RESULTS = Path(__file__).with_name("bulk.json")
LIMIT, PERIOD_S = 200, 30.0


# ---- faults and kills ----


def run_schedules(seeds: range) -> dict[str, Any]:
    """Run schedules one after the other and add up what they came to."""
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    mistakes: list[str] = []
    facts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            outcome = run_schedule(seed, Path(folder))
            faults += outcome.faults
            outcomes += outcome.outcomes
            mistakes += outcome.mistakes
            facts += Counter(schedules=1, rows=outcome.rows, kills=outcome.kills, resumes=outcome.resumes)
            facts[outcome.kind] += 1
            for file in Path(folder).iterdir():
                file.unlink()
    return {"facts": dict(facts), "faults": dict(faults), "outcomes": dict(outcomes), "mistakes": mistakes}


def bench_schedules(number: int) -> dict[str, Any]:
    """Schedules in two processes at a time."""
    step = 25
    parts = [range(start, min(start + step, number)) for start in range(0, number, step)]
    with get_context("spawn").Pool(2, maxtasksperchild=4) as pool:
        results = []
        for done, result in enumerate(pool.imap_unordered(run_schedules, parts), 1):
            results.append(result)
            print(
                f"  {done * step:,} schedules, {sum(len(r['mistakes']) for r in results)} mistakes",
                flush=True,
            )
    summed: dict[str, Any] = {
        name: dict(sum((Counter(result[name]) for result in results), Counter()))
        for name in ("facts", "faults", "outcomes")
    }
    mistakes = [mistake for result in results for mistake in result["mistakes"]]
    return {
        **summed["facts"],
        "faults": sum(summed["faults"].values()),
        "faults of writes by kind": summed["faults"],
        "outcomes": summed["outcomes"],
        "added twice": sum("times" in mistake for mistake in mistakes),
        "lost": sum("is lost" in mistake for mistake in mistakes),
        "reported wrongly": sum("is reported" in mistake for mistake in mistakes),
        "left unknown": summed["outcomes"].get("unknown", 0),
        "mistakes": mistakes[:20],
    }


def bench_kills(number: int) -> dict[str, Any]:
    """Kills, one after the other."""
    mistakes: list[str] = []
    left: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, Nursery() as nursery:
        for seed in range(number):
            killed = kill_and_finish(nursery, seed, Path(folder))
            mistakes += killed.mistakes
            open_, unknown = killed.left.get("Open", 0), killed.left.get("Unknown", 0)
            left["before anything"] += "nothing" in killed.left or open_ == 200
            left["under way"] += bool(unknown) or 0 < open_ < 200
            left["after the last batch"] += not open_ and not unknown and "nothing" not in killed.left
            if seed % 20 == 19:
                print(f"  {seed + 1} kills, {len(mistakes)} mistakes", flush=True)
    return {"kills": number, "killed": dict(left), "mistakes": mistakes}


# ---- refusals ----


def bench_refusals() -> list[dict[str, Any]]:
    """A batch of 1000 with some rows, at random places, whose voucher does not exist."""
    results = []
    codes = make_codes(2000, vouchers=1000, start="2012-02-01", days=60, deleted=0.0)
    for bad in (1, 3, 20):
        spent = []
        for seed in range(5):
            with served(codes) as (sandbox, client, _), tempfile.TemporaryDirectory() as folder:
                rows = new_rows(sandbox, 1000)
                places = np.random.default_rng(seed).choice(1000, bad, replace=False)
                # Rows are sent sorted by voucher: an id next to the right one leaves a bad row where it is.
                rows.loc[places, "VoucherId"] = rows.loc[places, "VoucherId"].str.slice(0, -4) + "dead"
                plan = vt.plan_add(rows, environment=client.environment)
                journal = Path(folder) / "journal.sqlite"
                run = vt.apply_plan(client, plan, confirm=1000, progress=False, journal=journal)
                assert run.counts == {"added": 1000 - bad, "refused": bad}, run.counts
                assert sorted(run.frame.index[run.frame["Outcome"] == "refused"]) == sorted(places)
                spent.append(writes(sandbox))
        results.append(
            {
                "Bad rows": bad,
                "Good rows done": 1000 - bad,
                "Requests that write, mean": float(np.mean(spent)),
                "Most": max(spent),
                "Per bad row": float(np.mean(spent)) / bad,
                "2 log2(1000)": round(2 * np.log2(1000), 1),
            }
        )
    return results


# ---- volume ----


def change(
    kind: str, n: int, address: str, client_token: str, access_token: str, journal: str
) -> dict[str, Any]:
    """Plan and apply, in this process; says what it took."""
    with vt.Client(address, client_token, access_token) as client:
        vouchers = client.vouchers()
        if kind == "delete":
            codes = vt.fetch(client, vouchers, progress=False)
            plan = vt.plan_delete(codes[codes["ActivityState"] == "Active"].head(n), tz=vouchers)
        else:
            ids = vouchers["Id"].to_numpy()
            values = vt.generate_values(n, "BULK-????-????")
            rows = pd.DataFrame({"VoucherId": np.resize(ids, n), "Value": values})
            plan = vt.plan_add(rows, environment=client.environment)
        # What planning spent of the request limit is given back first.
        client.wait(PERIOD_S + 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps("go"), flush=True)
        began, cpu = time.perf_counter(), time.process_time()
        run = vt.apply_plan(client, plan, confirm=n, progress=False, journal=journal)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "before": before, "peak": peak, "counts": dict(run.counts)}


def bench_volume(n: int) -> list[dict[str, Any]]:
    """Deletes, then adds, against a sandbox in this process that enforces the limit."""
    results = []
    for kind in ("delete", "add"):
        codes = make_codes(n, vouchers=4, start="2022-01-01", days=700, deleted=0.0)
        with vt.Sandbox(codes) as sandbox, tempfile.TemporaryDirectory() as folder:
            journal = str(Path(folder) / "journal.sqlite")
            arguments = [kind, str(n), sandbox.address, sandbox.client_token, sandbox.access_token, journal]
            command = [sys.executable, __file__, "--change", *arguments]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                child.stdout.readline()
                seen = len(sandbox.requests)
                result = json.loads(child.stdout.readline())
            spent = sandbox.requests[seen:]
            size = os.path.getsize(journal)
        by_kind = Counter(request.operation.split("/")[1] for request in spent)
        least = (len(spent) - 1) // LIMIT * PERIOD_S
        results.append(
            {
                "Change": kind,
                "Codes": n,
                "Done": sum(result["counts"].values()),
                "Requests": len(spent),
                "Reads": by_kind["getAll"],
                "Writes": by_kind["add"] + by_kind["delete"],
                "429s": sum(request.status == 429 for request in spent),
                "Wall, s": result["wall"],
                "Least, s": least,
                "Ratio": result["wall"] / least if least else None,
                "CPU, s": result["cpu"],
                "Peak, MB": result["peak"],
                "Planned, MB": result["before"],
                "Journal, MB": size / 2**20,
            }
        )
    return results


def main() -> None:
    """Run the parts that were asked for, print them and keep them beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", nargs="*", choices=["schedules", "kills", "refusals", "volume"])
    parser.add_argument("--change", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.change:
        kind, n, *rest = options.change
        print(json.dumps(change(kind, int(n), *rest)), flush=True)
        return
    parts: dict[str, Callable[[], Any]] = {
        "schedules": lambda: bench_schedules(100 if options.quick else 1000),
        "kills": lambda: bench_kills(20 if options.quick else 200),
        "refusals": bench_refusals,
        "volume": lambda: bench_volume(10_000 if options.quick else 100_000),
    }
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name, run in parts.items():
        if options.only and name not in options.only:
            continue
        print(name, flush=True)
        results[name] = run()
        if isinstance(results[name], list):
            print(table(pd.DataFrame(results[name])))
        else:
            print(json.dumps(results[name], indent=2))
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
