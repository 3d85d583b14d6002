"""`roadside bench perllm` with little of everything: every row is there, and the figures belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from roadside.benchmarks.perllm import PerllmPlan, measure_perllm
from roadside.benchmarks.perllm_plot import plot_perllm

pytest.importorskip("scipy", reason="SciPy solves the linear program; it comes with roadside[train]")


@pytest.fixture(scope="module")
def result():
    return json.loads(json.dumps(measure_perllm(PerllmPlan(seeds=2, cell_seeds=1, requests=60))))


def test_every_policy_stands_beside_cloud_only_and_the_bound(result):
    rows = {row["policy"]: row for row in result["rows"]}
    assert rows.keys() >= {
        *("cloud-only", "edge-only", "random", "jsq", "greedy-delay", "greedy-utility", "shadow-price"),
        *("cs-ucb", "cs-ucb-predicted", "linucb", "active-inference", "lp-bound"),
    }
    assert [name for name, row in rows.items() if row["bound"]] == ["lp-bound"]
    assert rows["cloud-only"]["throughput_ratio"] == 1.0
    assert rows["cloud-only"]["cloud_share"] == 1.0
    assert rows["edge-only"]["cloud_share"] == 0.0
    assert rows["lp-bound"]["energy_bound_ratio"] == 1.0
    for row in rows.values():
        assert 0 <= row["success_share"] <= 1
        assert row["joules_per_request"] > 0
        # So few requests deviate from their mean service times together; 5% is more than they can.
        assert row["throughput_ratio"] <= 1.05 * rows["lp-bound"]["throughput_ratio"]
        assert row["seeds"] == 2


def test_every_cell_of_the_paper_and_its_table(result):
    models = ["Yi-6B", "LLaMA2-7B", "LLaMA3-8B", "Yi-9B"]
    cells = {(row["network"], row["model"]) for row in result["cells"]}
    both = {(network, model) for network in ("stable", "fluctuating") for model in models}
    assert cells == both | {("fluctuating", "headline")}
    table = {row["method"]: row for row in result["table_1"]}
    assert table["PerLLM (published)"] == {
        "method": "PerLLM (published)",
        **dict(zip(models, (98.0, 99.0, 98.0, 97.0), strict=True)),
    }
    of_model = [
        100 * row["success_share"] for row in result["cells"] if (row["model"], row["policy"]) == ("Yi-9B", "jsq")
    ]
    assert table["jsq"]["Yi-9B"] == pytest.approx(sum(of_model) / 2)


def test_the_figures_are_drawn(result, tmp_path: Path):
    written = plot_perllm(result, tmp_path / "plots")
    assert len(written) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
