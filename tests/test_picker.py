"""The grid shows every row as it is, and a pick means that row."""

import json
import re
import sys
from typing import Any

import pandas as pd
import pytest

import vouchertools as vt
from vouchertools import picker
from vouchertools.errors import InputError


@pytest.fixture
def codes() -> pd.DataFrame:
    """Three rows with an index of their own, blanks, markup, a missing value and a missing time."""
    frame = pd.DataFrame(
        {
            "Id": ["a", "b", "c"],
            "Value": [" 007 ", None, "<b>&"],
            "ValidityEndUtc": pd.to_datetime(["2017-11-09T23:00Z", None, "2017-11-10T23:00Z"]),
            "UpdatedUtc": pd.to_datetime(["2017-11-09T23:00:05Z"] * 3).tz_convert("Asia/Tokyo"),
            "Count": [1.5, 2.0, None],
        },
        index=[30, 10, 10],
    )
    frame.attrs = {"environment": "sandbox-1", "read_utc": pd.Timestamp("2017-11-10T12:00Z")}
    return frame


def pick(chosen: vt.picker.Picker, *places: int) -> pd.DataFrame:
    """Pick rows as the browser does: it tells their places in the frame as it was given."""
    chosen._grid.selected_rows = list(places)
    return chosen.selection


def cells(chosen: vt.picker.Picker) -> list[list[Any]]:
    return json.loads(chosen._grid._dt_args["data_json"])  # type: ignore[no-any-return]


def test_the_selection_is_rows_of_the_frame_in_its_order_with_its_index_and_attrs(
    codes: pd.DataFrame,
) -> None:
    selection = pick(vt.pick(codes), 2, 0)
    pd.testing.assert_frame_equal(selection, codes.iloc[[0, 2]])
    assert selection.attrs == codes.attrs


def test_nothing_is_picked_at_first(codes: pd.DataFrame) -> None:
    selection = vt.pick(codes).selection
    pd.testing.assert_frame_equal(selection, codes.iloc[:0])
    assert selection.attrs == codes.attrs


def test_what_happens_to_the_frame_later_does_not_reach_the_grid(codes: pd.DataFrame) -> None:
    before = codes.copy()
    chosen = vt.pick(codes)
    codes.loc[:, "Value"] = "gone"
    codes.attrs["environment"] = "production"
    pd.testing.assert_frame_equal(pick(chosen, 1), before.iloc[[1]])
    assert chosen.selection.attrs == before.attrs


def test_changing_the_selection_does_not_change_what_was_given(codes: pd.DataFrame) -> None:
    chosen = vt.pick(codes)
    selection = pick(chosen, 0)
    selection.loc[:, "Value"] = "mine"
    assert list(chosen.selection["Value"]) == [" 007 "]


def test_every_cell_is_text_as_it_is_with_times_in_utc(codes: pd.DataFrame) -> None:
    assert cells(vt.pick(codes)) == [
        [" 007 ", "2017-11-09 23:00", "1.5", "a", "2017-11-09 23:00:05"],
        ["", "", "2.0", "b", "2017-11-09 23:00:05"],
        ["&lt;b&gt;&amp;", "2017-11-10 23:00", "", "c", "2017-11-09 23:00:05"],
    ]


def test_ids_and_times_of_change_are_last_and_out_of_sight(codes: pd.DataFrame) -> None:
    options = vt.pick(codes)._grid._dt_args
    assert re.findall("<th>(.*?)</th>", options["table_html"]) == [
        "Value",
        "ValidityEndUtc",
        "Count",
        "Id",
        "UpdatedUtc",
    ]
    assert options["columnDefs"] == [{"targets": [3, 4], "visible": False}]


def test_no_row_is_left_out_and_no_value_is_cut_however_many_and_long() -> None:
    values = [f"{number:0128d}" for number in range(20_000)]
    assert cells(vt.pick(pd.DataFrame({"Value": values}))) == [[value] for value in values]


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame({"Value": pd.Series([], dtype="str")})])
def test_an_empty_frame_gives_an_empty_grid(frame: pd.DataFrame) -> None:
    assert cells(vt.pick(frame)) == []
    pd.testing.assert_frame_equal(vt.pick(frame).selection, frame)


def test_the_text_of_a_picker_says_how_many_are_picked_and_shows_no_value(codes: pd.DataFrame) -> None:
    chosen = vt.pick(codes)
    pick(chosen, 1, 2)
    data, _ = chosen._repr_mimebundle_()
    assert data["text/plain"] == repr(chosen) == "<Picker: 2 of 3 codes picked>"
    assert set(data) == {"text/plain", "application/vnd.jupyter.widget-view+json"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([{"Value": "A"}], "codes must be a DataFrame, not list"),
        (pd.DataFrame([[1, 2]], columns=["Value", "Value"]), "two columns named 'Value'"),
        (
            pd.DataFrame({"Value": range(picker.MAX_ROWS + 1)}),
            "100,001 codes are too many .* Filter them first",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_clear_word(wrong: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        vt.pick(wrong)


def test_without_the_grids_library_the_error_says_what_to_install(
    codes: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "itables.widget", None)
    with pytest.raises(InputError, match=r"pip install 'itables\[widget\]'"):
        vt.pick(codes)
