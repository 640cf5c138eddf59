"""Whatever goes wrong: each code is changed once, and what is reported is what the server has."""

import os
from pathlib import Path

import pytest
from bulk.kills import Nursery, kill_and_finish
from bulk.schedule import run_schedule

from vouchertools.bulk import work


@pytest.mark.parametrize("seeds", [range(first, first + 5) for first in range(0, 15, 5)])
def test_any_schedule_of_faults_kills_and_colleagues_changes_each_code_once(
    seeds: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_ITEMS", 10)
    outcomes = [run_schedule(seed, tmp_path) for seed in seeds]
    assert [mistake for outcome in outcomes for mistake in outcome.mistakes] == []
    assert sum(outcome.rows for outcome in outcomes) == sum(sum(o.outcomes.values()) for o in outcomes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a killed process is forked")
def test_a_run_killed_at_any_instant_is_finished_from_a_copy_of_its_journal(tmp_path: Path) -> None:
    with Nursery() as nursery:
        kills = [kill_and_finish(nursery, seed, tmp_path) for seed in range(8)]
    assert [mistake for kill in kills for mistake in kill.mistakes] == []
    assert sum(kill.left.get("Done", 0) > 0 or kill.left.get("Unknown", 0) > 0 for kill in kills) >= 3
