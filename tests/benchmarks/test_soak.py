"""The soak: what counts as growth, and a short one of a real fleet."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
from roadside.benchmarks.soak_samples import Sample, Samples, memory_slope, metric_value, process_row, ratio, worst

from .bench_process import bench_json


def samples(mb_per_h: float, *, noise_mb: float, seconds: int = 3600) -> list[Sample]:
    """Every 5 s; the first minutes of a process grow fast, whatever comes later."""
    draw = random.Random(1)
    return [
        Sample(at_s, round(1e6 * (100 + min(at_s, 600) / 60 + mb_per_h * at_s / 3600 + draw.gauss(0, noise_mb))), 9)
        for at_s in range(0, seconds, 5)
    ]


def test_a_slope_is_found_behind_noise_and_the_warm_up_is_left_out():
    for mb_per_h in (0.0, 1.0, 20.0):
        slope = memory_slope(samples(mb_per_h, noise_mb=1.0), warm_up_s=720, stretch_s=288)
        assert slope is not None
        assert slope.half_width is not None
        assert abs(slope.value - mb_per_h) <= 1.5 * slope.half_width
        assert slope.half_width < 2


def test_too_little_says_nothing():
    assert memory_slope(samples(1.0, noise_mb=0.0, seconds=60), warm_up_s=0, stretch_s=30) is None
    assert process_row("edge-1", Samples(), warm_up_s=0, stretch_s=5)["memory_mb_per_h"] is None


def test_a_process_that_was_started_anew_begins_anew():
    taken = Samples()
    taken.take(os.getpid(), 0.0)
    taken.take(os.getpid(), 5.0)
    assert (len(taken.taken), taken.lives) == (2, 1)
    assert taken.taken[0].rss_bytes > 1e6
    assert taken.taken[0].descriptors > 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    taken.take(ended.pid, 10.0)
    assert (len(taken.taken), taken.lives) == (0, 2), "and of one that is no more nothing is taken"


def test_ratios_and_metrics_of_nothing_are_nothing():
    assert ratio(None, 1.0) is None
    assert ratio(0.0, 1.0) is None
    assert ratio(2.0, 3.0) == 1.5
    assert worst([{"x": 1.0}, {"x": None}, {"x": 3.0}], "x") == 3.0
    assert worst([{"x": None}], "x") is None
    page = "# HELP roadside_contexts The node's contexts.\nroadside_contexts 3.0\nroadside_context_bytes 12.0\n"
    assert metric_value(page, "roadside_contexts") == 3.0
    assert metric_value(page, "roadside_sessions") is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_minutes_of_a_real_fleet() -> None:
    found = bench_json("soak", "--minutes", "3")
    print(json.dumps(found))
    assert [fault["fault"] for fault in found["faults"]] == ["edge-2 killed", "cloud-1 stopped"]
    assert found["tasks"]["created"] > 50
    assert found["tasks"]["lost"] == found["tasks"]["duplicate_visible"] == found["tasks"]["stale_shown"] == 0
    assert found["contexts_left"] == 0
    lives = {row["process"]: row["lives"] for row in found["rows"]}
    assert {name for name, times in lives.items() if times > 1} == {"edge-2"}
    for row in found["rows"]:
        assert row["memory_mb_per_h"] is not None
        if row["lives"] == 1:
            # The recorder and the broker hold a connection more or less when an edge comes back.
            assert abs(row["descriptors_last"] - row["descriptors_first"]) <= 3
