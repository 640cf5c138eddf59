"""Charts of codes: each takes a matplotlib ``Axes`` (or makes one) and returns it, titled with what it shows.

The palette keeps apart for every kind of colour vision and, by its steps of lightness, in a grey print; what
would come close is hatched. Nothing global is changed: no style, no backend, no current figure when ``ax`` is
given.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

import narwhals as nw
import numpy as np
import pandas as pd

from vouchertools.contract import to_utc
from vouchertools.frames import collect, collect_pandas, read_frame
from vouchertools.status import STATUSES, columns_needed, read_zones
from vouchertools.summary import summarize
from vouchertools.timeline import timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Smallest letters that name vouchers, in points; where they would have to be smaller, ranks stand instead.
MIN_FONT_PT: Final = 5.5

# Colour and hatch of each status, in the order of the stack: what can be used first.
_LOOKS: Final = {
    "valid": ("#004488", ""),
    "future": ("#6699cc", ""),
    "expired": ("#eecc66", ""),
    "inverted": ("#994455", "xxxx"),
    "deleted": ("#999999", "////"),
}
_WIDTH_IN: Final = 8.0
_ROW_IN: Final = 0.25
_MAX_ROWS_IN: Final = 9.0
_BINS: Final = 600
_PERIODS: Final = {"D": "day", "W": "week", "M": "month"}


def plot_status(
    codes: Any, *, as_of: Any, tz: Any = None, vouchers: Any = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw how many codes of each voucher are usable, ahead, expired, inverted and deleted.

    Parameters
    ----------
    codes, as_of, tz
        As for `vouchertools.status`, with ``VoucherId``.
    vouchers
        The frame from ``Client.vouchers()``, for names instead of ids.
    ax
        Where to draw; a figure of fitting height is made without it.

    Returns
    -------
    Axes
        One bar a voucher, the largest on top; by name, or by rank where names would be too small to read.

    Raises
    ------
    InputError
        As `vouchertools.summarize`.
    """
    counts = collect_pandas(summarize(codes, as_of=as_of, tz=tz, vouchers=vouchers))
    bars = counts.sort_values("Total", ascending=False, kind="stable")
    axes = _make_axes(ax, rows=len(bars))
    named = _name_rows(axes, _voucher_labels(bars))
    left = pd.Series(0, index=bars.index)
    for name, (colour, hatch) in _LOOKS.items():
        axes.barh(
            range(1, len(bars) + 1),
            bars[name],
            left=left,
            height=0.8 if named else 1.0,
            color=colour,
            hatch=hatch if named else "",
            edgecolor="white",
            linewidth=0.3 if named else 0.0,
            label=f"{name} {bars[name].sum():,}",
        )
        left = left + bars[name]
    axes.set_xlabel(f"Codes, by their status at {_say_instant(as_of)}")
    axes.set_title(_status_finding(counts), loc="left", weight="bold")
    _tidy(axes, grid="x")
    _thousands(axes.xaxis)
    if not len(bars):
        axes.set_xlim(0, 1)
        return axes
    shortest, longest = bars["Total"].iloc[-1], bars["Total"].iloc[0]
    axes.set_xlim(0, longest * (1.05 if shortest < longest / 2 else 1.4))  # room for the legend
    axes.legend(loc="lower right", framealpha=0.9, edgecolor="none")
    return axes


