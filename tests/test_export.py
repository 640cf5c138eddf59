"""What an exported file holds: everything, text as text, nothing that runs, nothing half written."""

import csv
import json
import os
import stat
import sys
from pathlib import Path

import openpyxl
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouchertools.bulk.values import read_rows
from vouchertools.errors import InputError
from vouchertools.export import export, mask_value

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"
DANGEROUS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''", "'"]  # noqa: RUF001
PLAIN = ["007", "1E5", " blanks ", 'a,b"c\nd', "ŽLUŤOUČKÝ", "TRUE", "2017-11-10", "_x0041_", "x" * 128]


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    codes = pd.read_parquet(SAMPLE)
    codes.attrs = {"environment": "sandbox-0badcafe", "read_utc": pd.Timestamp("2017-11-10T12:00:00Z")}
    return codes


def values(*texts: str | None) -> pd.DataFrame:
    return pd.DataFrame({"Value": pd.Series(texts, dtype="str")})


def restore(text: str) -> str:
    """Undo the disarming as the module's docstring tells a reader to."""
    return text.removeprefix("'")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# --- Parquet -----------------------------------------------------------------------------------------------


def test_parquet_gives_back_every_code_with_its_dtypes(sample: pd.DataFrame, tmp_path: Path) -> None:
    path = export(sample, tmp_path / "codes.parquet")
    assert path == tmp_path / "codes.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(path), sample)


def test_parquet_says_when_from_where_and_how_many(sample: pd.DataFrame, tmp_path: Path) -> None:
    path = export(sample.head(10), tmp_path / "codes.parquet", mask=True)
    about = json.loads(pq.read_schema(path).metadata[b"vouchertools"])
    assert about == {
        "environment": "sandbox-0badcafe",
        "read_utc": "2017-11-10T12:00:00Z",
        "count": 10,
        "masked": True,
    }


def test_codes_without_attrs_are_exported_with_what_is_known(tmp_path: Path) -> None:
    path = export(values("A"), tmp_path / "codes.parquet")
    about = json.loads(pq.read_schema(path).metadata[b"vouchertools"])
    assert about == {"environment": None, "read_utc": None, "count": 1, "masked": False}


# --- CSV ---------------------------------------------------------------------------------------------------


def test_csv_has_iso_times_in_utc_and_says_its_encoding(sample: pd.DataFrame, tmp_path: Path) -> None:
    path = export(sample, tmp_path / "codes.csv")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = read_csv(path)
    assert len(rows) == len(sample)
    assert rows[0]["ValidityEndUtc"] == "2017-01-15T23:00:00Z"
    assert [restore(row["Value"]) for row in rows] == sample["Value"].fillna("").to_list()
    back = pd.read_csv(path)
    assert pd.to_datetime(back["ValidityEndUtc"]).isna().equals(sample["ValidityEndUtc"].isna())


def test_csv_writes_times_of_any_zone_in_utc(tmp_path: Path) -> None:
    local = pd.DataFrame({"When": pd.to_datetime(["2024-05-01 00:00:00.5"]).tz_localize("Europe/Prague")})
    assert read_csv(export(local, tmp_path / "codes.csv")) == [{"When": "2024-04-30T22:00:00.500000Z"}]


@pytest.mark.parametrize("value", DANGEROUS)
def test_csv_disarms_what_a_spreadsheet_would_run_and_the_value_can_be_had_back(
    value: str, tmp_path: Path
) -> None:
    [row] = read_csv(export(values(value), tmp_path / "codes.csv"))
    assert row["Value"] == f"'{value}"
    assert restore(row["Value"]) == value


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=128) | st.sampled_from(DANGEROUS + PLAIN),
        min_size=1,
    )
)
def test_any_value_comes_back_from_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = export(values(*texts), tmp_path_factory.mktemp("csv") / "codes.csv")
    rows = read_csv(path)
    assert [restore(row["Value"]) for row in rows] == texts
    assert all(row["Value"][:1] not in {*"=+-@\t\r\n"} for row in rows if row["Value"])


def test_csv_tells_a_missing_value_from_an_empty_one(tmp_path: Path) -> None:
    path = export(values(None, ""), tmp_path / "codes.csv")
    assert path.read_text(encoding="utf-8-sig") == '"Value"\n\n""\n'


# --- Excel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", DANGEROUS[:4] + DANGEROUS[7:] + PLAIN[:-2] + PLAIN[-1:])
def test_excel_keeps_text_as_text(value: str, tmp_path: Path) -> None:
    sheet = openpyxl.load_workbook(export(values(value), tmp_path / "codes.xlsx"))["Codes"]
    cell = sheet["A2"]
    assert (cell.value, cell.data_type, cell.number_format) == (value, "s", "@")


def test_excel_escapes_what_xml_cannot_hold_as_its_standard_says(tmp_path: Path) -> None:
    path = export(values("bell\x07", "_x0041_", "_x_"), tmp_path / "codes.xlsx")
    cells = [row[0] for row in openpyxl.load_workbook(path)["Codes"].values]
    assert cells == ["Value", "bell_x0007_", "_x005F_x0041_", "_x_"]


def test_excel_spells_the_zone_of_every_time_out(sample: pd.DataFrame, tmp_path: Path) -> None:
    codes = sample.tail(30).assign(Local=sample["CreatedUtc"].dt.tz_convert("Europe/Prague"))
    back = pd.read_excel(export(codes, tmp_path / "codes.xlsx"))
    assert back["ValidityEndUtc"].dropna().str.endswith("Z").all()
    for name, column in (("ValidityEndUtc", "ValidityEndUtc"), ("Local", "CreatedUtc")):
        assert list(pd.to_datetime(back[name])) == list(codes[column])


