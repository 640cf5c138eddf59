"""Plans: pure, reviewed in seconds, recognised again, unchanged by being saved."""

import re
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_codes

from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import plan_add, plan_delete
from vouchertools.errors import InputError, PlanError

VOUCHER = "9b5a4c6e-0000-4000-8000-000000000001"
NOW = pd.Timestamp("2024-03-01T12:00:00Z").as_unit("us")


def codes(n: int = 8, **options: Any) -> pd.DataFrame:
    frame = make_codes(n, **{"deleted": 0.0, "vouchers": 2} | options)
    frame = frame.astype({name: "str" for name in ("Id", "VoucherId", "Value", "ActivityState")})
    frame.attrs = {"environment": "production", "read_utc": NOW}
    return frame


def rows(*values: str, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"VoucherId": VOUCHER, "Value": list(values), **columns})


def checks(plan: Plan) -> list[tuple[str, str, Any]]:
    return [
        (check, level, None if pd.isna(row) else int(row))
        for check, level, row in plan.checks[["Check", "Level", "Row"]].itertuples(index=False)
    ]


# ---- to delete ----


def test_a_delete_plan_keeps_every_record_and_where_and_when_it_was_read() -> None:
    selected = codes()
    plan = plan_delete(selected, reason="spring clean", tz="Europe/Prague")
    assert len(plan) == 8
    assert plan.frame[selected.columns].to_dict("list") == selected.to_dict("list")
    assert (plan.environment, plan.as_of, plan.reason, plan.tz) == (
        "production",
        NOW,
        "spring clean",
        "Europe/Prague",
    )


def test_an_empty_selection_never_means_all() -> None:
    with pytest.raises(InputError, match="never means all"):
        plan_delete(codes().head(0))
    with pytest.raises(InputError, match="no rows"):
        plan_add(rows())


def test_a_selection_that_has_lost_where_it_comes_from_is_refused_until_told() -> None:
    merged = codes().merge(pd.DataFrame({"VoucherId": codes()["VoucherId"].unique(), "Name": "x"}))
    merged.attrs = {}
    with pytest.raises(InputError, match="environment is missing"):
        plan_delete(merged, as_of=NOW)
    with pytest.raises(InputError, match="as_of is missing"):
        plan_delete(merged, environment="production")
    assert plan_delete(merged, as_of=NOW, environment="production").environment == "production"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: pd.concat([frame, frame.head(1)]), "more than once"),
        (lambda frame: frame.drop(columns="UpdatedUtc"), "lacks the column UpdatedUtc"),
        (lambda frame: frame.assign(Id="summer"), "no UUID"),
        (lambda frame: frame.to_dict("list"), "DataFrame"),
        (
            lambda frame: frame.assign(ValidityEndUtc=frame["ValidityEndUtc"].dt.tz_localize(None)),
            "time zone",
        ),
    ],
)
def test_a_selection_that_cannot_be_deleted_is_refused(change: Any, words: str) -> None:
    frame = codes()
    changed = change(frame)
    if isinstance(changed, pd.DataFrame):
        changed.attrs = frame.attrs
    with pytest.raises(InputError, match=words):
        plan_delete(changed)


def test_every_reason_to_think_twice_about_a_deletion_is_listed() -> None:
    frame = codes(6).assign(
        ValidityStartUtc=pd.Timestamp("2024-01-01", tz="UTC"),
        ValidityEndUtc=pd.Timestamp("2024-02-01", tz="UTC"),
    )
    frame.loc[1, "ActivityState"] = "Deleted"
    frame.loc[2, "ValidityEndUtc"] = pd.Timestamp("2024-12-31", tz="UTC")
    frame.loc[3, "ValidityStartUtc"] = pd.Timestamp("2024-06-01", tz="UTC")
    frame.loc[3, "ValidityEndUtc"] = pd.NaT
    frame.loc[4, "Value"] = None
    frame.loc[5, "ValidityEndUtc"] = NOW - pd.Timedelta(hours=24)
    frame.attrs = codes().attrs
    assert checks(plan_delete(frame)) == [
        ("already deleted", "skip", 1),
        ("still usable", "allow_valid", 2),
        ("still usable", "allow_valid", 3),
        ("no way back", "warning", 4),
        ("still usable", "allow_valid", 5),
        ("no time zone", "warning", None),
    ]
    assert ("still usable", "allow_valid", 5) not in checks(plan_delete(frame, tz="UTC"))