def plot_timeline(
    codes: Any,
    *,
    as_of: Any,
    tz: Any = None,
    freq: str = "D",
    expiring_within: Any = "30D",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how many codes are usable over time, with the present and the stretch of the expiring ones marked.

    Parameters
    ----------
    codes, tz, freq
        As for `vouchertools.timeline`.
    as_of, expiring_within
        As for `vouchertools.summarize`.
    ax
        Where to draw; a figure is made without it.

    Returns
    -------
    Axes
        One step a period. The time axis spans the middle 98 of 100 starts and ends, and the present: a few
        codes that end in a distant year do not squeeze the rest.

    Raises
    ------
    InputError
        As `vouchertools.timeline` and `vouchertools.summarize`.
    """
    counted = summarize(codes, as_of=as_of, tz=tz, by=None, expiring_within=expiring_within)
    counts = collect_pandas(counted).iloc[0]
    usable = _usable(codes, tz, freq)
    now, place = _local_now(as_of, tz)
    length = pd.Timedelta(expiring_within)
    axes = _make_axes(ax, rows=12)
    light, dark = _LOOKS["future"][0], _LOOKS["valid"][0]
    axes.fill_between(usable["Date"], usable["Usable"], step="post", color=light, alpha=0.45, linewidth=0)
    axes.step(usable["Date"], usable["Usable"], where="post", color=dark, linewidth=1.5)
    axes.axvspan(
        now, now + length, facecolor="none", edgecolor="#bb7700", hatch="///", linewidth=0, alpha=0.5
    )
    axes.set_xlim(*_span(usable, now, now + length))
    axes.set_ylim(0, 1.08 * max([1, *usable["Usable"]]))
    finding = (
        f"{counts['valid']:,} codes are usable now; {counts['Expiring']:,} end within {_say_period(length)}"
    )
    axes.set_title(finding if counts["Total"] else "There are no codes", loc="left", weight="bold")
    axes.set_ylabel(f"Codes usable in the {_PERIODS[freq]}")
    _thousands(axes.yaxis)
    _tidy(axes, grid="y")
    _date(axes, now, place, f"; hatched: the next {_say_period(length)}")
    return axes


def plot_windows(
    codes: Any, *, as_of: Any, tz: Any = None, vouchers: Any = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw when the codes of each voucher are usable: a strip a voucher, the darker the more codes.

    Parameters
    ----------
    codes, as_of, tz
        As for `vouchertools.status`, with ``VoucherId``. Deleted codes and inverted windows are left out.
    vouchers
        The frame from ``Client.vouchers()``, for names instead of ids.
    ax
        Where to draw; a figure of fitting height is made without it.

    Returns
    -------
    Axes
        One strip a voucher, the earliest on top, on a time axis as in `plot_timeline`; by name, or by number
        where names would be too small to read. Shades are steps of a logarithm, explained in a colour bar.

    Raises
    ------
    InputError
        As `vouchertools.summarize`.
    """
    from matplotlib.colors import LogNorm

    counts = collect_pandas(summarize(codes, as_of=as_of, tz=tz, vouchers=vouchers))
    windows = _local_windows(codes, tz)
    counts = counts[counts["VoucherId"].isin(windows["VoucherId"])]
    counts = counts.sort_values("FirstStartUtc", na_position="first")
    now, place = _local_now(as_of, tz)
    left, right = _span(_usable(codes, tz, "D"), now, now)
    edges = pd.date_range(left, right, periods=_BINS + 1)
    density = _density(windows, list(counts["VoucherId"]), edges)
    axes = _make_axes(ax, rows=len(counts))
    _name_rows(axes, _voucher_labels(counts), order="by start")
    if density.any():
        rows = np.arange(len(counts) + 1) + 0.5
        shades = LogNorm(1, max(10, density.max()))
        mesh = axes.pcolormesh(edges, rows, np.ma.masked_equal(density, 0), cmap="cividis_r", norm=shades)
        bar = axes.figure.get_figure(root=True).colorbar(mesh, ax=axes, pad=0.01, aspect=40)
        bar.set_label("Codes usable at once")
        bar.ax.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(left, right)
    finding = f"{(counts['valid'] > 0).sum():,} of {len(counts):,} vouchers have codes that are usable now"
    axes.set_title(finding if len(counts) else "There are no codes", loc="left", weight="bold")
    _tidy(axes, grid="x")
    _date(axes, now, place)
    return axes


def _status_finding(counts: pd.DataFrame) -> str:
    by_status = {status: int(counts[status].to_numpy().sum()) for status in STATUSES}
    total = sum(by_status.values())
    if not total:
        return "There are no codes"
    name = max(STATUSES, key=lambda status: by_status[status])
    state = "still ahead" if name == "future" else name
    if by_status[name] == total:
        return f"All {total:,} codes are {state}"
    return f"{by_status[name]:,} of {total:,} codes are {state}"


def _name_rows(axes: "Axes", labels: "pd.Series[str]", *, order: str = "by size") -> bool:
    """Label the rows of a chart, the first on top at 1; say whether there was room for names."""
    height_pt = 72 * axes.figure.get_figure(root=True).get_size_inches()[1] * axes.get_position().height
    size_pt = 0.8 * height_pt / max(len(labels), 1)
    named = bool(size_pt >= MIN_FONT_PT)
    if named:
        axes.set_yticks(range(1, len(labels) + 1), list(labels), fontsize=min(10.0, size_pt))
        axes.set_ylabel("Voucher")
    else:
        _thousands(axes.yaxis)
        axes.set_ylabel(f"Vouchers {order}, {len(labels):,} in all")
    axes.set_ylim(max(len(labels), 1) + 0.6, 0.4)
    return named


def _voucher_labels(counts: pd.DataFrame) -> "pd.Series[str]":
    """Name a voucher; by the beginning of its id where no name is known."""
    short = counts["VoucherId"].str.slice(0, 8) + "…"
    return counts["Name"].fillna(short) if "Name" in counts else short


def _make_axes(ax: "Axes | None", *, rows: int) -> "Axes":
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    height_in = 1.4 + min(_MAX_ROWS_IN, _ROW_IN * max(rows, 5))
    return plt.subplots(figsize=(_WIDTH_IN, height_in), layout="constrained")[1]


def _tidy(axes: "Axes", *, grid: Literal["x", "y"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _say_instant(as_of: Any) -> str:
    return f"{to_utc(as_of, 'as_of'):%Y-%m-%d %H:%M} UTC"


def _usable(codes: Any, tz: Any, freq: str) -> pd.DataFrame:
    return collect_pandas(timeline(codes, freq=freq, tz=tz)).astype({"Date": "datetime64[us]"})


def _local_windows(codes: Any, tz: Any) -> pd.DataFrame:
    """Count the codes of each voucher and window; as naive local days, ``after`` being past the last one."""
    start, end = nw.col("ValidityStartUtc"), nw.col("ValidityEndUtc")
    frame = read_frame(codes, "VoucherId", *columns_needed(tz))
    gone = (nw.col("ActivityState") == "Deleted").fill_null(False) | (end < start).fill_null(False)
    kept = frame.select("VoucherId", start, end, kept=~gone).filter("kept")
    grouped = kept.group_by("VoucherId", "ValidityStartUtc", "ValidityEndUtc").agg(codes=nw.len())
    windows = collect(grouped).to_pandas()
    zones = read_zones(tz)
    named = zones if isinstance(zones, dict) else {}
    zone = windows["VoucherId"].map(
        lambda voucher: named.get(voucher, zones if isinstance(zones, str) else "UTC")
    )
    windows["first"] = _local_day(windows["ValidityStartUtc"], zone)
    windows["after"] = _local_day(windows["ValidityEndUtc"], zone) + pd.Timedelta("1D")
    return windows


def _local_day(times: "pd.Series[Any]", zone: "pd.Series[Any]") -> "pd.Series[Any]":
    """Naive midnight of each instant's day in its own zone."""
    days = pd.Series(pd.NaT, index=times.index, dtype="datetime64[us]")
    for name in zone.unique():
        here = zone == name
        days[here] = times[here].dt.tz_convert(name).dt.tz_localize(None).dt.normalize()
    return days


def _density(windows: pd.DataFrame, vouchers: list[str], edges: pd.DatetimeIndex) -> "np.ndarray[Any, Any]":
    """Number of codes of each voucher (rows) whose window touches a stretch of time (columns)."""
    row = pd.Index(vouchers).get_indexer(pd.Index(windows["VoucherId"]))
    first = np.searchsorted(edges, windows["first"].fillna(edges[0]), side="right") - 1
    after = np.searchsorted(edges, windows["after"].fillna(edges[-1]), side="left")
    changes = np.zeros((len(vouchers), len(edges) + 1), dtype=np.int64)
    np.add.at(changes, (row, np.maximum(first, 0)), windows["codes"])
    np.subtract.at(changes, (row, after), windows["codes"])
    density: np.ndarray[Any, Any] = changes.cumsum(axis=1)[:, : len(edges) - 1]
    return density


def _local_now(as_of: Any, tz: Any) -> tuple[Any, str]:
    """Return the instant on the wall of the one zone there is, else in UTC; and whose dates are shown."""
    zones = read_zones(tz)
    names = sorted(set(zones.values())) if isinstance(zones, dict) else [zones or "UTC"]
    zone = names[0] if len(names) == 1 else "UTC"
    now = pd.Timestamp(to_utc(as_of, "as_of")).tz_convert(zone).tz_localize(None)
    return now, "local" if len(names) > 1 else zone


def _span(usable: pd.DataFrame, now: Any, until: Any) -> tuple[Any, Any]:
    """Stretch of time with the middle 98 of 100 changes, the present and a little around."""
    left, right = now, until
    if len(usable):
        share = usable["Usable"].diff().fillna(usable["Usable"]).abs().cumsum()
        inner = usable["Date"][
            (share >= 0.01 * share.iloc[-1]) & (share.shift(fill_value=0) <= 0.99 * share.iloc[-1])
        ]
        left, right = min(left, inner.iloc[0]), max(right, inner.iloc[-1])
    around = max((right - left) * 0.03, pd.Timedelta("1D"))
    return left - around, right + around


def _date(axes: Any, now: pd.Timestamp, place: str, more: str = "") -> None:
    """Mark the present on a time axis, and say whose time it shows."""
    from matplotlib import dates

    axes.axvline(now, color="white", linewidth=2.4)
    axes.axvline(now, color="black", linewidth=1.2, linestyle="--")
    locator: Any = dates.AutoDateLocator  # matplotlib's own classes have no types
    formatter: Any = dates.ConciseDateFormatter
    axes.xaxis.set_major_locator(locator())
    axes.xaxis.set_major_formatter(formatter(axes.xaxis.get_major_locator(), show_offset=False))
    clock = " UTC" if place == "local" else ""
    axes.set_xlabel(f"Date ({place})\ndashed: {now:%Y-%m-%d %H:%M}{clock}{more}")


def _say_period(length: pd.Timedelta) -> str:
    hours = length / pd.Timedelta("1h")
    number, unit = (hours / 24, "day") if hours % 24 == 0 else (hours, "hour")
    return f"{number:,.6g} {unit}{'' if number == 1 else 's'}"
