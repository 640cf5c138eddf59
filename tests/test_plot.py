"""Charts: what their titles, bars and axes say, and that they leave everything else alone."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from vouchertools.errors import InputError
from vouchertools.plot import plot_status, plot_timeline, plot_windows
from vouchertools.status import STATUSES, status
from vouchertools.summary import summarize

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"
CLOCK = "2017-11-10T12:00:00Z"
PLOTS = [plot_status, plot_timeline, plot_windows]


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    """No window opens, and no figure outlives its test."""
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.fixture(scope="module")
def codes() -> pd.DataFrame:
    return pd.read_parquet(SAMPLE)


@pytest.fixture(scope="module")
def vouchers() -> pd.DataFrame:
    meta = json.loads(pq.read_schema(SAMPLE).metadata[b"vouchertools"])
    return pd.DataFrame(meta["vouchers"])[["Id", "Name"]]


def many_vouchers(codes: pd.DataFrame, number: int) -> pd.DataFrame:
    return codes.assign(VoucherId=[f"{row % number:08x}-voucher" for row in range(len(codes))])


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def texts_overlap(axes: Axes) -> bool:
    """Whether two neighbouring labels of the vertical axis touch each other."""
    axes.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()]
    spans = sorted((box.y0, box.y1) for box in boxes)
    return any(below[1] > above[0] for below, above in pairwise(spans))


# --- status ------------------------------------------------------------------------------------------------


def test_the_title_states_the_largest_share(codes: pd.DataFrame) -> None:
    expired = int((status(codes, as_of=CLOCK, tz="Europe/Prague") == "expired").sum())
    axes = plot_status(codes, as_of=CLOCK, tz="Europe/Prague")
    assert axes.get_title(loc="left") == f"{expired:,} of 6,645 codes are expired"
    assert "2017-11-10 12:00 UTC" in axes.get_xlabel()
    later = plot_status(codes[codes["ActivityState"] == "Deleted"], as_of=CLOCK)
    assert later.get_title(loc="left") == "All 602 codes are deleted"
    before = plot_status(codes, as_of="2010-01-01T00:00Z")
    assert before.get_title(loc="left").endswith("codes are still ahead")


def test_bars_are_as_long_as_the_counts_and_the_largest_voucher_is_on_top(
    codes: pd.DataFrame, vouchers: pd.DataFrame
) -> None:
    axes = plot_status(codes, as_of=CLOCK, vouchers=vouchers)
    counts = summarize(codes, as_of=CLOCK, vouchers=vouchers).sort_values(
        "Total", ascending=False, kind="stable"
    )
    assert names(axes) == list(counts["Name"])
    drawn = {bars.get_label().split()[0]: [bar.get_width() for bar in bars] for bars in axes.containers}
    assert {name: drawn[name] for name in STATUSES} == {name: counts[name].to_list() for name in STATUSES}
    top, bottom = sorted(axes.get_ylim())
    assert axes.get_ylim() == (bottom, top)


def test_the_legend_counts_each_status(codes: pd.DataFrame) -> None:
    legend = plot_status(codes, as_of=CLOCK).get_legend()
    assert legend is not None
    assert "deleted 602" in [text.get_text() for text in legend.get_texts()]


def test_vouchers_without_a_name_are_shown_by_the_beginning_of_their_id(
    codes: pd.DataFrame, vouchers: pd.DataFrame
) -> None:
    few = codes[codes["VoucherId"].isin(codes["VoucherId"].unique()[:2])]
    assert set(names(plot_status(few, as_of=CLOCK))) == {f"{id_[:8]}…" for id_ in few["VoucherId"].unique()}
    half = vouchers[vouchers["Id"] == few["VoucherId"].iloc[0]]
    assert half["Name"].item() in names(plot_status(few, as_of=CLOCK, vouchers=half))


def test_statuses_differ_in_lightness_or_hatching_where_they_meet(codes: pd.DataFrame) -> None:
    looks = []
    for bars in plot_status(codes, as_of=CLOCK).containers:
        red, green, blue = to_rgb(bars[0].get_facecolor())
        looks.append((0.2126 * red + 0.7152 * green + 0.0722 * blue, bars[0].get_hatch()))
    for (light, hatch), (next_light, next_hatch) in pairwise(looks):
        assert abs(light - next_light) > 0.15 or hatch != next_hatch


# --- timeline ----------------------------------------------------------------------------------------------


def test_the_timeline_says_how_many_are_usable_and_how_many_end_soon(codes: pd.DataFrame) -> None:
    [total] = summarize(codes, as_of=CLOCK, tz="Europe/Prague", by=None).to_dict("records")
    axes = plot_timeline(codes, as_of=CLOCK, tz="Europe/Prague")
    assert axes.get_title(loc="left") == (
        f"{total['valid']:,} codes are usable now; {total['Expiring']:,} end within 30 days"
    )
    assert axes.get_xlabel() == "Date (Europe/Prague)\ndashed: 2017-11-10 13:00; hatched: the next 30 days"
    assert axes.get_ylabel() == "Codes usable in the day"
    weekly = plot_timeline(codes, as_of=CLOCK, freq="W", expiring_within="12h")
    assert weekly.get_ylabel() == "Codes usable in the week"
    assert weekly.get_title(loc="left").endswith("end within 12 hours")


def test_a_code_that_ends_in_a_distant_year_does_not_squeeze_the_rest(codes: pd.DataFrame) -> None:
    for axes in (plot_timeline(codes, as_of=CLOCK), plot_windows(codes, as_of=CLOCK)):
        left, right = (mpl.dates.num2date(limit).year for limit in axes.get_xlim())
        assert (left, right) == (2016, 2018)


def test_the_present_is_in_sight_even_when_all_windows_are_over(codes: pd.DataFrame) -> None:
    for axes in (
        plot_timeline(codes, as_of="2020-06-01T00:00Z"),
        plot_windows(codes, as_of="2020-06-01T00:00Z"),
    ):
        now = mpl.dates.date2num(pd.Timestamp("2020-06-01"))
        left, right = axes.get_xlim()
        assert left < now < right
        assert any(
            line.get_xdata()[0] == pd.Timestamp("2020-06-01")
            for line in axes.lines
            if len(line.get_xdata()) == 2
        )


# --- windows -----------------------------------------------------------------------------------------------


def test_strips_are_as_dark_as_codes_are_many_and_span_their_last_day() -> None:
    def local(*days: str) -> Any:
        return (
            pd.to_datetime(list(days))
            .tz_localize("Europe/Prague")
            .tz_convert("UTC")
            .astype("datetime64[us, UTC]")
        )

    codes = pd.DataFrame(
        {
            "VoucherId": ["a", "a", "b", "b"],
            "ActivityState": ["Active", "Active", "Active", "Deleted"],
            "ValidityStartUtc": local("2024-05-01", "2024-05-01", "2024-05-20", "2024-05-01"),
            "ValidityEndUtc": local("2024-05-10", "2024-05-20", "2024-05-30", "2024-05-30"),
        }
    )
    axes = plot_windows(codes, as_of="2024-05-10T21:00Z", tz="Europe/Prague")
    assert axes.get_title(loc="left") == "1 of 2 vouchers have codes that are usable now"
    mesh = axes.collections[0]
    times = pd.to_datetime(mpl.dates.num2date(mesh.get_coordinates()[0, :, 0])).tz_localize(None)
    rows = np.ma.filled(mesh.get_array().reshape(2, -1), 0)

    def at(row: int, moment: str) -> int:
        return int(rows[row, times.searchsorted(pd.Timestamp(moment), side="right") - 1])

    assert [at(0, f"2024-05-{day} 12:00") for day in ("01", "10", "11", "20", "21")] == [2, 2, 1, 1, 0]
    assert [at(1, f"2024-05-{day} 12:00") for day in ("01", "19", "20", "30")] == [0, 0, 1, 1]
    assert axes.get_figure().axes[1].get_ylabel() == "Codes usable at once"


# --- all of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", PLOTS)
def test_a_chart_is_drawn_where_it_is_told(plot: Any, codes: pd.DataFrame) -> None:
    figure = mpl.figure.Figure()
    axes = figure.add_subplot()
    before = dict(mpl.rcParams)
    assert plot(codes, as_of=CLOCK, ax=axes) is axes
    assert axes.has_data()
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("number", [1, 5, 29, 200])
def test_a_chart_is_legible_with_few_and_with_many_vouchers(
    plot: Any, number: int, codes: pd.DataFrame
) -> None:
    axes = plot(many_vouchers(codes, number), as_of=CLOCK)
    width, height = axes.figure.get_size_inches()
    assert (width, height <= 11) == (8, True)
    assert not texts_overlap(axes)
    assert axes.get_title(loc="left")
    assert axes.get_xlabel()
    assert axes.get_ylabel()


@pytest.mark.parametrize("plot", PLOTS)
def test_a_chart_of_a_third_of_a_page_is_legible_too(plot: Any, codes: pd.DataFrame) -> None:
    figure, axes = plt.subplots(figsize=(6.3, 3.5), layout="constrained")
    plot(codes, as_of=CLOCK, ax=axes)
    assert not texts_overlap(axes)
    title = axes.title if axes.get_title() else axes._left_title
    assert title.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("plot", PLOTS)
def test_no_codes_make_a_chart_that_says_so(plot: Any, codes: pd.DataFrame) -> None:
    axes = plot(codes.head(0), as_of=CLOCK, tz={"v": "Europe/Prague"})
    axes.figure.canvas.draw()
    assert axes.get_title(loc="left") == "There are no codes"


@pytest.mark.parametrize("plot", PLOTS)
def test_other_frames_are_drawn_too(plot: Any, codes: pd.DataFrame) -> None:
    titles = {
        plot(frame, as_of=CLOCK).get_title(loc="left")
        for frame in (codes, pl.from_pandas(codes), pl.from_pandas(codes).lazy())
    }
    assert len(titles) == 1


@pytest.mark.parametrize("plot", PLOTS)
def test_bad_input_is_refused_before_anything_is_drawn(plot: Any, codes: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="lacks"):
        plot(codes.drop(columns="ActivityState"), as_of=CLOCK)
    with pytest.raises(InputError, match="as_of"):
        plot(codes, as_of="2017-11-10")
    assert plt.get_fignums() == []
