"""Fitting the simulated fleet to a run, and replaying the run in it."""

import math
import random

import numpy as np
import pytest
from roadside.benchmarks.calibrate import write_constants
from roadside.benchmarks.environment_fit import MeasuredTask, fit_constants, measured_tasks, replay
from roadside.bus.errors import RunError
from roadside.bus.kinds import KINDS
from roadside.bus.messages import Candidate, Decision, Outcome, Timing
from roadside.bus.places import Place
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment, run_episode
from roadside.policy.features import FEATURES
from roadside.policy.registry import PolicyOptions, make_policy
from roadside.qos.ledger import RecordedOutcome

SLOTS = {"edge-1": 1, "edge-2": 1, "cloud-1": 2}
COMPUTING_MS: dict[Place, float] = {"edge": 120.0, "edge+cloud": 200.0, "cloud": 300.0}
AROUND_MS: dict[Place, float] = {"vehicle": 4.0, "edge": 15.0, "edge+cloud": 15.0, "cloud": 60.0}
PLACES_OF: dict[str, list[Place]] = {
    "vehicle-1": ["vehicle"],
    "edge-1": ["edge", "edge+cloud"],
    "edge-2": ["edge", "edge+cloud"],
    "cloud-1": ["cloud"],
}
CONTEXT_MS = 40.0
KIND_FACTOR = {"hazard": 0.5, "explain": 1.0, "describe": 2.0}


def a_run(count: int, *, rate_hz: float, sigma: float = 0.0, seed: int = 1) -> list[MeasuredTask]:
    """What a fleet would measure whose nodes are known: each slot works off its own line, in the order of arrival."""
    draw = random.Random(seed)
    free_s = {node: [0.0] * slots for node, slots in SLOTS.items()}
    tasks, now_s = [], 0.0
    for _ in range(count):
        now_s += draw.expovariate(rate_hz)
        kind = draw.choice(sorted(KINDS))
        node = draw.choice(list(PLACES_OF))
        place = draw.choice(PLACES_OF[node])
        computing_ms = COMPUTING_MS.get(place, 0.0) * KIND_FACTOR[kind] * math.exp(draw.gauss(0, sigma))
        context_ms = CONTEXT_MS if place == "edge+cloud" else 0.0
        queue_ms = 0.0
        if place != "vehicle":
            slot = min(range(SLOTS[node]), key=free_s[node].__getitem__)
            begins_s = max(now_s, free_s[node][slot])
            queue_ms = (begins_s - now_s) * 1000
            free_s[node][slot] = begins_s + computing_ms / 1000
        tasks.append(
            MeasuredTask(
                vehicle=f"vehicle-{draw.randint(1, 3)}",
                node=node,
                place=place,
                kind=kind,
                arrival_s=now_s,
                latency_ms=AROUND_MS[place] + queue_ms + computing_ms + context_ms,
                queue_ms=queue_ms,
                computing_ms=computing_ms,
                context_ms=context_ms,
                upload_bytes=10_000.0,
                tokens=20.0,
                quality={"vehicle": 0.0, "edge": 0.8, "edge+cloud": 0.93, "cloud": 0.95},
            )
        )
    return tasks


def test_what_is_known_of_a_fleet_is_found_again():
    constants = fit_constants(a_run(1500, rate_hz=2.0, sigma=0.2), SLOTS)
    assert {kind.name for kind in constants.kinds} == set(KINDS)
    for kind in constants.kinds:
        for place, computing_ms in COMPUTING_MS.items():
            # The mean of a logarithmic normal lies above its median.
            expected_ms = computing_ms * KIND_FACTOR[kind.name] * math.exp(0.2**2 / 2)
            assert kind.service_ms[place] == pytest.approx(expected_ms, rel=0.08)
        assert kind.service_ms["vehicle"] == pytest.approx(AROUND_MS["vehicle"])
        assert kind.context_ms == pytest.approx(CONTEXT_MS)
        assert (kind.quality.edge, kind.quality.together, kind.quality.cloud) == (0.8, 0.93, 0.95)
    assert (constants.edge.slots, constants.cloud.slots) == (1, 2)
    assert constants.hidden.service_sigma == pytest.approx(0.2, rel=0.1)
    assert constants.arrivals.vehicles == 3


