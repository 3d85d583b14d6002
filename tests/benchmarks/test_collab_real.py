"""The collaboration bench's processes, on a real broker and behind the shaping proxy."""

from __future__ import annotations

import pytest
from roadside.benchmarks.collab_model import TracingModel
from roadside.benchmarks.collab_real import compare, real_goals, run_real
from roadside.benchmarks.collab_timing import measured_profile
from roadside.benchmarks.collab_traces import TraceLibrary
from roadside.datasets.evaluation_scenes import rendered_scenes

SCENES = 3


@pytest.mark.slow
def test_processes_say_what_the_virtual_clock_says(tmp_path):
    model = TracingModel()
    scenes = list(TraceLibrary(model, tmp_path / "traces").scenes(rendered_scenes(SCENES)))
    told: list[int] = []
    real = run_real(scenes, told.append)
    lines = compare(real, scenes, measured_profile(model, scenes))
    assert sum(told) >= SCENES
    assert {line["mode"] for line in lines} == {"ce", "ce-optimistic", "through"}
    for line in lines:
        assert line["same_words"] == 1
        assert line["answers"] == SCENES
        assert line["real_ms"] >= line["real_edge_ms"] > 0
    assert real.bus_ms > 0
    assert real.message_ms > 0
    assert [goal["goal"] for goal in real_goals(real, lines)] == ["at most 0.15", "at most 0.15", "at most 0.25"]
