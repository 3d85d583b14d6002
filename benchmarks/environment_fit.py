"""The simulated fleet fitted to a real run: its constants from what a ledger measured, and the run replayed in it.

    tasks = measured_tasks(ledger.outcomes())
    constants = fit_constants(tasks, slots)
    replay(constants, tasks)              the same arrivals at the same places, in milliseconds

What the replay predicts is the waiting: how long answers take once they have begun is fitted, and so is what even a
task that finds an idle node spends before it is begun.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ..bus.errors import RunError
from ..bus.kinds import KINDS
from ..bus.messages import Outcome
from ..bus.places import Place
from ..policy.environment.constants import Bounds, EnvironmentConstants, Kind, Node, Quality, load_constants
from ..policy.environment.dynamics import Dynamics
from ..policy.environment.layout import Layout, lay_out
from ..policy.environment.traces import Traces
from ..policy.environment.uplinks import RadioUplinks
from ..policy.experience import experience_of
from ..policy.utility import UtilityModel
from ..qos.ledger import RecordedOutcome

_NODE_PLACES: tuple[Place, ...] = ("edge", "edge+cloud", "cloud")


@dataclass(frozen=True, slots=True)
class MeasuredTask:
    """An answer of a run in time, from the place that answered it.

    arrival_s: since the run's first task. around_ms: everything that is not queue, computing or context: the network
        both ways, and the vehicle's own preparations.
    """

    vehicle: str
    node: str
    place: Place
    kind: str
    arrival_s: float
    latency_ms: float
    queue_ms: float
    computing_ms: float
    context_ms: float
    upload_bytes: float
    tokens: float
    quality: Mapping[Place, float]

    @property
    def around_ms(self) -> float:
        return max(0.0, self.latency_ms - self.queue_ms - self.computing_ms - self.context_ms)


def measured_tasks(recorded: Iterable[RecordedOutcome]) -> list[MeasuredTask]:
    """The answers that can be replayed, in the order of their tasks' creation. Raises RunError where there are none."""
    answered = [
        (each.vehicle, each.outcome)
        for each in recorded
        if not each.repeat and each.outcome.state == "result" and each.outcome.decision is not None
    ]
    if not answered:
        raise RunError("the run has no answers to calibrate by: repeat it with more tasks (--duration, --rate)")
    answered.sort(key=lambda each: each[1].created_at_s)
    first_s = answered[0][1].created_at_s
    return [_measured(vehicle, outcome, outcome.created_at_s - first_s) for vehicle, outcome in answered]


def _measured(vehicle: str, outcome: Outcome, arrival_s: float) -> MeasuredTask:
    assert outcome.decision is not None
    experience = experience_of(outcome, UtilityModel())
    if experience is None:
        raise RunError("the run was made by another version, whose features differ: repeat it with this one")
    return MeasuredTask(
        vehicle=vehicle,
        node=outcome.node,
        place=outcome.place,
        kind=outcome.kind,
        arrival_s=arrival_s,
        latency_ms=outcome.latency_ms,
        queue_ms=outcome.timing.queue_ms,
        computing_ms=outcome.timing.inference_ms,
        context_ms=outcome.timing.context_ms,
        upload_bytes=experience.task.upload_bytes,
        tokens=len(outcome.made_by) or experience.task.tokens,
        quality={row.place: row.quality for row in outcome.decision.candidates},
    )


def fit_constants(tasks: Sequence[MeasuredTask], slots: Mapping[str, int]) -> EnvironmentConstants:
    """The constants under which the simulated fleet is that of the run; what a run cannot tell stays as committed.

    slots: by node. Places and kinds that no task met get the mean of those that did. Several clouds become one.
    """
    committed = load_constants(scenario="collaborative")
    computing = _mean_by(tasks, lambda task: (task.place, task.kind), lambda task: task.computing_ms)
    overall = _mean_by(tasks, lambda task: task.place, lambda task: task.computing_ms)
    in_overall: list[Place] = [place for place in _NODE_PLACES if place in overall]
    kinds = sorted({task.kind for task in tasks})
    upload_ms = statistics.fmean(task.upload_bytes for task in tasks) * 8000 / committed.cloud.uplink_bps

    def tier(node: Node, prefix: str) -> Any:
        around_ms = _around_ms([task for task in tasks if task.node.startswith(prefix)])
        of_tier = [count for name, count in slots.items() if name.startswith(prefix)]
        # All edges are alike in the environment; the clouds of a run are one with all their slots.
        count = sum(of_tier) if prefix == "cloud" else max(of_tier, default=node.slots)
        return msgspec.structs.replace(
            node, slots=max(1, count), round_trip_ms=max(0.0, around_ms - upload_ms), spread=0.0
        )

    def computing_ms(kind: str) -> dict[Place, float]:
        # The vehicle prepares even what it answers itself.
        own_ms = _around_ms([task for task in tasks if task.place == "vehicle"]) + overall.get("vehicle", 0.0)
        by_place: dict[Place, float] = {"vehicle": own_ms}
        by_place.update((place, computing.get((place, kind), overall[place])) for place in in_overall)
        return by_place

    return msgspec.structs.replace(
        committed,
        arrivals=msgspec.structs.replace(committed.arrivals, vehicles=len({task.vehicle for task in tasks}), swing=0.0),
        kinds=tuple(
            Kind(
                name=kind,
                share=sum(task.kind == kind for task in tasks) / len(tasks),
                upload_bytes=_bounds(tasks, kind, lambda task: task.upload_bytes),
                tokens=_bounds(tasks, kind, lambda task: task.tokens),
                deadline_s=(KINDS[kind].deadline_ms / 1000, KINDS[kind].deadline_ms / 1000),
                quality=_quality(tasks, kind),
                service_ms=computing_ms(kind),
                context_ms=_mean([t.context_ms for t in tasks if (t.place, t.kind) == ("edge+cloud", kind)]),
            )
            for kind in kinds
        ),
        edge=tier(committed.edge, "edge"),
        cloud=tier(committed.cloud, "cloud"),
        hidden=msgspec.structs.replace(
            committed.hidden, drift=_drift(tasks, computing), service_sigma=_sigma(tasks, computing), report_sigma=0.0
        ),
    )


