"""The cache: what it holds is what the server shows, it claims no more, and a refresh costs what changed."""

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import EFFORT, HandClock, make_codes

import vouchertools as vt
from vouchertools import cache_files, contract
from vouchertools.cache_files import LOCK_TIMEOUT_S, locked
from vouchertools.errors import CacheError, IncompleteReadError, InputError, ServerError
from vouchertools.pull import Pull
from vouchertools.refresh import MARGIN


class Place:
    """A sandbox with a hand-moved clock, a client and a cache."""

    def __init__(self, sandbox: vt.Sandbox, client: vt.Client, clock: HandClock, path: Path) -> None:
        self.sandbox, self.client, self.clock = sandbox, client, clock
        self.cache = vt.Cache(path)

    def refresh(self, voucher_ids: Any = None, **options: Any) -> pd.DataFrame:
        ids = self.sandbox.voucher_ids if voucher_ids is None else voucher_ids
        return self.cache.refresh(self.client, ids, progress=False, **options)

    @property
    def folder(self) -> Path:
        return self.cache.folder(self.client.environment)

    def requests(self) -> int:
        return sum(request.operation == "voucherCodes/getAll" for request in self.sandbox.requests)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    clock = HandClock()
    codes = make_codes(5_000, vouchers=4, days=400)
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None) as sandbox,
        sandbox.client(clock=clock, rate_limit=(10**6, 1.0)) as client,
    ):
        yield Place(sandbox, client, clock, tmp_path / "cache")


def assert_same(got: pd.DataFrame, truth: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        got.sort_values("Id", ignore_index=True), truth.sort_values("Id", ignore_index=True)
    )


def versions(folder: Path) -> dict[str, str]:
    """Which version of each file is there."""
    return {
        file.stem: json.loads(pq.read_schema(file).metadata[b"vouchertools"])["version"]
        for file in folder.glob("*.parquet")
    }


def test_the_first_refresh_reads_everything_and_reading_back_needs_no_network(place: Place) -> None:
    codes = place.refresh()
    assert_same(codes, place.sandbox.codes())
    before = len(place.sandbox.requests)
    again = place.cache.read()
    pd.testing.assert_frame_equal(again, codes)
    assert again.attrs == codes.attrs
    assert len(place.sandbox.requests) == before


def test_a_refresh_without_changes_costs_two_requests_and_writes_no_codes(place: Place) -> None:
    place.refresh()
    place.clock.forward(3600)
    files, before = versions(place.folder), place.requests()
    codes = place.refresh()
    assert place.requests() - before == 2
    assert versions(place.folder) == files
    assert pd.Timestamp(codes.attrs["read_utc"]) >= pd.Timestamp("2024-03-01T13:00Z")


def test_a_refresh_reads_what_changed_and_writes_only_the_touched_vouchers(place: Place) -> None:
    codes = place.refresh()
    place.clock.forward(3600)
    first = codes[codes["VoucherId"] == codes["VoucherId"].iloc[0]]
    place.sandbox.touch(first["Id"].head(3))
    place.sandbox.delete_codes(first["Id"].tail(2))
    place.sandbox.add_codes([(first["VoucherId"].iloc[0], "NEW")])
    place.clock.forward(60)
    files, before = versions(place.folder), place.requests()
    refreshed = place.refresh()
    assert place.requests() - before == 2
    changed = {name for name, version in versions(place.folder).items() if files[name] != version}
    assert changed == {first["VoucherId"].iloc[0]}
    assert_same(refreshed, place.sandbox.codes())


def test_the_watermark_lies_a_margin_before_the_read_so_that_late_commits_are_seen(place: Place) -> None:
    place.refresh()
    first = cache_files.read_stamp(place.folder, place.sandbox.voucher_ids[0], place.client.environment)
    assert first is not None
    assert first.watermark == first.read_utc - MARGIN
    before = place.sandbox.now()
    place.clock.forward(MARGIN.total_seconds() - 60)
    late = make_codes(1, seed=9).assign(VoucherId=place.sandbox.voucher_ids[0])
    place.sandbox.add_codes(late)
    place.refresh()
    second = cache_files.read_stamp(place.folder, place.sandbox.voucher_ids[0], place.client.environment)
    assert second is not None
    assert second.watermark < pd.Timestamp(before) < second.read_utc


