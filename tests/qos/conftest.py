"""Builders of what a fleet says, with sensible values for whatever a test does not care about."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from roadside.bus.messages import Candidate, Decision, Load, NodeState, Outcome, Result, Timing, Truth
from roadside.qos.run import RunDirectory

from .. import plain_messages

_PLAIN = msgspec.structs.replace(
    plain_messages.OUTCOME,
    task_id="vehicle-1-00001",
    text="the car slows down because the light ahead is red .",
    requested="cloud",
    place="cloud",
    node="cloud-1",
    mode="full",
    timing=Timing(queue_ms=10.0, inference_ms=60.0),
    energy_j=1.5,
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

_PLAIN_RESULT = msgspec.structs.replace(
    plain_messages.RESULT,
    task_id="vehicle-1-00001",
    mode="early-exit",
    model="small",
    made_by=("exit1", "exit2"),
    timing=Timing(queue_ms=5.0, inference_ms=25.0),
    energy_j=0.4,
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


@dataclass(frozen=True)
class DrivenFleet:
    """A fleet of real processes that has driven: its run, and what each served Prometheus while it did."""

    run: RunDirectory
    pages: dict[str, str]


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> DrivenFleet:
    """One vehicle, edge and cloud, and a recorder that keeps the tasks' pictures; about 20 s, once a session."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "fleet.toml").write_text(
        "[defaults]\nmetrics = 0\n[[edge]]\nqueue_limit = 1\n[[cloud]]\nqueue_limit = 1\n"
        "[[vehicle]]\npolicy = 'random'\nduration_s = 8\nrate_hz = 6\nspeed = 8\n"
        "[recorder]\nkeep_frames = 'tasks'\n"
    )
    command = [sys.executable, "-P", "-m", "roadside.cli", "fleet", "fleet.toml", "--run", "run"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pages: dict[str, str] = {}
    while process.poll() is None:
        for name in ("vehicle-1", "edge-1", "cloud-1", "recorder"):
            with suppress(OSError, IndexError):
                log = (folder / "run" / "logs" / f"{name}.log").read_text()
                url = re.findall(r'"url": "(http[^"]+)"', log)[0]
                with urllib.request.urlopen(url, timeout=5) as answer:
                    pages[name] = answer.read().decode()
        time.sleep(0.3)
    assert process.returncode == 0, process.communicate()[1]
    return DrivenFleet(RunDirectory.open(folder / "run"), pages)
