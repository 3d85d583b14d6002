"""The capacity bench: what keeps up, what a queue's slope is, and one short measurement of a real fleet."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from roadside.benchmarks.capacity import keeps_up, queue_by_stretch
from roadside.benchmarks.loaded_fleet import Stage
from roadside.bus.messages import Load, NodeState, Outcome, TaskState
from roadside.qos.intervals import slope_95
from roadside.qos.ledger import Ledger, RecordedState
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.run import RunDirectory

from .. import plain_messages
from .bench_process import bench_json

_STATE = RecordedState(0.0, "edge-1", "edge", True, "small", "", 1.0, 0.0, 1, queued=0)


def outcome(latency_ms: float, state: TaskState = "result") -> Outcome:
    return msgspec.structs.replace(
        plain_messages.OUTCOME,
        task_id="task",
        state=state,
        text="",
        created_at_s=0.0,
        mode="",
        latency_ms=latency_ms,
        first_answer_ms=latency_ms,
        network_ms=0.0,
        energy_j=0.0,
        clip="",
        moment_s=0.0,
    )


def stage(results: int, latency_ms: float, *, fallbacks: int = 0) -> Stage:
    outcomes = [outcome(latency_ms)] * results + [outcome(1975.0, "fallback")] * fallbacks
    return Stage(0.0, 10.0, {"vehicle-1": outcomes})


def test_what_a_stage_came_to() -> None:
    measured = stage(60, 50.0, fallbacks=40)
    assert (measured.tasks_per_s, measured.goodput_per_s, measured.in_time_share) == (10.0, 6.0, 0.6)
    # A fallback is no answer of the fleet, and its time is the deadline's.
    assert measured.latency_ms["p99"] == 50.0


def test_who_keeps_up() -> None:
    first = stage(40, 50.0)
    assert keeps_up(first, first)
    assert keeps_up(stage(200, 149.0), first)
    assert not keeps_up(stage(200, 151.0), first), "the answers are too slow"
    assert keeps_up(stage(190, 50.0, fallbacks=10), first)
    assert not keeps_up(stage(189, 50.0, fallbacks=11), first), "too few of them"
    assert not keeps_up(stage(0, 50.0, fallbacks=10), first)


def states(queue: Callable[[float], float], seconds: int) -> list[RecordedState]:
    """Two nodes that share a queue and tell of it twice a second."""
    return [
        replace(_STATE, received_at_s=half / 2, node=node, queued=round(queue(half / 2) / 2))
        for half in range(2 * seconds)
        for node in ("edge-1", "edge-2")
    ]


def test_a_queue_that_grows_and_one_that_only_trembles() -> None:
    generator = random.Random(3)
    growing = slope_95(
        *queue_by_stretch(states(lambda at_s: 0.5 * at_s + generator.uniform(0, 6), 120), 0.0, 120.0, 5.0)
    )
    trembling = slope_95(*queue_by_stretch(states(lambda at_s: generator.uniform(0, 6), 120), 0.0, 120.0, 5.0))
    assert growing.value == pytest.approx(0.5, abs=0.05)
    assert growing.half_width is not None
    assert trembling.half_width is not None
    assert growing.value > growing.half_width
    assert abs(trembling.value) <= trembling.half_width


def test_a_stretch_in_which_a_node_was_silent_is_left_out() -> None:
    told = [one for one in states(lambda at_s: 8.0, 20) if one.node == "edge-1" or not 5.0 <= one.received_at_s < 10.0]
    assert queue_by_stretch(told, 0.0, 20.0, 5.0) == ([2.5, 12.5, 17.5], [8.0, 8.0, 8.0])


def test_the_ledger_tells_queues(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", configuration={}, seed=0, argv=[])
    with LedgerWriter(run) as ledger:
        for load in (Load(queued=3, running=1, slots=1, wait_ms=0.0, service_ms={}), None):
            ledger.add(NodeState(node="edge-1", role="edge", alive=True, load=load), {"node": "edge-1"}, 1.0)
    with Ledger.open(run) as ledger:
        assert [state.queued for state in ledger.node_states()] == [3, None]


@pytest.mark.slow
def test_a_quick_measurement_of_a_real_fleet() -> None:
    found = bench_json("capacity", "--quick")
    (row,) = found["rows"]
    search = found["search"]
    assert found["settings"]["quick"] is True
    assert found["machine"]["cores"] >= 1
    assert [step["keeps_up"] for step in search] == [True] * (len(search) - 1) + [False]
    assert row["knee_tasks_per_s"] > 0
    # Held below the knee, as the schedule's randomness allows.
    assert 0.4 * row["knee_tasks_per_s"] < row["tasks_per_s"] < row["knee_tasks_per_s"]
    assert row["queue_slope_ci95"] >= 0
    assert row["queue_grows"] in (True, False)