def test_watermarks_in_the_notes_are_not_needed_for_a_right_result(place: Place) -> None:
    place.refresh()
    place.clock.forward(3600)
    place.refresh()
    place.sandbox.touch(place.sandbox.codes()["Id"].head(5))
    for text in (None, "no json", "[]"):
        notes = place.folder / "_watermarks.json"
        notes.unlink(missing_ok=True)
        if text is not None:
            notes.write_text(text)
        place.clock.forward(3600)
        assert_same(place.refresh(), place.sandbox.codes())


def test_new_vouchers_join_and_a_voucher_refreshed_alone_leaves_the_others_as_they_are(place: Place) -> None:
    one, *others = place.sandbox.voucher_ids
    place.refresh(others)
    files = versions(place.folder)
    place.clock.forward(3600)
    place.refresh([one])
    assert {name: version for name, version in versions(place.folder).items() if name != one} == files
    marks = [
        cache_files.read_stamp(place.folder, voucher_id, place.client.environment)
        for voucher_id in (one, others[0])
    ]
    assert marks[0] is not None
    assert marks[1] is not None
    assert marks[0].watermark - marks[1].watermark >= pd.Timedelta("1h")
    assert_same(place.refresh(), place.sandbox.codes())


def test_ids_in_another_case_mean_the_same_voucher(place: Place) -> None:
    place.refresh()
    codes = place.refresh([voucher_id.upper() for voucher_id in place.sandbox.voucher_ids])
    assert_same(codes, place.sandbox.codes())
    assert len(list(place.folder.glob("*.parquet"))) == len(place.sandbox.voucher_ids)


def test_a_watermark_ahead_of_the_server_forces_a_full_read(place: Place) -> None:
    place.clock.forward(86_400)
    place.refresh()
    place.clock.forward(-86_400)
    place.sandbox.touch(place.sandbox.codes()["Id"].head(5))
    before = place.requests()
    assert_same(place.refresh(), place.sandbox.codes())
    assert place.requests() - before > 5


def test_another_access_token_does_not_trust_what_the_first_one_saw(place: Place) -> None:
    place.refresh()
    with place.sandbox.client(portfolio=True, clock=place.clock, rate_limit=(10**6, 1.0)) as client:
        before = place.requests()
        assert_same(
            place.cache.refresh(client, place.sandbox.voucher_ids, progress=False), place.sandbox.codes()
        )
        assert place.requests() - before > 5


def test_a_full_refresh_reads_all_again_and_reports_what_the_increments_had_missed(place: Place) -> None:
    place.refresh()
    voucher_id = place.sandbox.voucher_ids[0]
    file = place.folder / f"{voucher_id}.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(3), file)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        codes = place.refresh(full=True)
    assert_same(codes, place.sandbox.codes())
    messages = " ".join(str(warning.message) for warning in warned)
    assert "3 codes that the cache had missed" in messages
    assert "could not be verified" in messages


def test_a_full_refresh_reports_what_was_missed_by_a_refresh_that_only_noted_its_watermark(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.refresh()
    place.clock.forward(86_400)
    place.sandbox.touch(place.sandbox.codes()["Id"].head(1))
    place.clock.forward(86_400)
    with monkeypatch.context() as blind:
        blind.setattr(place.client, "page", lambda *_, **__: contract.Page(contract.empty_table(), None))
        place.refresh()
    with (
        pytest.warns(UserWarning, match="could not be verified"),
        pytest.warns(UserWarning, match="found 1 codes that the cache had missed"),
    ):
        place.refresh(full=True)


def test_a_full_refresh_finds_codes_without_update_time_where_the_server_shows_them(tmp_path: Path) -> None:
    clock = HandClock()
    codes = make_codes(1_500, vouchers=2)
    codes.loc[:3, "UpdatedUtc"] = pd.NaT
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None, updated_required=False) as sandbox,
        sandbox.client(clock=clock) as client,
    ):
        cache = vt.Cache(tmp_path)
        assert len(cache.refresh(client, sandbox.voucher_ids, progress=False)) == 1_496
        with pytest.warns(UserWarning, match="4 codes that the cache had missed"):
            assert_same(
                cache.refresh(client, sandbox.voucher_ids, full=True, progress=False), sandbox.codes()
            )
        clock.forward(3600)
        assert_same(cache.refresh(client, sandbox.voucher_ids, progress=False), sandbox.codes())


