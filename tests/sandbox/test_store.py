"""Pages against brute force: whichever index serves them, they are what a plain sort would give."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vouchertools.sandbox import store as module
from vouchertools.sandbox.store import NewRow, Row, Store, Wanted
from vouchertools.sandbox.times import NEVER

INSTANTS = st.sampled_from([NEVER, -5, 0, 1, 2, 3, 4, 5, 10**15])
ROWS = st.lists(st.tuples(st.integers(0, 5), INSTANTS, INSTANTS), max_size=40)
PATHS = {
    "by the order of all codes": {"FEW_IN_INTERVAL": -1, "LARGE_SHARE": 0.0},
    "voucher by voucher": {"FEW_IN_INTERVAL": -1, "LARGE_SHARE": 2.0},
    "by interval": {"FEW_IN_INTERVAL": 10**9, "LARGE_SHARE": 0.0},
}


def make_rows(parts: list[tuple[int, int, int]]) -> list[NewRow]:
    return [
        (
            f"{number:08x}-0000-0000-0000-00000000000A",
            voucher,
            f"V{number}",
            NEVER,
            NEVER,
            created,
            updated,
            1,
        )
        for number, (voucher, created, updated) in enumerate(parts)
    ]


def brute_force(rows: list[Row], wanted: Wanted, at: int) -> list[Row]:
    kept = [
        row
        for row in rows
        if row[2] in wanted.vouchers
        and (wanted.low is None or wanted.high is None or wanted.low <= row[7] <= wanted.high)
        and (wanted.ids is None or row[1] in wanted.ids)
    ]
    return sorted(kept, key=lambda row: (row[at], row[0]), reverse=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("order", ["updated", "created"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), parts=ROWS, count=st.integers(1, 7))
def test_walk_is_a_plain_sort(
    monkeypatch: pytest.MonkeyPatch, order: Any, path: str, data: st.DataObject, parts: list[Any], count: int
) -> None:
    for name, value in PATHS[path].items():
        monkeypatch.setattr(module, name, value)
    store = Store(None, order=order)
    half = len(parts) // 2
    rows = make_rows(parts)
    store.load(rows[:half])
    if rows[half:]:
        store.add(rows[half:])
    bounds = data.draw(st.one_of(st.just((None, None)), st.tuples(INSTANTS, INSTANTS)))
    ids = data.draw(
        st.one_of(
            st.none(), st.lists(st.sampled_from([row[0] for row in rows]), unique=True) if rows else st.none()
        )
    )
    wanted = Wanted(data.draw(st.lists(st.integers(0, 6), unique=True)), *bounds, ids)
    expected = brute_force(store.rows(), wanted, 7 if order == "updated" else 6)
    walked: list[Row] = []
    after = None
    while page := store.page(wanted, after=after, count=count):
        assert len(page) <= count
        walked += page
        after = store.place(page[-1])
    store.close()
    assert walked == expected


def test_lookup_takes_ids_in_any_case() -> None:
    store = Store(None, order="updated")
    store.load(make_rows([(0, 1, 2)]))
    wanted = "00000000-0000-0000-0000-00000000000"
    assert store.find([wanted + "a", wanted + "b"]) == {wanted + "a": store.rows()[0]}
    assert store.page(Wanted([0], ids=[wanted + "a"]), after=None, count=5) == store.rows()
    store.close()


def test_a_failed_transaction_leaves_nothing() -> None:
    store = Store(None, order="updated")
    store.load(make_rows([(0, 1, 2)]))
    rows = make_rows([(0, 1, 2), (1, 1, 2)])
    with pytest.raises(module.sqlite3.IntegrityError):
        store.add(rows[::-1])
    assert len(store.rows()) == 1
    store.close()
