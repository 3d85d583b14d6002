"""The poison bench: what is compared, and that the stranger is heard."""

from __future__ import annotations

import numpy as np
import pytest
from roadside.benchmarks.poison import latency_ratios

from .bench_process import bench_json


def test_ratios_of_percentiles_come_with_how_sure_they_are():
    draw = np.random.default_rng(1)
    clean = draw.gamma(4.0, 25.0, 2000)
    ratios = latency_ratios(list(clean), list(clean * 1.2))
    assert ratios["poison_latency_p50"] == pytest.approx(1.2)
    for name in ("p50", "p90", "p99"):
        assert ratios[f"poison_latency_{name}_low95"] < 1.2 < ratios[f"poison_latency_{name}_high95"]
    few = latency_ratios(list(clean[:60]), list(clean[:60] * 1.2))
    assert few["poison_latency_p99_high95"] > ratios["poison_latency_p99_high95"], "of few answers little is known"
    assert latency_ratios([], [1.0]) == {}


@pytest.mark.slow
def test_a_quick_poisoning_of_a_real_fleet() -> None:
    found = bench_json("poison", "--quick")
    clean, poisoned = found["rows"]
    assert (clean["poisoned"], poisoned["poisoned"]) == (False, True)
    assert clean["answers"] > 5
    assert poisoned["answers"] > 5
    assert found["ratios"]["poison_latency_p50"] > 0