# ---- to add ----


def test_every_reason_to_think_twice_about_an_addition_is_listed() -> None:
    existing = codes(3).assign(VoucherId=VOUCHER, Value=["TAKEN", "Case", "GONE"])
    existing.loc[2, "ActivityState"] = "Deleted"
    existing.attrs = codes().attrs
    wanted = rows(
        "TAKEN",
        "CASE",
        "GONE",
        "x" * 129,
        " blank",
        "twin",
        "TWIN",
        "late",
        "odd",
        ValidityStartUtc=pd.Timestamp("2024-01-01T00:00:00Z"),
        ValidityEndUtc=pd.Timestamp("2024-12-31T00:00:00Z"),
    )
    wanted.loc[7, "ValidityEndUtc"] = pd.Timestamp("2024-02-01T00:00:00Z")
    wanted.loc[8, "ValidityStartUtc"] = pd.Timestamp("2025-01-01T00:00:00.5Z")
    plan = plan_add(wanted, existing=existing)
    assert checks(plan) == [
        ("exists", "skip", 0),
        ("other case", "warning", 1),
        ("too long", "stop", 3),
        ("blanks", "stop", 4),
        ("other case", "warning", 5),
        ("other case", "warning", 6),
        ("expired", "warning", 7),
        ("inverted", "warning", 8),
        ("fraction", "warning", 8),
    ]
    assert plan.environment == "production"
    assert plan.frame.loc[8, "ValidityStartUtc"] == pd.Timestamp("2025-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (rows("A", "A"), "row 1 repeats"),
        (pd.DataFrame({"VoucherId": [VOUCHER, VOUCHER.upper()], "Value": ["A", "A"]}), "row 1 repeats"),
        (rows("A", ""), "row 1 has no Value"),
        (rows("A", "  "), "row 1 has no Value"),
        (pd.DataFrame({"VoucherId": [VOUCHER], "Value": [7]}), "no text"),
        (rows("A", ValidityEndUtc=pd.Timestamp("2024-01-01")), "no time zone"),
        (rows("A").drop(columns="VoucherId"), "lacks the column VoucherId"),
        (pd.DataFrame({"VoucherId": ["x"], "Value": ["A"]}), "no UUID"),
    ],
)
def test_rows_that_cannot_be_added_are_refused(wanted: pd.DataFrame, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_add(wanted)


# ---- the digest, and saving ----


def test_the_same_codes_in_another_order_are_the_same_plan() -> None:
    frame = codes()
    shuffled = frame.sample(frac=1.0, random_state=1)
    assert plan_delete(shuffled).digest == plan_delete(frame).digest


def test_whatever_a_plan_would_do_is_in_its_digest() -> None:
    frame = codes()
    plans = [
        plan_delete(frame),
        plan_delete(frame, reason="again"),
        plan_delete(frame, environment="demo"),
        plan_delete(frame, tz="Europe/Prague"),
        plan_delete(frame.iloc[1:]),
        plan_add(frame[["VoucherId", "Value"]]),
    ]
    for column in frame.columns:
        other = frame.copy()
        if column == "ActivityState":
            other.loc[0, column] = "Deleted"
        elif column.endswith("Utc"):
            other.loc[0, column] += pd.Timedelta("1us")
        else:
            other.loc[0, column] = "11111111-1111-1111-1111-111111111111"
        plans.append(plan_delete(other))
    digests = [plan.digest for plan in plans]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
instants = st.none() | st.datetimes(
    pd.Timestamp("1900-01-01").to_pydatetime(), pd.Timestamp("9998-01-01").to_pydatetime()
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(texts.filter(str.strip), instants, instants),
        min_size=1,
        max_size=8,
        unique_by=lambda r: r[0],
    ),
    st.text(max_size=20),
)
def test_a_plan_is_the_same_after_save_and_load(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], reason: str
) -> None:
    path = tmp_path_factory.mktemp("plans") / "plan.parquet"
    values, starts, ends = zip(*records, strict=True)
    frame = rows(*values)
    for name, instants in (("ValidityStartUtc", starts), ("ValidityEndUtc", ends)):
        frame[name] = pd.Series(pd.array(list(instants), dtype="datetime64[us]")).dt.tz_localize("UTC")
    plan = plan_add(frame, reason=reason, environment="demo")
    loaded = Plan.load(plan.save(path))
    assert loaded.digest == plan.digest
    pd.testing.assert_frame_equal(loaded.frame, plan.frame)
    pd.testing.assert_frame_equal(loaded.checks, plan.checks)
    assert repr(loaded) == repr(plan)


