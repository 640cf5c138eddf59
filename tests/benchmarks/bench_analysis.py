"""Time and memory of `summarize` and `timeline` beside queries written by hand for the same answers.

Run it as a script::

    uv run tests/benchmarks/bench_analysis.py --codes 10000000

Codes are made up: a few hundred vouchers over five years, windows of dates in Europe/Prague for most and of
instants for some, one in eight deleted, a few open or inverted. Each case runs in a process of its own, once
to warm up and then five times; the best counts, in seconds of the clock and of the processor (the second is
steadier where other programs run too). Memory is the peak of the process, and what it was with the codes
loaded. Every answer is compared with the hand-written one before its time is believed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from vouchertools.status import STATUSES, first_instant
from vouchertools.summary import summarize
from vouchertools.timeline import timeline

ZONE = "Europe/Prague"
AS_OF = datetime(2024, 6, 15, 10, tzinfo=UTC)
LIMIT = AS_OF + timedelta(days=30)
FIRST = first_instant(ZONE, AS_OF)
KINDS = ("pandas", "polars", "duckdb", "polars by hand", "duckdb by hand")


def make_codes(number: int, path: Path) -> None:
    """Write codes as a cache folder has them: strings and times in UTC."""
    random = np.random.default_rng(2024)
    vouchers = pa.array(
        [f"{random.bytes(4).hex()}-{n:04x}-4000-8000-{random.bytes(6).hex()}" for n in range(300)]
    )
    midnights = pd.date_range("2022-01-01", "2026-12-31", tz=ZONE).tz_convert("UTC").tz_localize(None)
    days = midnights.to_numpy().astype("datetime64[us]")
    first = random.integers(0, len(days) - 400, number)
    start, end = days[first], days[first + random.integers(-1, 400, number).clip(-1)]
    timed = random.random(number) < 0.05
    end = np.where(timed, end + random.integers(0, 86_400, number).astype("timedelta64[s]"), end)
    table = pa.table(
        {
            "VoucherId": vouchers.take(pa.array(random.integers(0, 300, number))),
            "ValidityStartUtc": _times(start, random.random(number) < 0.02),
            "ValidityEndUtc": _times(end, random.random(number) < 0.02),
            "ActivityState": pa.array(["Active", "Deleted"]).take(
                pa.array((random.random(number) < 0.125) * 1)
            ),
        }
    )
    pq.write_table(table, path, compression="zstd", row_group_size=1_000_000)


def _times(values: Any, missing: Any) -> pa.Array:
    return pa.array(values, mask=missing).cast(pa.timestamp("us", tz="UTC"))


# --- by hand -----------------------------------------------------------------------------------------------


def summarize_polars(codes: pl.DataFrame) -> pl.DataFrame:
    start, end = pl.col("ValidityStartUtc"), pl.col("ValidityEndUtc")
    status = (
        pl.when(pl.col("ActivityState") == "Deleted")
        .then(0)
        .when(end < start)
        .then(1)
        .when((end < AS_OF) & (end != FIRST))
        .then(2)
        .when(start > AS_OF)
        .then(3)
        .otherwise(4)
        .cast(pl.Int8)
    )
    seconds = pl.when(end >= start).then((end - start).dt.total_seconds())
    return (
        codes.lazy()
        .with_columns(status=status, days=seconds // 86_400 + (seconds % 86_400 == 82_800).cast(pl.Int64) + 1)
        .group_by("VoucherId")
        .agg(
            *((pl.col("status") == n).sum().cast(pl.Int64).alias(name) for n, name in enumerate(STATUSES)),
            Total=pl.len().cast(pl.Int64),
            Expiring=((pl.col("status") == 4) & (end <= LIMIT)).sum().cast(pl.Int64),
            DeadShare=(pl.col("status") <= 2).mean(),
            FirstStartUtc=start.min(),
            LastEndUtc=end.max(),
            MedianDays=pl.col("days").median(),
        )
        .sort("VoucherId")
        .collect()
    )


_COUNTS = ", ".join(f"count(*) FILTER (status = {n}) AS {name}" for n, name in enumerate(STATUSES))
SUMMARIZE_SQL = f"""
    WITH judged AS (
        SELECT *, date_diff('second', ValidityStartUtc, ValidityEndUtc) AS seconds, CASE
            WHEN ActivityState = 'Deleted' THEN 0
            WHEN ValidityEndUtc < ValidityStartUtc THEN 1
            WHEN ValidityEndUtc < TIMESTAMPTZ '{AS_OF}' AND ValidityEndUtc != TIMESTAMPTZ '{FIRST}' THEN 2
            WHEN ValidityStartUtc > TIMESTAMPTZ '{AS_OF}' THEN 3
            ELSE 4 END AS status
        FROM codes)
    SELECT VoucherId, {_COUNTS},
        count(*) AS Total,
        count(*) FILTER (status = 4 AND ValidityEndUtc <= TIMESTAMPTZ '{LIMIT}') AS Expiring,
        avg((status <= 2)::INT) AS DeadShare,
        min(ValidityStartUtc) AS FirstStartUtc, max(ValidityEndUtc) AS LastEndUtc,
        median(seconds // 86400 + (seconds % 86400 = 82800)::INT + 1) FILTER (seconds >= 0) AS MedianDays
    FROM judged GROUP BY VoucherId ORDER BY VoucherId
"""


def timeline_polars(codes: pl.DataFrame) -> pl.DataFrame:
    start, end = pl.col("ValidityStartUtc"), pl.col("ValidityEndUtc")
    kept = codes.lazy().filter(pl.col("ActivityState") != "Deleted", (end >= start).fill_null(True))
    day = pl.col("at").dt.convert_time_zone(ZONE).dt.date()
    starts = kept.group_by(at=start).agg(change=pl.len().cast(pl.Int64)).with_columns(Date=day)
    ends = kept.group_by(at=end).agg(change=-pl.len().cast(pl.Int64)).with_columns(Date=day)
    starts, ends = pl.collect_all([starts, ends])
    always = starts.filter(pl.col("at").is_null())["change"].sum()
    ends = ends.with_columns(pl.col("Date").dt.offset_by("1d"))
    events = (
        pl.concat([starts, ends]).drop_nulls("Date").group_by("Date").agg(pl.col("change").sum()).sort("Date")
    )
    sums = events.select("Date", Usable=pl.col("change").cum_sum() + always)
    return sums.upsample("Date", every="1d").select("Date", pl.col("Usable").forward_fill())


TIMELINE_SQL = f"""
    WITH kept AS (
        SELECT ValidityStartUtc AS a, ValidityEndUtc AS b FROM codes
        WHERE ActivityState != 'Deleted' AND coalesce(ValidityEndUtc >= ValidityStartUtc, true)),
    starts AS (SELECT a AS moment, count(*) AS change FROM kept GROUP BY a),
    ends AS (SELECT b AS moment, -count(*) AS change FROM kept GROUP BY b),
    events AS (
        SELECT timezone('{ZONE}', moment)::DATE AS Date, change FROM starts WHERE moment IS NOT NULL
        UNION ALL
        SELECT timezone('{ZONE}', moment)::DATE + 1, change FROM ends WHERE moment IS NOT NULL),
    days AS (SELECT Date, sum(change) AS change FROM events GROUP BY Date),
    calendar AS (
        SELECT unnest(generate_series(min(Date), max(Date), INTERVAL 1 DAY))::DATE AS Date FROM days),
    always AS (SELECT coalesce(sum(change), 0) AS number FROM starts WHERE moment IS NULL)
    SELECT Date, (sum(coalesce(change, 0)) OVER (ORDER BY Date) + number)::BIGINT AS Usable
    FROM calendar LEFT JOIN days USING (Date), always ORDER BY Date
"""


# --- measuring ---------------------------------------------------------------------------------------------


def prepare(job: str, kind: str, path: Path) -> Callable[[], Any]:
    """Load the codes as a kind of frame, and give the call that answers."""
    if kind.startswith("duckdb"):
        connection = duckdb.connect()
        connection.execute(f"SET TimeZone = 'UTC'; CREATE VIEW codes AS FROM read_parquet('{path}')")
        if kind == "duckdb by hand":
            query = SUMMARIZE_SQL if job == "summarize" else TIMELINE_SQL
            return lambda: connection.sql(query).to_arrow_table()
        relation = connection.table("codes")
        return lambda: answer(job, relation).to_arrow_table()
    if kind == "pyspark":
        codes = open_spark().read.parquet(str(path))
        return lambda: answer(job, codes).toArrow()
    if kind == "pandas":
        codes = pd.read_parquet(path)
        return lambda: answer(job, codes)
    frame = pl.read_parquet(path)
    if kind == "polars by hand":
        return lambda: (summarize_polars if job == "summarize" else timeline_polars)(frame)
    return lambda: answer(job, frame)


def open_spark() -> Any:
    """Start a session on this machine alone."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false")
    for name in ("spark.driver.host", "spark.driver.bindAddress"):
        builder = builder.config(name, "127.0.0.1")
    return builder.getOrCreate()