def means_ms(tasks: list[MeasuredTask], replayed: list[tuple[float, float]], place: Place) -> tuple[float, float]:
    pairs = [(task.latency_ms, again[0]) for task, again in zip(tasks, replayed, strict=True) if task.place == place]
    measured_ms, again_ms = np.mean(pairs, axis=0)
    return measured_ms, again_ms


@pytest.mark.parametrize(("rate_hz", "queued"), [(0.5, (0.0, 0.05)), (14.0, (0.3, 0.7))])
def test_queues_are_replayed_though_none_of_them_was_fitted(rate_hz, queued):
    """An idle fleet and a crowded one, whose answers of a kind all take the same time."""
    tasks = a_run(400, rate_hz=rate_hz)
    replayed = replay(fit_constants(tasks, SLOTS), tasks)
    least, most = queued
    assert least <= sum(task.queue_ms > 0 for task in tasks) / len(tasks) <= most
    waited_ms = [(task.queue_ms, queue_ms) for task, (_, queue_ms) in zip(tasks, replayed, strict=True)]
    # An upload is part of the network's time when it is measured, and makes the link busy when it is replayed.
    assert np.mean([abs(before_ms - after_ms) for before_ms, after_ms in waited_ms]) < 5
    for place in COMPUTING_MS:
        measured_ms, again_ms = means_ms(tasks, replayed, place)
        assert again_ms == pytest.approx(measured_ms, rel=0.03)


def test_chance_costs_the_replay_a_little():
    tasks = a_run(600, rate_hz=4.0, sigma=0.3)
    replayed = replay(fit_constants(tasks, SLOTS), tasks)
    for place in COMPUTING_MS:
        measured_ms, again_ms = means_ms(tasks, replayed, place)
        assert again_ms == pytest.approx(measured_ms, rel=0.15)


def test_the_written_file_is_an_environment(tmp_path):
    constants = fit_constants(a_run(200, rate_hz=2.0), SLOTS)
    write_constants(tmp_path / "fitted.toml", constants, "for a test")
    assert load_constants(tmp_path / "fitted.toml", scenario="collaborative") == constants
    environment = Environment(load_constants(tmp_path / "fitted.toml"), edges=2, rate=2.0, tasks=50, seed=1)
    summary = run_episode(environment, make_policy("greedy-utility", PolicyOptions()))
    assert 0 < summary.utility < 1


def outcome(**changes) -> RecordedOutcome:
    features = tuple(0.1 for _ in FEATURES)
    rows = (
        Candidate("vehicle-1", "vehicle", 0.0, 1.0, 1.0, 0.9, "", features),
        Candidate("edge-1", "edge", 0.0, 1.0, 1.0, 0.9, "", features),
    )
    plain = {
        "task_id": "vehicle-1-1",
        "kind": "explain",
        "state": "result",
        "reason": "",
        "text": "",
        "created_at_s": 50.0,
        "deadline_ms": 2000.0,
        "requested": "edge",
        "place": "edge",
        "node": "edge-1",
        "mode": "standalone",
        "accepted": True,
        "attempts": 1,
        "latency_ms": 100.0,
        "first_answer_ms": 100.0,
        "network_ms": 10.0,
        "timing": Timing(queue_ms=5.0, inference_ms=70.0),
        "energy_j": 1.0,
        "energy_method": "modelled",
        "clip": "",
        "moment_s": 0.0,
        "decision": Decision("random", 1, 1.0, "", rows),
        "made_by": ("exit1",) * 7,
    }
    return RecordedOutcome("vehicle-1", 60.0, changes.pop("repeat", ""), Outcome(**(plain | changes)))


def test_only_answers_are_replayed_and_each_once():
    tasks = measured_tasks(
        [
            outcome(created_at_s=51.5),
            outcome(created_at_s=51.5, repeat="redelivered"),
            outcome(state="fallback"),
            outcome(decision=None),
            outcome(created_at_s=50.5, latency_ms=200.0),
        ]
    )
    assert [(task.arrival_s, task.latency_ms, task.around_ms) for task in tasks] == [(0, 200, 125), (1, 100, 25)]
    assert tasks[0].tokens == 7
    assert tasks[0].quality == {"vehicle": 0.9, "edge": 0.9}


def test_a_run_without_answers_says_what_to_do():
    with pytest.raises(RunError, match="--duration"):
        measured_tasks([outcome(state="fallback")])
