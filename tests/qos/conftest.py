"""Builders of what a fleet says, with sensible values for whatever a test does not care about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from roadside.bus.messages import Candidate, Decision, Load, NodeState, Outcome, Result, Timing, Truth
from roadside.qos.run import RunDirectory

_PLAIN = Outcome(
    task_id="vehicle-1-00001",
    kind="explain",
    state="result",
    reason="",
    text="the car slows down because the light ahead is red .",
    created_at_s=1_700_000_000.0,
    deadline_ms=2000.0,
    requested="cloud",
    place="cloud",
    node="cloud-1",
    mode="full",
    accepted=True,
    attempts=1,
    latency_ms=84.0,
    first_answer_ms=84.0,
    network_ms=12.0,
    timing=Timing(queue_ms=10.0, inference_ms=60.0),
    energy_j=1.5,
    energy_method="modelled",
    clip="clip-1",
    moment_s=3.0,
    decision=Decision(
        policy="greedy-utility",
        chosen=1,
        propensity=1.0,
        reason="highest utility",
        candidates=(
            Candidate("vehicle-1", "vehicle", -0.1, 1.0, 0.0, 0.0, "below the quality floor", (0.5, 1.0)),
            Candidate("cloud-1", "cloud", 0.712, 90.0, 1.5, 0.9, "", (0.25, 0.0)),
        ),
    ),
    made_by=("full", "full"),
    truth=Truth("the car slows down", "because the light ahead is red .", True, True),
)

_PLAIN_STATE = NodeState(
    node="edge-1",
    role="edge",
    alive=True,
    places=("edge",),
    model="small",
    load=Load(queued=1, running=1, slots=1, wait_ms=40.0, service_ms={"edge": {"explain": 30.0}}),
    uptime_s=5.0,
    event_loop_lag_ms=2.0,
    memory_bytes=400_000_000,
    counters={"published": 3},
)

_PLAIN_RESULT = Result(
    task_id="vehicle-1-00001",
    attempt=1,
    final=True,
    text="the car stops .",
    place="edge",
    mode="early-exit",
    model="small",
    made_by=("exit1", "exit2"),
    confidence=0.9,
    timing=Timing(queue_ms=5.0, inference_ms=25.0),
    energy_j=0.4,
    energy_method="modelled",
    load=Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={}),
)


@pytest.fixture(scope="session")
def an_outcome() -> Callable[..., Outcome]:
    """Build an Outcome; what is named replaces a plain right answer of the cloud's."""
    return lambda **changes: msgspec.structs.replace(_PLAIN, **changes)


@pytest.fixture(scope="session")
def a_state() -> Callable[..., NodeState]:
    return lambda **changes: msgspec.structs.replace(_PLAIN_STATE, **changes)


@pytest.fixture(scope="session")
def a_result() -> Callable[..., Result]:
    return lambda **changes: msgspec.structs.replace(_PLAIN_RESULT, **changes)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", configuration={"policy": "static"}, seed=7, argv=["roadside", "demo"])
