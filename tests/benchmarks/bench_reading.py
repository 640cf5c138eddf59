"""How fast, how lean and how right reading is, against the loop that an analyst would write and against dlt.

Run ``uv run --group bench python tests/benchmarks/bench_reading.py`` (nine minutes; ``--quick`` for one).
Every contestant runs in a process of its own against the same sandbox, which runs in another, and says its
wall and CPU time, its peak memory above the imports, the requests that it took and whether what it wrote
equals the truth. Absolute times mean little on a shared machine; compare contestants of one run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import make_codes

import vouchertools as vt

RESULTS = Path(__file__).with_name("reading.json")
PICTURE = Path(__file__).parents[2] / "docs" / "reading.png"
URL = "/api/connector/v1/voucherCodes/getAll"


# ---- the sandbox, in its own process ----


def serve(n: int, switches: dict[str, Any], truth: str) -> None:
    """Serve generated codes; each line on standard input is a command, answered by a line."""
    codes = make_codes(n, vouchers=20, start="2019-01-01", days=2_000)
    with vt.Sandbox(codes, updated_required=False, **switches) as sandbox:
        del codes
        sandbox.codes().to_parquet(truth)
        facts = [sandbox.address, sandbox.client_token, sandbox.access_token, sandbox.voucher_ids]
        print(json.dumps(facts), flush=True)
        counted = 0
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            answer: Any = None
            if command == "latency":
                sandbox.faults.latency_ms = float(argument)
            elif command == "touch":
                ids = sandbox.codes()["Id"].sample(int(argument), random_state=1)
                sandbox.touch(ids)
            elif command == "truth":
                sandbox.codes().to_parquet(truth)
            elif command == "requests":
                new = sandbox.requests[counted:]
                counted += len(new)
                answer = {"requests": len(new), "refused": sum(r.status == 429 for r in new)}
            print(json.dumps(answer), flush=True)


class Served:
    """The sandbox process, seen from here."""

    def __init__(self, process: "subprocess.Popen[str]", facts: list[Any], truth: str) -> None:
        self._process, self.facts, self.truth = process, facts, truth

    def say(self, command: str) -> Any:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def served(n: int, **switches: Any) -> Iterator[Served]:
    """A sandbox with so many codes, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        truth = f"{folder}/truth.parquet"
        command = [sys.executable, __file__, "--serve", json.dumps([n, switches, truth])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield Served(process, json.loads(process.stdout.readline()), truth)
            assert process.stdin is not None
            process.stdin.close()


# ---- the contestants: each reads everything and leaves Parquet in a folder ----


def connected(facts: list[Any], *, rate_limit: tuple[int, float] = (10**6, 1.0)) -> vt.Client:
    """A client that has made its first connection."""
    address, client_token, access_token, _ = facts
    client = vt.Client(address, client_token, access_token, rate_limit=rate_limit)
    client.now()
    return client


def ours(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """``Cache.refresh``."""
    client = connected(facts, rate_limit=options.get("rate_limit", (10**6, 1.0)))
    workers = options.get("workers", 8)
    return lambda: vt.Cache(folder).refresh(client, facts[3], progress=False, workers=workers)


def fetched(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """``fetch``, without the cache: what reading costs by itself."""
    client = connected(facts)
    return lambda: vt.export(vt.fetch(client, facts[3], progress=False), f"{folder}/codes.parquet")


def held(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """``fetch`` into a DataFrame and nothing else: what it needs in memory."""
    client = connected(facts)
    return lambda: vt.fetch(client, facts[3], progress=False)


def bodies(facts: list[Any]) -> tuple[str, dict[str, Any]]:
    """Where to send, and what, without a cursor."""
    address, client_token, access_token, voucher_ids = facts
    tokens = {"ClientToken": client_token, "AccessToken": access_token, "Client": "benchmark"}
    return address + URL, {**tokens, "VoucherIds": voucher_ids, "Limitation": {"Count": 1000}}


def loop(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """What an analyst would write; it minds ``Retry-After``, and takes ``UpdatedUtc`` to be optional."""
    import httpx

    def run() -> None:
        url, body = bodies(facts)
        rows: list[dict[str, Any]] = []
        with httpx.Client(timeout=60) as http:
            while True:
                response = http.post(url, json=body)
                if response.status_code == 429:
                    time.sleep(float(response.headers["Retry-After"]))
                    continue
                page = response.raise_for_status().json()
                rows += page["VoucherCodes"]
                if page["Cursor"] is None or len(page["VoucherCodes"]) < 1000:
                    break
                body["Limitation"] = {"Count": 1000, "Cursor": page["Cursor"]}
        frame = pd.DataFrame(rows)
        for column in ("ValidityStartUtc", "ValidityEndUtc", "CreatedUtc", "UpdatedUtc"):
            frame[column] = pd.to_datetime(frame[column])
        frame.to_parquet(f"{folder}/codes.parquet")

    return run


def dlt(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """The ``rest_api`` source of dlt with its cursor paginator, to Parquet in a folder."""
    os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = f"file://{folder}"
    import dlt as library
    from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
    from dlt.sources.rest_api import rest_api_source

    def run() -> None:
        url, body = bodies(facts)
        paginator = JSONResponseCursorPaginator(cursor_path="Cursor", cursor_body_path="Limitation.Cursor")
        endpoint = {"path": url, "method": "POST", "json": body, "data_selector": "VoucherCodes"}
        source = rest_api_source(
            {
                "client": {"base_url": facts[0], "paginator": paginator},
                "resources": [{"name": "codes", "endpoint": endpoint}],
            }
        )
        pipeline = library.pipeline(
            "codes", f"{folder}/pipelines", destination="filesystem", dataset_name="d"
        )
        pipeline.run(source, loader_file_format="parquet", write_disposition="replace")

    return run


def orjson(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """Nothing but ``orjson.loads`` of pages that are there already: the least that reading them can cost."""
    import httpx
    import orjson as library

    pages = []
    url, body = bodies(facts)
    with httpx.Client(timeout=60) as http:
        while True:
            content = http.post(url, json=body).content
            pages.append(content)
            page = library.loads(content)
            if page["Cursor"] is None or len(page["VoucherCodes"]) < 1000:
                break
            body["Limitation"] = {"Count": 1000, "Cursor": page["Cursor"]}
    return lambda: [None for content in pages if library.loads(content) is None]


def read_cache(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """``Cache.read`` of what a refresh before has left."""
    return lambda: vt.Cache(folder).read()


def read_parquet(facts: list[Any], folder: str, **options: Any) -> Callable[[], object]:
    """``pandas.read_parquet`` of the same folder."""
    (environment,) = (path for path in Path(folder).iterdir() if path.is_dir())
    return lambda: pd.read_parquet(environment)


CONTESTANTS = {f.__name__: f for f in (ours, fetched, held, loop, dlt, orjson, read_cache, read_parquet)}


def peak_kib() -> int:
    """The most memory that this process has had; ``ru_maxrss`` would count what it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def contest(name: str, facts: list[Any], folder: str, options: dict[str, Any]) -> None:
    """Run one contestant in this process, and print what it took."""
    job = CONTESTANTS[name](facts, folder, **options)
    base = peak_kib()
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_kib() - base
    print(json.dumps({"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "peak_mib": round(peak / 1024, 1)}))


def measure(
    server: Served, name: str, *, folder: str | None = None, check: bool = True, **options: Any
) -> dict[str, Any]:
    """Run one contestant in a process of its own: what it took, and whether what it left equals the truth."""
    with tempfile.TemporaryDirectory() as own:
        place = folder or own
        server.say("requests")
        command = [sys.executable, __file__, "--contest", json.dumps([name, server.facts, place, options])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) | server.say("requests")
        if check:
            result["equal"] = equal(place, server.truth)
        told = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
        print(f"  {told:18}", *(f"{key}={value}" for key, value in result.items()), flush=True)
        return result


def best(server: Served, name: str, *, check: bool = True) -> dict[str, Any]:
    """The run of five that took the least CPU: a second's work is at the mercy of the machine's others."""
    return min((measure(server, name, check=check) for _ in range(5)), key=lambda result: result["cpu_s"])


def equal(folder: str, truth_path: str) -> bool:
    """Whether the Parquet files below a folder hold the truth, field by field."""
    loaded = Path(folder, "d", "codes")  # where dlt leaves them, beside what it needed on the way
    files = (loaded if loaded.exists() else Path(folder)).rglob("*.parquet")
    got, truth = pd.concat([pd.read_parquet(path) for path in files]), pd.read_parquet(truth_path)
    if "voucher_id" in got:  # dlt names columns in its own way
        got = got.rename(
            columns={"".join(c if c.islower() else "_" + c.lower() for c in t)[1:]: t for t in truth}
        )
    got = got[list(truth.columns)].sort_values("Id", ignore_index=True)
    truth = truth.sort_values("Id", ignore_index=True)
    return all((got[c].astype(truth[c].dtype).fillna("") == truth[c].fillna("")).all() for c in truth)


# ---- the cases ----


def run(*, quick: bool) -> dict[str, Any]:
    """Run every case and give the figures."""
    n = 20_000 if quick else 100_000
    million = 50_000 if quick else 1_000_000
    found: dict[str, Any] = {"codes": n, "million": million}

    with served(n, rate_limit=None) as server:
        print(f"{n:,} codes, no latency")
        names = ("ours", "fetched", "loop", "dlt")
        found["no_latency"] = {name: best(server, name) for name in names}
        found["no_latency"]["orjson"] = best(server, "orjson", check=False)
        print(f"{n:,} codes, 150 ms latency")
        server.say("latency 150")
        found["latency"] = {name: measure(server, name) for name in names if name != "fetched"}
        for workers in (16, 32):
            found["latency"][f"ours, {workers} workers"] = measure(server, "ours", workers=workers)

    with served(million, rate_limit=(200, 30.0)) as server:
        print(f"{million:,} codes, 200 requests in 30 s")
        limited = measure(server, "ours", rate_limit=(190, 30.0))
        limited["least_s"] = million / 1000 * 30.0 / 200
        found["limited"] = limited

    with served(million, rate_limit=None) as server, tempfile.TemporaryDirectory() as folder:
        print(f"{million:,} codes: full pull, refresh after 100 changes, reading the cache")
        full = measure(server, "ours", folder=folder)
        server.say("touch 100")
        time.sleep(6)
        server.say("truth")
        found["refresh"] = {"full": full, "refresh": measure(server, "ours", folder=folder)}
        reading = [measure(server, name, folder=folder) for name in ("read_cache", "read_parquet")]
        found["reading"] = dict(zip(("read_cache", "read_parquet"), reading, strict=True))

    found["memory"] = {}
    for size in (million // 2, million, 2 * million):
        with served(size, rate_limit=None) as server:
            print(f"{size:,} codes: peak memory")
            peak = measure(server, "held", check=False)["peak_mib"]
            found["memory"][f"{size}"] = round(peak * 2**20 / size)
    return found


def report(found: dict[str, Any]) -> None:
    """Print the ratios that matter."""
    calm, slow, limited = found["no_latency"], found["latency"], found["limited"]
    refresh = found["refresh"]
    lines = [
        ("wall, loop / ours, no latency", calm["loop"]["wall_s"] / calm["ours"]["wall_s"]),
        ("wall, dlt / ours, no latency", calm["dlt"]["wall_s"] / calm["ours"]["wall_s"]),
        ("wall, loop / ours, 150 ms", slow["loop"]["wall_s"] / slow["ours"]["wall_s"]),
        ("wall, dlt / ours, 150 ms", slow["dlt"]["wall_s"] / slow["ours"]["wall_s"]),
        *(
            (
                f"wall, loop / ours with {n} workers, 150 ms",
                slow["loop"]["wall_s"] / slow[f"ours, {n} workers"]["wall_s"],
            )
            for n in (16, 32)
        ),
        ("requests, ours / least possible", slow["ours"]["requests"] / -(-found["codes"] // 1000)),
        ("CPU of fetch / loop", calm["fetched"]["cpu_s"] / calm["loop"]["cpu_s"]),
        ("CPU of fetch / orjson.loads alone", calm["fetched"]["cpu_s"] / calm["orjson"]["cpu_s"]),
        ("wall over 1000 codes a request, 200 in 30 s", limited["wall_s"] / limited["least_s"]),
        ("429s", limited["refused"]),
        ("requests of a refresh", refresh["refresh"]["requests"]),
        ("refresh / full pull, wall", refresh["refresh"]["wall_s"] / refresh["full"]["wall_s"]),
        *((f"bytes a code at {int(size):,}", value) for size, value in found["memory"].items()),
    ]
    print()
    for what, value in lines:
        print(f"{what:45} {value:8.2f}")


def draw(found: dict[str, Any]) -> None:
    """Draw the walls of the contestants into the picture of the README."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
    cases = {
        "no_latency": ("no latency", ["dlt", "loop", "ours"]),
        "latency": ("150 ms latency", ["dlt", "loop", "ours", "ours, 32 workers"]),
    }
    for ax, (case, (title, names)) in zip(axes, cases.items(), strict=True):
        labels = [name.replace("ours", "vouchertools") for name in names]
        colors = ["#004488" if "ours" in name else "#bbb" for name in names]
        bars = ax.barh(labels, [found[case][name]["wall_s"] for name in names], color=colors)
        ax.bar_label(bars, fmt="%.1f s", padding=3)
        ax.set_title(f"{found['codes']:,} codes, {title}", fontsize=11, loc="left")
        ax.set_xlabel("seconds to Parquet on disk")
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.15)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the codes; nothing is kept")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--contest", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
    elif arguments.contest:
        contest(*arguments.contest)
    else:
        found = run(quick=arguments.quick)
        report(found)
        if not arguments.quick:
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            draw(found)


if __name__ == "__main__":
    main()
