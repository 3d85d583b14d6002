"""`roadside bench policy` with little of everything: rows, paired differences, and the tables that a person reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from roadside.benchmarks.policy import PolicyPlan, measure_policy, plan_of
from roadside.benchmarks.policy_cells import Cell, PolicyJob, contenders, run_job
from roadside.benchmarks.policy_plot import plot_policy
from roadside.benchmarks.policy_tables import tables_of
from roadside.benchmarks.rival_settings import IN_PERLLM, TRIED
from roadside.bus.errors import ConfigurationError
from roadside.policy.registry import PolicyOptions
from roadside.verbs.options import print_bench

PLAN = replace(PolicyPlan(), edges=(3, 5), heartbeats_s=(0.0, 0.5), seeds=2, tasks=40)


@pytest.fixture(scope="module")
def result():
    return json.loads(json.dumps(measure_policy(PLAN)))


def test_every_policy_in_every_cell_with_the_constants_hash(result):
    cells = {(row["policy"], row["heartbeat_s"], row["edges"]) for row in result["rows"]}
    assert cells == {(name, beat, n) for name in contenders() for beat in PLAN.heartbeats_s for n in PLAN.edges}
    assert result["settings"]["constants_sha256"] == PLAN.base.constants().sha256
    shares = [row["place_shares"] for row in result["rows"]]
    assert all(sum(share.values()) == pytest.approx(1.0) for share in shares)


def test_a_row_is_the_mean_of_its_seeds(result):
    row = next(row for row in result["rows"] if (row["policy"], row["heartbeat_s"], row["edges"]) == ("jsq", 0.5, 5))
    runs = [run_job(PolicyJob(Cell(), "jsq", seed, 40)) for seed in (101, 102)]
    assert row["utility"] == pytest.approx(fmean(run.utility for run in runs))
    assert row["in_time_share"] == pytest.approx(fmean(run.in_time_share for run in runs))


def test_a_clairvoyant_needs_no_heartbeats(result):
    rows = [row for row in result["rows"] if row["policy"] == "clairvoyant" and row["edges"] == 5]
    assert len({row["utility"] for row in rows}) == 1


def test_decisions_are_timed_with_few_candidates_and_with_many(result):
    timed = {(row["policy"], row["candidates"]): row["decision_ms_p50"] for row in result["decisions"]}
    assert timed.keys() == {(name, n) for name in contenders() if name != "clairvoyant" for n in (7, 128)}
    assert all(ms > 0 for ms in timed.values())
    assert result["ratios"]["step_us_p50"] > 0


def test_a_person_sees_the_headline_and_every_heartbeat(result, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    print_bench(tables_of(result), as_json=False)
    shown = capsys.readouterr().out
    assert "utility with 3 edges, by heartbeat" in shown
    assert "greedy-utility, in flight vehicle" in shown


def test_the_picture_is_drawn(result, tmp_path: Path):
    assert plot_policy(result, tmp_path / "plots").read_bytes().startswith(b"\x89PNG")


def test_the_first_of_what_is_asked_for_is_the_headline():
    plan = plan_of(file=None, scenario="collaborative", rate_hz=5.0, edges=[2, 4], heartbeats_s=[1.0])
    assert plan.cells()[0] == plan.base == Cell(heartbeat_s=1.0, edges=2, rate_hz=5.0, scenario="collaborative")
    with pytest.raises(ConfigurationError, match="headline, collaborative"):
        plan_of(file=None, scenario="other", rate_hz=5.0, edges=None, heartbeats_s=None)
    with pytest.raises(ConfigurationError, match="cannot read"):
        plan_of(file=Path("/no/such/file"), scenario="headline", rate_hz=5.0, edges=None, heartbeats_s=None)


def test_every_setting_that_is_tried_makes_a_policy():
    for rivals in TRIED.values():
        for rival in rivals:
            assert rival.build(PolicyOptions()).name == rival.policy
    for name, rival in IN_PERLLM.items():
        assert any(set(rival.settings) <= set(tried.settings) for tried in TRIED["perllm"] if tried.policy == name), (
            name
        )
