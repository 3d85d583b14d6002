"""What a fleet still does when it is asked for more than it can, and whom one flooding vehicle harms.

`roadside bench overload` looks for the knee as `roadside bench capacity` does, then loads the same fleet with half of
that, with it, and with up to five times it. Counted are answers in time that nodes gave (*goodput*; a vehicle's own
narrator is no answer). The knee is where waiting begins, and more than that can be answered: what becomes of a fleet
that is asked for twice what it can is told by the first load that is at least twice the highest goodput of all. Then
every vehicle asks for its equal share of 70% of the knee, and again with one of them asking for five times its share:
what becomes of the others?

The nodes have half of this machine's cores to themselves, and vehicles, broker, recorder and this process the others
(`cores.py`): what a node does about an overload is measured, not what the making of the load leaves it. With
`--shared-cores` all share all cores.

An observer on the bus times refusals, from the moment at which it hears a task to that at which it hears the Reject,
and adds up what nodes computed for nobody: *expired* work, given up or done after its deadline, and *unwanted* work,
whole answers to tasks that another answer had ended, since a vehicle that has turned to another node does not take its
first question back.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from ..bus import topics
from ..bus.messages import Accepted, NodeState, Outcome, Rejected, Result, Task
from ..bus.transport import Bus, Received
from ..policy.names import DEFAULT_POLICY
from ..qos.report import in_time, percentile
from ..qos.run import RunDirectory
from .capacity import HOLD_SHARE, CapacitySettings, find_knee
from .cores import DividedCores, divided_cores
from .loaded_fleet import FLEET, NODES, LoadedFleet, Stage, even_rates, loaded_fleet, shown_progress

_HEARD_LIMIT = 200_000
_LAST_STATES_S = 1.5  # until every node has told its counters once more


@dataclass(frozen=True, slots=True)
class OverloadSettings:
    """loads: multiples of the knee. stage_s: seconds of each. flood: how many times its share one vehicle asks for."""

    capacity: CapacitySettings
    loads: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
    stage_s: float = 25.0
    flood: float = 5.0


FULL = OverloadSettings(CapacitySettings(factor=2.0, refinements=1))
QUICK = OverloadSettings(
    CapacitySettings(first_tasks_per_s=8.0, factor=2.5, stage_s=4.0, refinements=0), loads=(1.0, 3.0), stage_s=5.0
)


@dataclass(slots=True)
class _Heard:
    """During one stage. Times are of the monotonic clock, figures in milliseconds."""

    asked_s: dict[tuple[str, str, int], float] = field(default_factory=dict)
    accepted: set[tuple[str, str, int]] = field(default_factory=set)
    reject_ms: list[float] = field(default_factory=list)
    taken_back: int = 0
    queue_ms: list[float] = field(default_factory=list)
    answers: list[tuple[str, str, str, float]] = field(default_factory=list)


class Observer:
    """Hears what vehicles and nodes say to each other."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._heard = _Heard()
        self._expired_ms: Counter[str] = Counter()
        self._expired_before_ms = 0

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            for topic in (topics.TASK, topics.ACK, topics.RESULT, topics.NODE_STATE):
                group.create_task(self._listen(topic))

    def begin(self) -> None:
        """A stage begins: forget what was heard before."""
        self._heard = _Heard()
        self._expired_before_ms = self._expired_ms.total()

    def row(self, stage: Stage) -> dict[str, Any]:
        """What nodes did with the stage that has ended."""
        heard = self._heard
        ended = {(vehicle, one.task_id): one for vehicle, outcomes in stage.by_vehicle.items() for one in outcomes}
        work_ms = unwanted_ms = 0.0
        for vehicle, task_id, node, inference_ms in heard.answers:
            outcome = ended.get((vehicle, task_id))
            if outcome is not None:
                work_ms += inference_ms
                unwanted_ms += 0.0 if outcome.state == "result" and outcome.node == node else inference_ms
        expired_ms = self._expired_ms.total() - self._expired_before_ms
        return {
            "rejects": len(heard.reject_ms),
            "taken_back": heard.taken_back,
            "reject_ms_p50": percentile(heard.reject_ms, 0.50),
            "reject_ms_p99": percentile(heard.reject_ms, 0.99),
            "queue_ms_p50": percentile(heard.queue_ms, 0.50),
            "queue_ms_p90": percentile(heard.queue_ms, 0.90),
            "expired_work_share": expired_ms / (work_ms + expired_ms) if work_ms else None,
            "unwanted_work_share": unwanted_ms / (work_ms + expired_ms) if work_ms else None,
        }

    async def _listen(self, topic: topics.Topic) -> None:
        async for received in self._bus.subscribe(topic, limit=_HEARD_LIMIT):
            self._keep(received)

    def _keep(self, received: Received) -> None:
        heard, now_s, body = self._heard, time.monotonic(), received.body
        match body:
            case Task():
                heard.asked_s.setdefault((received.names["vehicle"], body.task_id, body.attempt), now_s)
            case Accepted():
                heard.accepted.add((received.names["vehicle"], body.task_id, body.attempt))
            case Rejected():
                key = (received.names["vehicle"], body.task_id, body.attempt)
                if key in heard.accepted:
                    heard.taken_back += 1
                elif (asked_s := heard.asked_s.get(key)) is not None:
                    heard.reject_ms.append((now_s - asked_s) * 1000)
            case Result() if body.final:
                heard.queue_ms.append(body.timing.queue_ms)
                vehicle, node = received.names["vehicle"], received.names["node"]
                heard.answers.append((vehicle, body.task_id, node, body.timing.inference_ms))
            case NodeState():
                self._expired_ms[body.node] = max(self._expired_ms[body.node], body.counters.get("expired_work_ms", 0))
            case _:
                pass


