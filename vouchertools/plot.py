"""Charts of codes: each takes a matplotlib ``Axes`` (or makes one) and returns it, titled with what it shows.

The palette keeps apart for every kind of colour vision and, by its steps of lightness, in a grey print; what
would come close is hatched. Nothing global is changed: no style, no backend, no current figure when ``ax`` is
given.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd

from vouchertools.contract import to_utc
from vouchertools.frames import collect_pandas
from vouchertools.status import STATUSES
from vouchertools.summary import summarize

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


def _name_rows(axes: "Axes", labels: "pd.Series[str]") -> bool:
    """Label the rows of a chart, the first on top at 1; say whether there was room for names."""
    height_pt = 72 * axes.figure.get_figure(root=True).get_size_inches()[1] * axes.get_position().height
    size_pt = 0.8 * height_pt / max(len(labels), 1)
    named = bool(size_pt >= MIN_FONT_PT)
    if named:
        axes.set_yticks(range(1, len(labels) + 1), list(labels), fontsize=min(10.0, size_pt))
        axes.set_ylabel("Voucher")
    else:
        _thousands(axes.yaxis)
        axes.set_ylabel(f"Vouchers by rank, {len(labels):,} in all")
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