def test_a_delete_plan_is_the_same_after_save_and_load_and_only_its_owner_reads_the_file(
    tmp_path: Path,
) -> None:
    frame = codes(50, deleted=0.3)
    zones = {voucher: "Pacific/Auckland" for voucher in frame["VoucherId"].unique()}
    plan = plan_delete(frame, reason="ü", tz=zones)
    path = plan.save(tmp_path / "new folder" / "plan.parquet")
    loaded = Plan.load(path)
    assert (loaded.digest, loaded.as_of, loaded.tz, len(loaded)) == (plan.digest, NOW, zones, 50)
    pd.testing.assert_frame_equal(loaded.frame, plan.frame)
    pd.testing.assert_frame_equal(loaded.checks, plan.checks)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_altered_is_no_plan_any_more(tmp_path: Path) -> None:
    path = plan_delete(codes()).save(tmp_path / "plan.parquet")
    table = pa.parquet.read_table(path)
    values = table.column("Value").to_pylist()
    column = table.schema.get_field_index("Value")
    altered = table.set_column(
        column, table.schema.field(column), pa.array(["OTHER", *values[1:]], pa.large_string())
    )
    pa.parquet.write_table(altered.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(PlanError, match="altered"):
        Plan.load(path)


def test_a_file_that_holds_no_plan_is_refused(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"Id": ["a"]}), tmp_path / "codes.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("codes.parquet", "broken.parquet"):
        with pytest.raises(InputError, match="holds no plan"):
            Plan.load(tmp_path / name)
    with pytest.raises(InputError, match=r"no file .*missing\.parquet"):
        Plan.load(tmp_path / "missing.parquet")


def test_a_reviewed_plan_cannot_be_changed_by_changing_its_frame() -> None:
    plan = plan_delete(codes())
    digest = plan.digest
    frame = plan.frame
    frame.loc[0, "Value"] = "OTHER"
    frame["Id"] = "OTHER"
    assert plan.digest == digest
    assert "OTHER" not in set(plan.frame["Value"])


# ---- how it looks ----


def test_a_panel_says_what_where_how_many_what_is_worrying_and_shows_a_sample() -> None:
    frame = codes(40, deleted=0.25)
    names = pd.DataFrame(
        {"Id": frame["VoucherId"].unique(), "Name": ["Summer", "Winter"], "TimeZone": ["Europe/Prague"] * 2}
    )
    plan = plan_delete(frame, reason="spring clean", tz=names)
    for text in (plan._repr_html_(), repr(plan)):
        for word in ("plan to delete 40 codes", "production", "spring clean", "2024-03-01 12:00 UTC"):
            assert word in text
        assert "Summer" in text
        assert "already deleted" in text
        assert str((plan.frame["Status"] == "deleted").sum()) in text
        assert frame["Value"].iloc[0] in text


def test_what_came_from_outside_is_escaped_in_a_panel() -> None:
    plan = plan_add(rows("<script>alert(1)</script>", "&amp;"), reason="<b>", environment="<i>")
    html = plan._repr_html_()
    assert "<script>" not in html
    assert "<b>&lt;b&gt;</b>" in html
    assert "&amp;amp;" in html
    assert "&lt;i&gt;" in html


def test_a_panel_of_many_vouchers_and_long_values_stays_short() -> None:
    frame = codes(300, vouchers=300)
    frame["Value"] = frame["Value"] + "x" * 110
    frame.attrs = codes().attrs
    text = repr(plan_delete(frame))
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) < 160
    assert "292 more" in text


def test_a_plan_without_worries_says_so() -> None:
    assert "Nothing to worry about" in repr(plan_add(rows("A"), environment="demo"))