def measure_overload(
    *,
    policy: str = DEFAULT_POLICY,
    quick: bool = False,
    knee_tasks_per_s: float | None = None,
    shared_cores: bool = False,
) -> dict[str, Any]:
    """The bench's JSON object; five to eight minutes, less than two where quick.

    policy: of the vehicles. knee_tasks_per_s: where it is known, it is not looked for. shared_cores: nodes have none of
    their own; so it is, too, where a system keeps no process to cores, and `settings.cores` says it.
    """
    settings = QUICK if quick else FULL
    settings = replace(settings, capacity=replace(settings.capacity, policy=policy))
    cores = None if shared_cores else divided_cores()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", configuration=asdict(settings), seed=0, argv=[])
        measured = asyncio.run(_measure(settings, run, knee_tasks_per_s, cores))
        manifest = run.read_manifest()
    return {
        "bench": "overload",
        "machine": msgspec.to_builtins(manifest.machine),
        "settings": {
            **asdict(settings),
            "knee_tasks_per_s": measured.knee_per_s,
            "nodes": list(NODES),
            "cores": "shared" if cores is None else asdict(cores),
            "broker": manifest.broker,
            "quick": quick,
            "load_average_1m": load_before,
        },
        "rows": measured.rows,
        "fairness": measured.fairness,
        "ratios": _ratios(measured),
    }


@dataclass(slots=True)
class _Measured:
    knee_per_s: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    fairness: list[dict[str, Any]] = field(default_factory=list)


async def _measure(
    settings: OverloadSettings, run: RunDirectory, knee_tasks_per_s: float | None, cores: DividedCores | None
) -> _Measured:
    measured = _Measured()
    capacity = settings.capacity
    with shown_progress() as tell:
        async with (
            loaded_fleet(run, cores=cores) as fleet,
            Bus(url=fleet.broker.url, fleet=FLEET, name="observer") as bus,
        ):

            async def stage(name: str, tasks_per_s: float, duration_s: float) -> Stage:
                tell(f"{name}: {tasks_per_s:.1f} tasks/s for {duration_s:.0f} s")
                rates_per_s = even_rates(name, capacity.vehicles, tasks_per_s)
                return await fleet.drive(rates_per_s, duration_s, policy=capacity.policy)

            measured.knee_per_s = knee_tasks_per_s or await find_knee(capacity, stage, [])
            observer = Observer(bus)
            observing = asyncio.create_task(observer.run())
            # What was in vain while the knee was looked for is none of the first load's.
            await asyncio.sleep(_LAST_STATES_S)
            for load in settings.loads if measured.knee_per_s else ():
                observer.begin()
                used_s = fleet.nodes_cpu_s()
                driven = await stage(f"load-{load:g}", load * measured.knee_per_s, settings.stage_s)
                await asyncio.sleep(_LAST_STATES_S)
                used_s = fleet.nodes_cpu_s() - used_s
                measured.rows.append({"load": load, **_row(driven, used_s), **observer.row(driven)})
            if measured.knee_per_s:
                share_per_s = HOLD_SHARE * measured.knee_per_s / capacity.vehicles
                for flood in (1.0, settings.flood):
                    tell(f"one vehicle at {flood:g} times its share")
                    measured.fairness.append(await _flooded(fleet, settings, share_per_s, flood))
            observing.cancel()
    run.finish()
    return measured


