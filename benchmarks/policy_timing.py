"""What a decision and a step of the placement environment take, on this machine, one at a time in this process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from ..bus.places import PLACES, Place
from ..policy.candidates import Candidates, candidates_of
from ..policy.features import Observed, TaskFacts
from ..policy.utility import UtilityModel
from .policy_cells import Cell, environment_of, policy_for

CANDIDATES = (7, 128)
_DECISIONS = 400
_STEPS = 2000
_TASK = TaskFacts("explain", 2000.0, 2000.0, 0.0, 1_000_000, 25.0)


def decision_times(policies: list[str]) -> list[dict[str, Any]]:
    """p50 of a decision with its table of candidates and their features built from what was observed."""
    return [
        {"policy": policy, "candidates": rows, "decision_ms_p50": _decision_ms(policy, rows)}
        for policy in policies
        for rows in CANDIDATES
    ]


def step_time(cell: Cell) -> float:
    """p50 of a step, in microseconds: what the task comes to, and what is seen at the next one."""
    environment = environment_of(cell, seed=1, tasks=_STEPS)
    situation = environment.reset()
    draw = np.random.default_rng(1)
    took_us: list[float] = []
    while situation is not None:
        row = int(draw.choice(np.flatnonzero(situation.allowed)))
        started = time.perf_counter()
        situation = environment.step(row).situation
        took_us.append((time.perf_counter() - started) * 1e6)
    return statistics.median(took_us)


def _decision_ms(name: str, rows: int) -> float:
    draw = np.random.default_rng(rows)
    policy = policy_for(name, seed=1)
    nodes = ("vehicle", *(f"edge-{n}" for n in range(1, rows - 1)), "cloud")
    places: tuple[Place, ...] = ("vehicle", *("edge" for _ in range(rows - 2)), "cloud")
    utility, allowed = UtilityModel(), np.ones(rows, np.bool_)
    took_ms: list[float] = []
    for decision in range(_DECISIONS):
        observed = _observed(draw, places)
        started = time.perf_counter()
        table = _table(observed, utility, nodes, places)
        policy.decide(_TASK, table, allowed, decision / 20)
        took_ms.append((time.perf_counter() - started) * 1000)
    return statistics.median(took_ms)


def _table(observed: Observed, utility: UtilityModel, nodes: tuple[str, ...], places: tuple[Place, ...]) -> Candidates:
    return candidates_of(_TASK, observed, utility, nodes=nodes, places=places, masked=("",) * len(nodes))


def _observed(draw: np.random.Generator, places: tuple[Place, ...]) -> Observed:
    rows = len(places)
    return Observed(
        place=np.array([PLACES.index(place) for place in places], np.intp),
        upload_ms=draw.uniform(20, 400, rows),
        round_trip_ms=draw.uniform(5, 70, rows),
        link_wait_ms=draw.uniform(0, 500, rows),
        compute_wait_ms=draw.uniform(0, 1500, rows),
        age_ms=draw.uniform(0, 500, rows),
        unreported=draw.integers(0, 3, rows).astype(float),
        service_ms=draw.uniform(200, 1500, rows),
        power_w=draw.uniform(35, 60, rows),
        quality=draw.uniform(0.4, 0.9, rows),
        in_flight=draw.integers(0, 6, rows).astype(float),
        slots=draw.integers(1, 6, rows).astype(float),
    )