def test_some_columns_and_some_vouchers_can_be_read(place: Place) -> None:
    place.refresh()
    one = place.sandbox.voucher_ids[1]
    frame = place.cache.read([one], columns=["Value", "Id"])
    assert list(frame.columns) == ["Value", "Id"]
    assert set(frame["Id"]) == set(place.sandbox.codes().query("VoucherId == @one")["Id"])


def test_the_folder_is_an_ordinary_data_set_that_only_its_owner_can_read(place: Place) -> None:
    codes = place.refresh()
    plain = pd.read_parquet(place.folder)
    assert_same(plain, codes)
    for path in place.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = b"".join(path.read_bytes() for path in place.folder.iterdir())
    for token in (place.sandbox.client_token, place.sandbox.access_token, place.sandbox.portfolio_token):
        assert token.encode() not in text


# ---- what goes wrong ----


def test_reading_what_was_never_cached_names_the_way_out(place: Place, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="Nothing is cached in"):
        place.cache.read()
    place.refresh(place.sandbox.voucher_ids[:1])
    with pytest.raises(CacheError, match=r"Voucher .* is not cached for sandbox-.*Call cache\.refresh"):
        place.cache.read(place.sandbox.voucher_ids)
    with pytest.raises(CacheError, match="Nothing is cached for production"):
        place.cache.read(environment="production")
    with pytest.raises(InputError, match="no column Colour"):
        place.cache.read(columns=["Colour"])


def test_of_several_environments_one_must_be_chosen(place: Place) -> None:
    place.refresh()
    shutil.copytree(place.folder, place.cache.folder("demo"))
    with pytest.raises(InputError, match="holds 2 environments: say environment="):
        place.cache.read()
    assert len(place.cache.read(environment=place.client.environment)) == 5_000


def test_files_of_another_environment_are_refused(place: Place) -> None:
    place.refresh()
    shutil.copytree(place.folder, place.cache.folder("demo"))
    with pytest.raises(CacheError, match=f"was made from {place.client.environment}, not from demo"):
        place.cache.read(environment="demo")


@pytest.mark.parametrize("keep", [0, 3, 500])
def test_a_file_cut_short_is_named_with_the_way_out_and_a_full_refresh_mends_it(
    place: Place, keep: int
) -> None:
    codes = place.refresh()
    file = place.folder / f"{place.sandbox.voucher_ids[0]}.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    others = {path: path.read_bytes() for path in place.folder.glob("*.parquet")}
    for attempt in (place.cache.read, place.refresh):
        with pytest.raises(CacheError, match=f"{file.name}.*cut short.*Delete it"):
            attempt()
    assert {path: path.read_bytes() for path in place.folder.glob("*.parquet")} == others
    with pytest.warns(UserWarning, match="could not be verified"):
        assert_same(place.refresh(full=True), codes)


