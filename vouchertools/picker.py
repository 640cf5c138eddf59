"""Pick rows with the mouse: a frame in a grid, and the rows picked as a frame.

Sorting, searching and filtering rearrange what the grid shows, never what a pick means: a pick is a position
in the frame as it was given. So index, order and ``attrs`` of the selection are the frame's own, and what
happens to the frame afterwards does not reach the grid.
"""

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from vouchertools.console import count
from vouchertools.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

#: Most rows that a grid takes: a pick, a sort or a search among them answers within two seconds.
MAX_ROWS: Final = 100_000
#: Most rows that "Pick all found" takes: what picking many costs a browser grows with their square.
MAX_PICKED: Final = 20_000

# Last, and out of sight until asked for, though found by a search: else the rest would not fit a notebook.
_ASIDE: Final = ("CreatedUtc", "UpdatedUtc", "Id", "VoucherId")
_PICK_ALL: Final = """function (event, table) {
    const found = table.rows({search: "applied"});
    const number = found.count();
    if (number <= MOST) return found.select();
    const many = number.toLocaleString("en") + " codes are too many to be picked at once. ";
    table.buttons.info("Nothing was picked", many + "Narrow the search, or filter them in Python.", 6000);
}"""
_WORDS: Final = {
    "entries": {"_": "codes", "1": "code"},
    "info": "_START_ to _END_ of _TOTAL_ _ENTRIES-TOTAL_",
    "infoEmpty": "No codes",
    "infoFiltered": "(found in _MAX_)",
    "emptyTable": "There are no codes",
    "zeroRecords": "No code is found",
    "lengthMenu": "_MENU_ a page",
    "search": "Search",
    "select": {"rows": {"_": "%d picked", "0": "", "1": "1 picked"}},
}
# The grid's library keeps a list of picked row ids for tables that live on a server, and pays for it with
# the square of the number of rows. Rows have no such ids here and the list stays empty, so it is not kept.
# Only at the first drawing: later ones find the handlers by which the kernel learns of picks.
_LIGHTEN: Final = """function (settings) {
    if (settings.lightened) return;
    settings.lightened = true;
    const node = settings.nTable;
    const kept = window.$ && $._data ? $._data(node, "events") : null;
    for (const name of ["select", "deselect"]) {
        for (const known of (kept && kept[name] || []).filter((each) => each.namespace === "dt")) {
            $(node).off(name + ".dt", known.handler);
        }
    }
}"""


class Picker:
    """A grid of codes in a notebook, made by `pick`; `selection` is what is picked in it."""

    def __init__(self, codes: pd.DataFrame) -> None:
        self._codes = codes.copy()
        self._grid = _make_grid(self._codes)

    @property
    def selection(self) -> pd.DataFrame:
        """The rows picked so far, in the order of the frame, with its index and ``attrs``; a copy."""
        return self._codes.iloc[sorted(self._grid.selected_rows)].copy()

    def __repr__(self) -> str:
        picked = len(self._grid.selected_rows)
        return f"<Picker: {picked:,} of {count(len(self._codes), 'code')} picked>"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        data, metadata = self._grid._repr_mimebundle_()
        return {**data, "text/plain": repr(self)}, metadata


def pick(codes: pd.DataFrame) -> Picker:
    """Show codes in a grid, to be picked with the mouse.

    A click picks a row or lets go of it, with Shift also those in between. Picks outlast sorting, searching
    and turning pages. Times are shown in UTC. Ids and the times of creation and update are found by a search,
    and shown by "Columns".

    Parameters
    ----------
    codes
        Any rows, at most `MAX_ROWS`, with columns of any kind; such as from ``fetch``, with a ``Status``.

    Returns
    -------
    Picker
        Shown as the last line of a cell; its ``selection`` belongs into a later cell.

    Raises
    ------
    InputError
        `codes` is no DataFrame, is too long for a browser or has two columns of one name; or the grid is not
        installed.
    """
    if not isinstance(codes, pd.DataFrame):
        raise InputError(f"codes must be a DataFrame, not {type(codes).__name__}.")
    if len(codes) > MAX_ROWS:
        raise InputError(
            f"{len(codes):,} codes are too many for a grid in the browser, which takes {MAX_ROWS:,}. "
            "Filter them first, for example by status or voucher."
        )
    if not codes.columns.is_unique:
        twice = codes.columns[codes.columns.duplicated()][0]
        raise InputError(f"codes has two columns named {twice!r}. Rename or drop one of them.")
    return Picker(codes)


def _make_grid(codes: pd.DataFrame) -> Any:
    try:
        import narwhals as nw
        from itables import JavascriptFunction
        from itables.widget import ITable
    except ImportError as error:
        raise InputError(
            "The grid is not installed here: pip install 'itables[widget]', and restart the kernel."
        ) from error
    shown = _as_text(codes)
    hidden = [place for place, name in enumerate(shown.column_names) if name in _ASIDE]
    pick_all = JavascriptFunction(_PICK_ALL.replace("MOST", str(MAX_PICKED)))
    buttons = [
        {"text": "Pick all found", "action": pick_all},
        {"extend": "selectNone", "text": "Pick none"},
        {"extend": "showSelected", "text": "Only picked"},
        {"extend": "colvis", "text": "Columns"},
    ]
    options: dict[str, Any] = {
        "maxBytes": 0,
        "maxRows": 0,
        "maxColumns": 0,
        "classes": "display compact",
        "style": "width:100%;white-space:pre;cursor:pointer",
        "select": {"style": "multi+shift"},
        "columnDefs": [{"targets": hidden, "visible": False}],
        "columnControl": ["order", "searchDropdown"],
        "ordering": {"indicators": False},
        "layout": {"topStart": {"buttons": buttons}, "bottomStart": ["pageLength", "info"]},
        "language": _WORDS,
        "drawCallback": JavascriptFunction(_LIGHTEN),
    }
    return ITable(nw.from_native(shown, eager_only=True), **options)


def _as_text(codes: pd.DataFrame) -> "pa.Table":
    """Every cell as the text to show, in Arrow, as the grid leaves such texts alone; what is aside last."""
    import pyarrow as pa

    names = sorted(codes.columns, key=lambda name: name in _ASIDE)
    texts = [pa.array(_column_as_text(codes[name]), pa.string()) for name in names]
    return pa.table(texts, names=[str(name) for name in names])


def _column_as_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        times = column.dt.tz_convert("UTC")
        whole = bool((times.dropna().dt.second == 0).all())
        texts = times.dt.strftime("%Y-%m-%d %H:%M" if whole else "%Y-%m-%d %H:%M:%S")
    else:
        texts = column.map(str, na_action="ignore")
    shown: pd.Series[Any] = texts.astype(object).where(column.notna(), "")
    return shown