async def _flooded(fleet: LoadedFleet, settings: OverloadSettings, share_per_s: float, flood: float) -> dict[str, Any]:
    """One vehicle asks for `flood` times its share, the others for theirs."""
    vehicles = settings.capacity.vehicles
    rates_per_s = even_rates(f"flood-{flood:g}", vehicles, share_per_s * vehicles)
    flooding = next(iter(rates_per_s))
    rates_per_s[flooding] *= flood
    stage = await fleet.drive(rates_per_s, settings.stage_s, policy=settings.capacity.policy)
    others = [one for vehicle, outcomes in stage.by_vehicle.items() if vehicle != flooding for one in outcomes]
    own = stage.by_vehicle[flooding]
    return {
        "flood": flood,
        "offered_tasks_per_s": stage.tasks_per_s,
        "others_in_time_share": _answered(others) / len(others) if others else None,
        "flooding_in_time_share": _answered(own) / len(own),
        "others_latency_ms_p90": percentile([one.latency_ms for one in others], 0.9),
        "others_unanswered": _unanswered(others),
    }


def _row(stage: Stage, used_s: float) -> dict[str, Any]:
    """used_s: seconds of a core that the nodes used for the stage, of which refusals, too, are a part."""
    outcomes, answered = stage.outcomes, _answered(stage.outcomes)
    return {
        "offered_tasks_per_s": stage.tasks_per_s,
        "goodput_tasks_per_s": answered / (stage.ended_s - stage.began_s),
        "in_time_share": answered / len(outcomes),
        "nodes_cpu_ms_per_answer": used_s * 1000 / answered if answered else None,
        "latency_ms_p50": stage.latency_ms["p50"],
    }


def _answered(outcomes: list[Outcome]) -> int:
    """How many tasks a node has answered in time."""
    return in_time(one for one in outcomes if one.place != "vehicle")


def _unanswered(outcomes: list[Outcome]) -> dict[str, int]:
    """Why no node has answered the others, the most frequent first; a vehicle may not even have asked one."""
    reasons = (
        one.reason or ("late" if one.place != "vehicle" else "nobody asked") for one in outcomes if not _answered([one])
    )
    return dict(Counter(reasons).most_common())


def _ratios(measured: _Measured) -> dict[str, float | None]:
    """Of rows of this one run; None where the bench has not come so far."""
    ratios: dict[str, float | None] = {}
    peak = max((row["goodput_tasks_per_s"] for row in measured.rows), default=0.0)
    twice = next((row for row in measured.rows if row["offered_tasks_per_s"] >= 2 * peak > 0), None)
    ratios["goodput_at_twice_the_peak_of_peak"] = None if twice is None else twice["goodput_tasks_per_s"] / peak
    for row in measured.rows:
        ratios[f"goodput_at_{row['load']:g}_of_peak"] = row["goodput_tasks_per_s"] / peak if peak else None
        if row["reject_ms_p50"] is not None and row["queue_ms_p50"]:
            ratios[f"reject_p50_of_queue_p50_at_{row['load']:g}"] = row["reject_ms_p50"] / row["queue_ms_p50"]
    if len(measured.fairness) == 2:
        even, flooded = (row["others_in_time_share"] for row in measured.fairness)
        ratios["others_in_time_flooded_of_even"] = flooded / even if even and flooded is not None else None
    return ratios
