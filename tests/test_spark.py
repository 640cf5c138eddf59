"""Spark judges and counts as pandas does, lazily, whatever the time zone of its session.

It needs the dependency group ``spark`` and a Java runtime; without them these tests are skipped.
"""

import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import vouchertools as vt
from vouchertools.anomalies import find_anomalies
from vouchertools.changes import compare
from vouchertools.status import status
from vouchertools.summary import summarize
from vouchertools.timeline import timeline

pyspark_sql = pytest.importorskip("pyspark.sql", reason="the dependency group 'spark' is not installed")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Spark needs a Java runtime", allow_module_level=True)

# PySpark itself warns of a pandas newer than it knows.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"
CLOCK = "2017-11-10T12:00:00Z"


@pytest.fixture(scope="module")
def codes() -> pd.DataFrame:
    return pd.read_parquet(SAMPLE)


@pytest.fixture(scope="module")
def zones(codes: pd.DataFrame) -> dict[str, str]:
    """Three zones and a voucher without one."""
    vouchers = sorted(codes["VoucherId"].unique())
    names = ("Europe/Prague", "America/Santiago", "Pacific/Auckland")
    return {voucher: names[number % 3] for number, voucher in enumerate(vouchers[1:])}


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A session on this machine alone, in a zone with a switch of clocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = (
            pyspark_sql.SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.session.timeZone", "America/New_York")
            .config("spark.sql.shuffle.partitions", "2")
            .getOrCreate()
        )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def lazy(spark: Any) -> Any:
    """The sample as Spark reads it: nothing goes through pandas."""
    return spark.read.parquet(str(SAMPLE))


def fetch(frame: Any) -> pd.DataFrame:
    """Rows of a result, as pandas with times in UTC."""
    assert isinstance(frame, pyspark_sql.DataFrame)
    rows = frame.toArrow().to_pandas()
    for name in rows.columns:
        if isinstance(rows[name].dtype, pd.DatetimeTZDtype):
            rows[name] = rows[name].dt.tz_convert("UTC")
    return rows.astype({"Date": "datetime64[us]"}) if "Date" in rows else rows


def test_every_code_has_the_status_that_pandas_gives_it(
    lazy: Any, codes: pd.DataFrame, zones: dict[str, str]
) -> None:
    for tz in (None, "Europe/Prague", zones):
        judged = fetch(status(lazy, as_of=CLOCK, tz=tz).select("Id", "Status"))
        expected = codes.assign(Status=status(codes, as_of=CLOCK, tz=tz))[["Id", "Status"]]
        pd.testing.assert_frame_equal(
            judged.sort_values("Id", ignore_index=True), expected.sort_values("Id", ignore_index=True)
        )


Answer = Callable[[Any, dict[str, str]], Any]
ANSWERS: dict[str, Answer] = {
    "by voucher": lambda codes, zones: summarize(codes, as_of=CLOCK, tz=zones),
    "by status": lambda codes, zones: summarize(codes, as_of=CLOCK, tz=zones, by="Status"),
    "in all": lambda codes, zones: summarize(codes, as_of=CLOCK, tz=zones, by=None),
    "by enterprise": lambda codes, zones: summarize(
        codes,
        as_of=CLOCK,
        by="EnterpriseId",
        vouchers=pd.DataFrame(
            {"Id": list(zones), "EnterpriseId": zones.values(), "EnterpriseName": zones.values()}
        ),
    ),
    "days": lambda codes, zones: timeline(codes, tz=zones),
    "weeks": lambda codes, zones: timeline(codes, tz=zones, freq="W"),
    "months": lambda codes, zones: timeline(codes, tz="Europe/Prague", freq="M"),
    "anomalies": lambda codes, zones: find_anomalies(codes, as_of=CLOCK, tz=zones),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_every_answer_is_the_one_that_pandas_gives(
    answer: Answer, lazy: Any, codes: pd.DataFrame, zones: dict[str, str]
) -> None:
    pd.testing.assert_frame_equal(fetch(answer(lazy, zones)), answer(codes, zones))


def test_two_pulls_differ_as_they_do_in_pandas(lazy: Any, codes: pd.DataFrame) -> None:
    later = lazy.withColumn("ActivityState", pyspark_sql.functions.lit("Deleted")).where("Value > 'S'")
    expected = compare(codes, codes[codes["Value"] > "S"].assign(ActivityState="Deleted"))
    assert set(expected["Change"]) == {"deleted", "missing"}
    pd.testing.assert_frame_equal(fetch(compare(lazy, later)), expected)


def test_spark_reads_the_cache_as_the_readme_says(spark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with vt.Sandbox() as sandbox, sandbox.client() as client:
        vt.Cache().refresh(client, sandbox.voucher_ids, progress=False)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```py\n(.*?)```", readme, flags=re.S) if "spark" in block)
    exec(compile(example, "README.md", "exec"), {"client": client})
    shown = capsys.readouterr().out
    assert "only showing top 20 rows" in shown