def replay(constants: EnvironmentConstants, tasks: Sequence[MeasuredTask]) -> list[tuple[float, float]]:
    """(latency_ms, queue_ms) of each task where it went, through the environment's own queues.

    Every answer takes the mean time of its place and kind: whose turn comes when is what is being predicted.
    """
    edges = sorted({task.node for task in tasks if task.place in ("edge", "edge+cloud")})
    layout = lay_out(constants, max(1, len(edges)))
    traces = _as_traces(constants, layout, tasks)
    dynamics = Dynamics(constants, layout, traces, RadioUplinks(layout, traces))
    state = dynamics.fresh_state()
    rows = list(zip(layout.nodes, layout.places, strict=True))
    replayed: list[tuple[float, float]] = []
    for number, task in enumerate(tasks):
        node = "vehicle" if task.place == "vehicle" else "cloud"
        if task.node in edges:
            node = f"edge-{edges.index(task.node) + 1}"
        row = rows.index((node, task.place))
        latency_ms = dynamics.run(state, number, row).latency_s * 1000
        queue_ms = latency_ms - dynamics.announced_service_ms[number, row] - layout.round_trip_ms[row]
        replayed.append((latency_ms, max(0.0, float(queue_ms))))
    return replayed


def _as_traces(constants: EnvironmentConstants, layout: Layout, tasks: Sequence[MeasuredTask]) -> Traces:
    """The run's arrivals; uploads are at the announced rate of the cloud's way, as small as they are."""
    shape = (len(tasks), len(layout))
    vehicles = sorted({task.vehicle for task in tasks})
    names = [kind.name for kind in constants.kinds]
    rate_bps = np.full(shape, constants.cloud.uplink_bps)
    rate_bps[:, layout.node == 0] = np.inf
    return Traces(
        arrival_s=np.array([task.arrival_s for task in tasks]),
        vehicle=np.array([vehicles.index(task.vehicle) for task in tasks]),
        kind=np.array([names.index(task.kind) for task in tasks]),
        upload_bytes=np.array([task.upload_bytes for task in tasks]),
        tokens=np.array([float(task.tokens) for task in tasks]),
        deadline_s=np.array([KINDS[task.kind].deadline_ms / 1000 for task in tasks]),
        announced_bps=rate_bps,
        actual_bps=rate_bps,
        reachable=np.ones(shape, np.bool_),
        slowness=np.ones(len(tasks)),
        node_speed=np.ones(len(layout)),
        report_error=None,
    )


def _around_ms(tasks: Sequence[MeasuredTask]) -> float:
    """What a task costs beside its computing where nobody is before it: the lowest quarter of queues is hand-over."""
    if not tasks:
        return 0.0
    hand_over_ms = float(np.percentile([task.queue_ms for task in tasks], 25))
    return statistics.fmean(task.around_ms for task in tasks) + hand_over_ms


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _mean_by(
    tasks: Iterable[MeasuredTask], key: Callable[[MeasuredTask], Hashable], value: Callable[[MeasuredTask], float]
) -> dict[Any, float]:
    values: dict[Hashable, list[float]] = defaultdict(list)
    for task in tasks:
        values[key(task)].append(value(task))
    return {each: statistics.fmean(of_it) for each, of_it in values.items()}


def _bounds(tasks: Sequence[MeasuredTask], kind: str, value: Callable[[MeasuredTask], float]) -> Bounds:
    values = [value(task) for task in tasks if task.kind == kind]
    return float(min(values)), float(max(values))


def _quality(tasks: Sequence[MeasuredTask], kind: str) -> Quality:
    """As the nodes told it last; a place that no node offered has none."""
    told: dict[Place, float] = {}
    for task in tasks:
        if task.kind == kind:
            told.update(task.quality)
    return Quality(told.get("vehicle", 0.0), told.get("edge", 0.0), told.get("cloud", 0.0), told.get("edge+cloud"))


def _sigma(tasks: Sequence[MeasuredTask], computing: Mapping[Any, float]) -> float:
    """Standard deviation of the logarithm of computing times about the mean of their place and kind."""
    ratios = [
        task.computing_ms / computing[task.place, task.kind]
        for task in tasks
        if task.place in _NODE_PLACES and task.computing_ms > 0
    ]
    return statistics.pstdev(np.log(ratios).tolist()) if len(ratios) > 1 else 0.0


def _drift(tasks: Sequence[MeasuredTask], computing: Mapping[Any, float]) -> float:
    """By how much the node that differs most is faster or slower than its tier."""
    by_node: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        if task.place in _NODE_PLACES and task.computing_ms > 0:
            by_node[task.node].append(task.computing_ms / computing[task.place, task.kind])
    return min(0.9, max((abs(statistics.fmean(ratios) - 1) for ratios in by_node.values()), default=0.0))