@pytest.mark.skipif(os.name != "posix", reason="needs a path that nobody can write to")
def test_a_folder_that_cannot_be_written_is_one_clear_error(place: Place, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    before = place.requests()
    with pytest.raises(CacheError, match=r"cannot be written.*Choose another: vt\.Cache"):
        vt.Cache(blocker / "cache").refresh(place.client, place.sandbox.voucher_ids, progress=False)
    assert place.requests() == before


def test_a_full_disk_leaves_the_old_files_and_their_watermarks(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = place.refresh()
    place.clock.forward(3600)
    place.sandbox.touch(codes["Id"])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CacheError, match="No space left on device"):
            place.refresh()
    pd.testing.assert_frame_equal(place.cache.read(), codes)
    assert_same(place.refresh(), place.sandbox.codes())
    assert not list(place.folder.glob(".*.tmp"))


def test_a_pull_that_fails_leaves_the_cache_as_it_was(place: Place) -> None:
    codes = place.refresh()
    place.clock.forward(3600)
    place.sandbox.touch(codes["Id"])
    place.sandbox.faults.at_random({"500": 1.0})
    with pytest.raises(ServerError):
        place.refresh()
    place.sandbox.faults.off()
    pd.testing.assert_frame_equal(place.cache.read(), codes)
    assert_same(place.refresh(), place.sandbox.codes())


def test_two_programs_refresh_one_after_the_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files, "LOCK_TIMEOUT_S", 0.1)
    with locked(place.folder), pytest.raises(CacheError, match="Another program has been refreshing"):
        place.refresh()
    assert LOCK_TIMEOUT_S > 60
    monkeypatch.undo()
    results: list[pd.DataFrame] = []
    threads = [threading.Thread(target=lambda: results.append(place.refresh())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(results[0], place.sandbox.codes())
    pd.testing.assert_frame_equal(results[0], results[1])


def test_a_refresh_asks_for_ids_first() -> None:
    with (
        vt.Sandbox() as sandbox,
        sandbox.client() as client,
        pytest.raises(InputError, match="never means all"),
    ):
        vt.Cache("somewhere").refresh(client, [])


# ---- killed ----

KILLED = """
import sys, vouchertools as vt
from vouchertools import pull
pull.Pull.__init__.__kwdefaults__["checkpoint_s"] = 0.0
address, client_token, access_token, path, *ids = sys.argv[1:]
client = vt.Client(address, client_token, access_token, rate_limit=(10**6, 1.0))
print("ready", flush=True)
vt.Cache(path).refresh(client, ids, progress=False, workers=2)
print("done", flush=True)
"""


@pytest.mark.parametrize("delay_s", np.random.default_rng(7).uniform(0.02, 0.9, 4 * EFFORT).round(3))
def test_killed_at_any_instant_the_cache_is_readable_claims_no_more_than_it_has_and_goes_on(
    tmp_path: Path, delay_s: float
) -> None:
    codes = make_codes(6_000, vouchers=2, start="2016-01-01", days=2_800)
    with vt.Sandbox(codes, rate_limit=None) as sandbox, sandbox.client(rate_limit=(10**6, 1.0)) as client:
        environment = client.environment
        sandbox.faults.latency_ms = 15.0
        arguments = [sandbox.address, sandbox.client_token, sandbox.access_token, str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments, *sandbox.voucher_ids],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        threading.Event().wait(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        truth = sandbox.codes()
        cache = vt.Cache(tmp_path)
        for voucher_id in sandbox.voucher_ids:
            file = cache_files.file_of(cache.folder(environment), voucher_id)
            stamp = cache_files.read_stamp(cache.folder(environment), voucher_id, environment)
            if stamp is None:
                continue
            held = pq.read_table(file).to_pandas()
            claimed = truth[(truth["VoucherId"] == voucher_id) & (truth["UpdatedUtc"] <= stamp.watermark)]
            assert set(claimed["Id"]) <= set(held["Id"])
            if not stamp.complete:
                with pytest.raises(CacheError, match="only partly cached"):
                    cache.read([voucher_id])
        sandbox.faults.off()
        assert_same(cache.refresh(client, sandbox.voucher_ids, progress=False), truth)


def test_a_full_read_whose_last_walk_was_disturbed_writes_nothing(tmp_path: Path) -> None:
    clock = HandClock()
    codes = make_codes(2_500, days=400)
    with (
        vt.Sandbox(codes, clock=clock, rate_limit=None, updated_required=False) as sandbox,
        sandbox.client(clock=clock, rate_limit=(10**6, 1.0)) as client,
    ):
        place = Place(sandbox, client, clock, tmp_path / "cache")
        place.refresh(full=True)
        files, asked = versions(place.folder), client.page
        clock.forward(3600)

        def page(*args: Any, **options: Any) -> Any:
            if options["updated"] is None and options.get("cursor"):
                sandbox.touch([options["cursor"]])
            return asked(*args, **options)

        client.page = page  # type: ignore[method-assign]
        with pytest.raises(IncompleteReadError, match="walk without UpdatedUtc"):
            place.refresh(full=True)
        assert versions(place.folder) == files


class Killed(BaseException):
    """The process is gone: nothing more is sent or written."""


@settings(max_examples=25 * EFFORT, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([1, 5, 30, 60]),
    vouchers=st.sampled_from([1, 2, 4]),
    spread=st.sampled_from([("2024-03-01 11:59:50", 0.0001), ("2022-01-01", 300), ("2024-02-25", 1)]),
    count=st.sampled_from([1, 2, 3, 7, 1000]),
    checkpoint_s=st.sampled_from([0.0, 0.5, 10.0]),
    rate=st.sampled_from([0.5, 1, 3]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 30),  # changes while it reads
            st.none() | st.integers(1, 120),  # the request at which it is killed
            st.sampled_from([0, 0.5, 5, 60, 700, 3600, 86_400 * 100]),  # seconds until the next
        ),
        max_size=4,
    ),
    switches=strategies.SWITCHES,
)
def test_whatever_changes_and_breaks_off_on_the_way_the_cache_ends_as_what_the_server_shows(
    seed: int,
    n: int,
    vouchers: int,
    spread: tuple[str, float],
    count: int,
    checkpoint_s: float,
    rate: float,
    steps: list[tuple[int, int | None, float]],
    switches: dict[str, str],
) -> None:
    clock, chance = HandClock(), random.Random(seed)
    codes = make_codes(n, vouchers=vouchers, start=spread[0], days=spread[1], seed=seed)
    codes["UpdatedUtc"] = codes["UpdatedUtc"].clip(upper=pd.Timestamp(clock()) - pd.Timedelta("1s"))
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        vt.Sandbox(codes, clock=clock, rate_limit=None, **switches) as sandbox,
        sandbox.client(clock=clock, rate_limit=(10**6, 1.0)) as client,
    ):
        patch.setitem(Pull.__init__.__kwdefaults__, "count", count)
        patch.setitem(Pull.__init__.__kwdefaults__, "checkpoint_s", checkpoint_s)
        sandbox.faults.mutate(rate, seed=seed)
        mutate, changes, requests, last = sandbox.faults.on_page, 0, 0, None

        def on_page(server: Any, number: int) -> None:
            nonlocal changes
            clock.forward(chance.choice([0, 0.001, 0.3, 2]))
            if changes > 0:
                changes -= 1
                mutate(server, number)

        def page(*args: Any, **options: Any) -> Any:
            nonlocal requests
            requests += 1
            if last is not None and requests >= last:
                raise Killed
            return vt.Client.page(client, *args, **options)

        sandbox.faults.on_page = on_page
        patch.setattr(client, "page", page)
        cache = vt.Cache(folder)
        for step in steps:
            changes, last, pause_s = step
            requests, before = 0, sandbox.codes()
            ids = chance.sample(sandbox.voucher_ids, chance.randint(1, len(sandbox.voucher_ids)))
            with contextlib.suppress(Killed):
                got = cache.refresh(client, ids, workers=2, progress=False)
                assert set(before[before["VoucherId"].isin(ids)]["Id"]) <= set(got["Id"])
            clock.forward(pause_s)
        changes, last = 0, None
        assert_same(cache.refresh(client, sandbox.voucher_ids, workers=2, progress=False), sandbox.codes())


def test_a_broken_first_pull_goes_on_where_the_last_contiguous_write_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Pull.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "checkpoint_s", -1.0)
    place.sandbox.faults.on_page = lambda server, number: place.clock.forward(1)
    place.sandbox.faults.latency_ms = 5.0
    pages = {"n": 0}

    def fail_late(server: vt.Sandbox, number: int) -> None:
        pages["n"] = number
        if number == 60:
            server.faults.at_random({"401": 1.0})

    place.sandbox.faults.on_page = fail_late
    with pytest.raises(PermissionError):
        place.refresh(workers=1)
    place.sandbox.faults.off()
    stamps = [
        cache_files.read_stamp(place.folder, voucher_id, place.client.environment)
        for voucher_id in place.sandbox.voucher_ids
    ]
    assert all(stamp is not None and not stamp.complete for stamp in stamps)
    before = place.requests()
    assert_same(place.refresh(), place.sandbox.codes())
    assert place.requests() - before < 40