def test_excel_keeps_numbers_and_dates_without_a_zone_as_such(tmp_path: Path) -> None:
    days = pd.DataFrame(
        {"Date": pd.to_datetime(["2024-05-01", None]), "Usable": [3, 4], "Share": [0.5, None]}
    )
    back = pd.read_excel(export(days, tmp_path / "days.xlsx"))
    assert back.astype(days.dtypes.to_dict()).equals(days)


def test_codes_come_back_from_excel_and_parquet_as_rows_to_add(sample: pd.DataFrame, tmp_path: Path) -> None:
    codes = sample.head(40)
    for name in ("codes.xlsx", "codes.parquet"):
        rows = read_rows(export(codes, tmp_path / name))
        for column in ("VoucherId", "Value", "ValidityStartUtc", "ValidityEndUtc"):
            assert list(rows[column]) == list(codes[column])


def test_excel_says_when_from_where_and_how_many(sample: pd.DataFrame, tmp_path: Path) -> None:
    book = openpyxl.load_workbook(export(sample.head(5), tmp_path / "codes.xlsx"))
    assert dict(book["About"].values) == {
        "environment": "sandbox-0badcafe",
        "read_utc": "2017-11-10T12:00:00Z",
        "count": 5,
        "masked": False,
    }


def test_more_rows_than_a_sheet_holds_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["vouchertools.export"], "MAX_EXCEL_ROWS", 3)
    export(values("a", "b"), tmp_path / "codes.xlsx")
    with pytest.raises(InputError, match=r"3 codes do not fit .* Export to \.parquet or \.csv"):
        export(values("a", "b", "c"), tmp_path / "more.xlsx")


# --- every format ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv", "xlsx"])
def test_no_codes_make_a_file_with_the_columns(suffix: str, sample: pd.DataFrame, tmp_path: Path) -> None:
    path = export(sample.head(0), tmp_path / f"codes.{suffix}")
    back = {"parquet": pd.read_parquet, "csv": pd.read_csv, "xlsx": pd.read_excel}[suffix](path)
    assert list(back.columns) == list(sample.columns)
    assert len(back) == 0


@pytest.mark.parametrize("suffix", ["parquet", "csv", "xlsx"])
def test_masked_values_are_nowhere_in_the_file(suffix: str, sample: pd.DataFrame, tmp_path: Path) -> None:
    codes = sample.dropna(subset="Value").head(50)
    path = export(codes, tmp_path / f"codes.{suffix}", mask=True)
    back = {"parquet": pd.read_parquet, "csv": pd.read_csv, "xlsx": pd.read_excel}[suffix](path)
    assert list(back["Value"]) == ["****" + value[-4:] for value in codes["Value"]]
    assert codes["Value"].iloc[0].encode() not in path.read_bytes()


@given(st.text(max_size=140))
def test_a_mask_shows_at_most_a_quarter_and_at_most_four_characters(value: str) -> None:
    masked = mask_value(value)
    assert masked.startswith("****")
    shown = masked[4:]
    assert value.endswith(shown)
    assert len(shown) == min(4, len(value) // 4)


def test_masking_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mask=True hides the column Value"):
        export(pd.DataFrame({"Id": ["a"]}), tmp_path / "codes.csv", mask=True)


def test_only_the_owner_may_read_the_file(sample: pd.DataFrame, tmp_path: Path) -> None:
    old = tmp_path / "codes.csv"
    old.write_text("old")
    old.chmod(0o644)
    export(sample.head(1), old)
    assert stat.S_IMODE(old.stat().st_mode) == 0o600


def test_codes_are_left_as_they_were(sample: pd.DataFrame, tmp_path: Path) -> None:
    codes = sample.head(20).copy()
    export(codes, tmp_path / "codes.csv", mask=True)
    pd.testing.assert_frame_equal(codes, sample.head(20))
    assert codes.attrs == sample.attrs


@pytest.mark.parametrize("suffix", ["parquet", "csv", "xlsx"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / f"codes.{suffix}"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        export(values("a"), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_missing_folders_are_made_and_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    path = export(values("a"), tmp_path / "new" / "folder" / "codes.csv")
    assert path.exists()
    with pytest.raises(InputError, match=r"cannot be written: .* Choose a folder"):
        export(values("a"), path / "codes.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        export(values("a"), tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["codes.txt", "codes", "codes.parquet.gz", ""])
def test_another_suffix_is_refused_with_the_choice(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.parquet, \.csv, \.xlsx"):
        export(values("a"), tmp_path / name)


@pytest.mark.parametrize("kind", ["polars", "polars lazily", "pyarrow"])
def test_other_frames_are_exported_too(kind: str, sample: pd.DataFrame, tmp_path: Path) -> None:
    table = pq.read_table(SAMPLE).slice(0, 9)
    polars = pl.DataFrame(table)
    codes = {"polars": polars, "polars lazily": polars.lazy(), "pyarrow": table}[kind]
    path = export(codes, tmp_path / "CODES.PARQUET")
    pd.testing.assert_frame_equal(pd.read_parquet(path), sample.head(9))


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a data frame"):
        export([1], tmp_path / "codes.csv")
