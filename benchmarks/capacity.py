"""How many tasks per second a fleet on this machine takes, and whether its queues stay short below that.

`roadside bench capacity` starts a broker, a recorder and the nodes once. Then vehicles drive through the bundled log,
a stage after the other, each with a higher rate of tasks than the one before. The load is open: a vehicle creates its
tasks when its schedule says so, whatever became of the last one.

A stage *keeps up* where at least 95% of its tasks were answered in time by the place that was chosen (a fallback to the
vehicle's own narrator is no answer), and half of the answers came within three times what half of them took at the
lowest rate. The knee is the highest rate at which a stage kept up, before the first at which one did not; between the
two a few stages more narrow it down.

At 70% of the knee the fleet is then held for two minutes. The queue is the number of tasks that all nodes together have
accepted and not begun, as their recorded states tell it twice a second. Its readings are averaged over stretches of
some seconds, longer than a queue at this load remembers, and a line is laid through the averages: `queue_slope` is its
slope in tasks per second, with a 95% interval. The queue *grows* where the whole interval is above zero and the line
has risen by a task or more over the time.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..policy.names import DEFAULT_POLICY
from ..qos.intervals import Estimate, slope_95
from ..qos.ledger import Ledger, RecordedState
from ..qos.report import mean
from ..qos.run import RunDirectory
from .loaded_fleet import NODES, Stage, even_rates, loaded_fleet, shown_progress

_IN_TIME_SHARE = 0.95
_LATENCY_FACTOR = 3.0
HOLD_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """vehicles: processes that share the rate. first_tasks_per_s: of the fleet, then `factor` times as much each stage.

    refinements: stages between the last that kept up and the first that did not. hold_s: how long the fleet is held at
    70% of the knee; stretch_s: over how long readings of the queue are averaged.
    """

    vehicles: int = 4
    first_tasks_per_s: float = 4.0
    factor: float = 1.5
    stage_s: float = 8.0
    refinements: int = 2
    hold_s: float = 120.0
    stretch_s: float = 5.0
    policy: str = DEFAULT_POLICY


QUICK = CapacitySettings(
    vehicles=2, first_tasks_per_s=8.0, factor=2.5, stage_s=3.0, refinements=0, hold_s=12.0, stretch_s=1.0
)


def keeps_up(stage: Stage, first: Stage) -> bool:
    """first: the stage with the lowest rate."""
    now_ms, then_ms = stage.latency_ms["p50"], first.latency_ms["p50"]
    if now_ms is None or then_ms is None:
        return False
    return stage.in_time_share >= _IN_TIME_SHARE and now_ms <= _LATENCY_FACTOR * then_ms


def measure_capacity(*, quick: bool = False) -> dict[str, Any]:
    """The bench's JSON object; takes five to seven minutes, less than one where quick.

    A knee of 0 says that not even the lowest rate was kept up with, and nothing was held.
    """
    settings = QUICK if quick else CapacitySettings()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", configuration=asdict(settings), seed=0, argv=[])
        search, knee_per_s, held = asyncio.run(_measure(settings, run))
        manifest = run.read_manifest()
        queue = _queue(held, run, settings.stretch_s) if held is not None else None
    return {
        "bench": "capacity",
        "machine": msgspec.to_builtins(manifest.machine),
        "settings": {
            **asdict(settings),
            "nodes": list(NODES),
            "broker": manifest.broker,
            "quick": quick,
            "load_average_1m": load_before,
        },
        "rows": [
            {
                "vehicles": settings.vehicles,
                "knee_tasks_per_s": knee_per_s,
                "tasks_per_s": held.tasks_per_s if held else None,
                "in_time_share": held.in_time_share if held else None,
                **{f"latency_ms_{name}": held.latency_ms[name] if held else None for name in ("p50", "p90", "p99")},
                "queue_slope": queue.slope.value if queue else None,
                "queue_slope_ci95": queue.slope.half_width if queue else None,
                "queue_mean": queue.mean_tasks if queue else None,
                "queue_grows": queue.grows if queue else None,
                "held_s": held.ended_s - held.began_s if held else 0.0,
            }
        ],
        "search": search,
        "ratios": {},
    }


async def _measure(settings: CapacitySettings, run: RunDirectory) -> tuple[list[dict[str, Any]], float, Stage | None]:
    """The stages of the search, the knee in tasks per second, and the stage that was held."""
    with shown_progress() as tell:
        async with loaded_fleet(run) as fleet:
            search: list[dict[str, Any]] = []

            async def stage(name: str, tasks_per_s: float, duration_s: float) -> Stage:
                tell(f"{name}: {tasks_per_s:.1f} tasks/s for {duration_s:.0f} s")
                rates_per_s = even_rates(name, settings.vehicles, tasks_per_s)
                return await fleet.drive(rates_per_s, duration_s, policy=settings.policy)

            knee_per_s = await find_knee(settings, stage, search)
            held = await stage("hold", HOLD_SHARE * knee_per_s, settings.hold_s) if knee_per_s else None
    run.finish()
    return search, knee_per_s, held


async def find_knee(
    settings: CapacitySettings,
    stage: Callable[[str, float, float], Awaitable[Stage]],
    search: list[dict[str, Any]],
) -> float:
    """Step up until a stage does not keep up, then halve the gap; returns the knee in tasks per second.

    stage: runs one, by its name, its tasks per second and its seconds. search: filled with a row for each.
    """
    first: Stage | None = None

    async def is_kept_up(tasks_per_s: float) -> bool:
        nonlocal first
        measured = await stage(f"stage-{len(search) + 1}", tasks_per_s, settings.stage_s)
        first = first or measured
        kept_up = keeps_up(measured, first)
        search.append(
            {
                "offered_tasks_per_s": measured.tasks_per_s,
                "goodput_tasks_per_s": measured.goodput_per_s,
                "in_time_share": measured.in_time_share,
                "latency_ms_p50": measured.latency_ms["p50"],
                "latency_ms_p90": measured.latency_ms["p90"],
                "keeps_up": kept_up,
            }
        )
        return kept_up

    good_per_s, next_per_s = 0.0, settings.first_tasks_per_s
    while await is_kept_up(next_per_s):
        good_per_s, next_per_s = next_per_s, next_per_s * settings.factor
    for _ in range(settings.refinements if good_per_s else 0):
        middle_per_s = (good_per_s + next_per_s) / 2
        if await is_kept_up(middle_per_s):
            good_per_s = middle_per_s
        else:
            next_per_s = middle_per_s
    return good_per_s


@dataclass(frozen=True, slots=True)
class _Queue:
    slope: Estimate
    mean_tasks: float
    grows: bool


def _queue(held: Stage, run: RunDirectory, stretch_s: float) -> _Queue:
    """What became of the queue of all nodes while the fleet was held."""
    with Ledger.open(run) as ledger:
        states = [state for state in ledger.node_states() if state.node in NODES and state.queued is not None]
    at_s, queued = queue_by_stretch(states, held.began_s, held.ended_s, stretch_s)
    slope = slope_95(at_s, queued)
    assert slope.half_width is not None
    risen = slope.value * (held.ended_s - held.began_s)
    return _Queue(slope, mean(queued) or 0.0, slope.value > slope.half_width and risen >= 1.0)


def queue_by_stretch(
    states: list[RecordedState], began_s: float, ended_s: float, stretch_s: float
) -> tuple[list[float], list[float]]:
    """The queue of all nodes together, averaged over stretches of time: their middles, and the averages.

    states: of several nodes, in the order of arrival. A stretch in which one of the nodes told nothing is left out.
    """
    nodes = {state.node for state in states}
    middles_s: list[float] = []
    queued: list[float] = []
    for number in range(int((ended_s - began_s) / stretch_s)):
        from_s = began_s + number * stretch_s
        told = [state for state in states if from_s <= state.received_at_s < from_s + stretch_s]
        means = [mean([state.queued or 0 for state in told if state.node == node]) for node in nodes]
        known = [each for each in means if each is not None]
        if len(known) == len(nodes):
            middles_s.append(from_s + stretch_s / 2)
            queued.append(sum(known))
    return middles_s, queued