def answer(job: str, codes: Any) -> Any:
    return summarize(codes, as_of=AS_OF, tz=ZONE) if job == "summarize" else timeline(codes, tz=ZONE)


def measure(job: str, kind: str, path: Path) -> dict[str, Any]:
    """Best of five after warming up, in seconds; memory in MiB; the answer as text, to compare."""
    call = prepare(job, kind, path)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = call()
    clock, processor = [], []
    for _ in range(5):
        began, used = time.perf_counter(), time.process_time()
        result = call()
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = {"loaded": loaded / 1024, "peak": peak / 1024}
    return {"s": min(clock), "cpu": min(processor), **memory, "answer": as_text(result)}


def as_text(result: Any) -> str:
    """Rows of an answer of any library, alike where they are equal."""
    rows = result if isinstance(result, pd.DataFrame) else result.to_pandas()
    for name in rows.columns:
        if isinstance(rows[name].dtype, pd.DatetimeTZDtype):
            rows[name] = rows[name].dt.tz_convert("UTC")
        elif name == "Date":
            rows[name] = pd.to_datetime(rows[name]).astype("datetime64[us]")
    text: str = rows[sorted(rows.columns)].to_csv(index=False, float_format="%.9f")
    return text


def run(*case: str) -> Any:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", *case]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    """Make the codes, run every case, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--codes", type=int, default=10_000_000)
    parser.add_argument("--spark", action="store_true", help="measure PySpark too (group 'spark', Java)")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        job, detail, path = options.case
        made = make_codes(int(detail), Path(path)) if job == "make" else measure(job, detail, Path(path))
        print(json.dumps(made))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "codes.parquet")
        run("make", str(options.codes), path)
        print(f"{options.codes:,} codes; ratios are of the clock, and of the processor in brackets\n")
        print("| | s | CPU s | to Polars by hand | to DuckDB by hand | peak MiB | loaded MiB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for job in ("summarize", "timeline"):
            report(job, path, (*KINDS, "pyspark") if options.spark else KINDS)


def report(job: str, path: str, kinds: tuple[str, ...]) -> None:
    """Print the rows of one job; stop where an answer differs."""
    found = {kind: run(job, kind, path) for kind in kinds}
    for kind, figures in found.items():
        if figures["answer"] != found["polars by hand"]["answer"]:
            raise SystemExit(f"{job} on {kind} gives another answer than Polars by hand.")
        cells = [f"{job}, {kind}", f"{figures['s']:.2f}", f"{figures['cpu']:.2f}"]
        for name in ("polars by hand", "duckdb by hand"):
            clock, processor = (figures[measure] / found[name][measure] for measure in ("s", "cpu"))
            cells.append(f"{clock:.2f} ({processor:.2f})")
        cells += [f"{figures['peak']:,.0f}", f"{figures['loaded']:,.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
