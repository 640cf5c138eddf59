"""Cutting walks and merging pages: pure decisions."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import make_codes

from vouchertools import contract
from vouchertools.contract import Interval
from vouchertools.errors import IncompleteReadError
from vouchertools.walk import MAX_ATTEMPTS, Position, Scope, Walk, again, divide, merge, scopes

A, B, C = (f"00000000-0000-4000-8000-00000000000{i}" for i in range(3))
START = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2024, 2, 1, tzinfo=UTC)
WALK = Walk(Scope((A, B)), Interval(START, END))


def page(times: list[datetime], voucher_id: str = A) -> pa.Table:
    codes = make_codes(len(times)).assign(UpdatedUtc=pd.DatetimeIndex(times), VoucherId=voucher_id)
    return contract.to_arrow(codes)


def seen(*pages: pa.Table) -> Position:
    position = Position()
    for table in pages:
        position.see(table)
    return position


def back(from_: datetime, step: timedelta, n: int = 10) -> list[datetime]:
    return [from_ - step * i for i in range(n)]


@given(vouchers=st.integers(1, 2500), enterprises=st.integers(0, 3), codes=st.integers(0, 1500))
def test_scopes_cover_every_combination_once_and_never_hold_more_than_a_call_takes(
    vouchers: int, enterprises: int, codes: int
) -> None:
    parts = scopes(
        [f"v{i}" for i in range(vouchers)],
        [f"e{i}" for i in range(enterprises)] or None,
        [f"c{i}" for i in range(codes)] or None,
    )
    assert all(
        len(ids or ()) <= 1000 for p in parts for ids in (p.voucher_ids, p.enterprise_ids, p.voucher_code_ids)
    )
    sizes = [
        len(p.voucher_ids) * len(p.enterprise_ids or "x") * len(p.voucher_code_ids or "x") for p in parts
    ]
    assert sum(sizes) == vouchers * max(1, enterprises) * max(1, codes)


def test_a_walk_without_progress_is_cut_in_time_then_by_voucher_then_walked_again_as_it_is() -> None:
    older, newer = again(WALK, "why")
    assert older.interval.end == newer.interval.start
    assert (older.interval.start, newer.interval.end) == (START, END)
    second = Walk(Scope((A, B)), Interval(START, START + timedelta(seconds=1)))
    assert [walk.scope.voucher_ids for walk in again(second, "why")] == [(A,), (B,)]
    alone = Walk(Scope((A,)), second.interval)
    assert [(walk.scope, walk.interval) for walk in again(alone, "why")] == [(alone.scope, alone.interval)]


def test_a_timeout_halves_the_page_too() -> None:
    assert {walk.count for walk in again(WALK, "408", smaller_pages=True)} == {500}


def test_a_walk_is_not_tried_for_ever() -> None:
    walk = WALK
    for _ in range(MAX_ATTEMPTS):
        walk = again(walk, "the cursor x was answered twice")[0]
    with pytest.raises(IncompleteReadError, match="the cursor x was answered twice"):
        again(walk, "the cursor x was answered twice")


def test_a_long_walk_keeps_its_cursor_and_hands_over_what_is_older() -> None:
    table = page(back(END, timedelta(hours=1)))
    cut = divide(WALK, seen(table), idle=True)
    assert cut is not None
    kept, cursor_stays, handed = cut
    oldest = table.column("UpdatedUtc")[-1].as_py()
    assert cursor_stays
    assert kept.interval.start <= oldest
    assert (handed.interval.start, handed.interval.end) == (START, kept.interval.start)
    assert kept.interval.end == END


def test_a_walk_that_is_nearly_done_is_not_cut() -> None:
    assert divide(WALK, seen(page(back(END, timedelta(days=3)))), idle=True) is None


def test_codes_of_one_second_are_divided_by_voucher_and_the_cursor_stays_with_its_own() -> None:
    moment = START + timedelta(seconds=1)
    walk = Walk(Scope((A, B)), Interval(START, END))
    cut = divide(walk, seen(page([moment] * 5, voucher_id=B)), idle=True)
    assert cut is not None
    kept, cursor_stays, handed = cut
    assert (kept.scope.voucher_ids, handed.scope.voucher_ids, cursor_stays) == ((B,), (A,), True)
    assert kept.interval == handed.interval == walk.interval


def test_codes_of_one_second_and_one_voucher_cannot_be_divided() -> None:
    walk = Walk(Scope((A,)), Interval(START, END))
    assert divide(walk, seen(page([START + timedelta(seconds=1)] * 5)), idle=True) is None


def test_pages_in_another_order_are_cut_in_their_middle_and_the_cursor_stays_only_where_it_lies() -> None:
    times = back(END, timedelta(days=2))
    for last in (times[0], times[-1]):
        mixed = [t for t in times[::2] + times[1::2] if t != last] + [last]
        cut = divide(WALK, seen(page(mixed)), idle=True)
        assert cut is not None
        kept, cursor_stays, handed = cut
        assert kept.interval.start == handed.interval.end
        assert cursor_stays == (last >= kept.interval.start)


def test_a_second_page_in_another_order_is_not_cut() -> None:
    mixed = page([END, START, END - timedelta(days=1)])
    assert divide(WALK, seen(mixed, mixed), idle=True) is None


@given(
    seconds=st.lists(st.integers(0, 31 * 86400), min_size=1, max_size=30),
    sort=st.booleans(),
    vouchers=st.sampled_from([(A,), (A, B), (A, B, C)]),
)
def test_no_cut_ever_loses_or_widens_anything(
    seconds: list[int], sort: bool, vouchers: tuple[str, ...]
) -> None:
    times = [START + timedelta(seconds=s) for s in (sorted(seconds, reverse=True) if sort else seconds)]
    walk = Walk(Scope(vouchers), Interval(START, END))
    cut = divide(walk, seen(page(times)), idle=True)
    if cut is None:
        return
    kept, cursor_stays, handed = cut
    if kept.scope == handed.scope == walk.scope:
        assert (handed.interval.start, kept.interval.end) == (START, END)
        assert handed.interval.end == kept.interval.start
        assert handed.interval != walk.interval
        assert kept.interval != walk.interval
        assert not cursor_stays or times[-1] >= kept.interval.start
    else:
        assert kept.interval == handed.interval == walk.interval
        assert sorted(kept.scope.voucher_ids + handed.scope.voucher_ids) == sorted(vouchers)
        assert cursor_stays
        assert A in kept.scope.voucher_ids


@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=8), max_size=5))
def test_merge_keeps_each_id_once_its_newest_state_and_of_equal_ones_the_later_read(
    reads: list[list[tuple[int, int]]],
) -> None:
    known = make_codes(7)["Id"]
    tables, expected = [], {}
    for number, rows in enumerate(reads):
        rows = list({code: (code, second) for code, second in rows}.values())
        codes = make_codes(len(rows)).assign(
            Id=[known[code] for code, _ in rows],
            Value=[f"{number}" for _ in rows],
            UpdatedUtc=pd.DatetimeIndex([START + timedelta(seconds=s) for _, s in rows], tz="UTC"),
        )
        tables.append(contract.to_arrow(codes))
        for code, second in rows:
            expected[known[code]] = max(expected.get(known[code], (-1, -1)), (second, number))
    merged = merge(tables, range(len(tables)))
    assert merged.schema.equals(contract.SCHEMA)
    got = {
        row["Id"]: (int((row["UpdatedUtc"] - START).total_seconds()), int(row["Value"]))
        for row in merged.to_pylist()
    }
    assert got == expected
    assert merged.num_rows == len(expected)


def test_a_code_without_update_time_is_older_than_any() -> None:
    codes = make_codes(1)
    without = codes.assign(UpdatedUtc=pd.DatetimeIndex([pd.NaT], tz="UTC").as_unit("us"), Value="old")
    merged = merge([contract.to_arrow(codes), contract.to_arrow(without)], [0, 1])
    assert merged.column("Value").to_pylist() == ["C-0000000"]
