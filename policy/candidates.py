"""From what a vehicle knows of the nodes to one row per place where a task could run.

The live vehicle and the simulator build their rows here, so that a policy sees the same thing in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..bus.messages import Candidate, NodeState
from ..bus.places import PLACES, Place
from .utility import UtilityModel

FEATURES = (
    *(f"is_{place}" for place in PLACES),
    "network_per_deadline",
    "wait_per_deadline",
    "service_per_deadline",
    "latency_per_deadline",
    "in_time",
    "energy_per_reference",
    "quality",
    "utility",
    "state_age_s",
    "deadline_s",
)
_TIME_CAP = 3.0  # in deadlines: how late is too late stops mattering

DEAD = "dead"
SILENT = "silent"
REFUSED = "refused"
FLOOR = "below-floor"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a decision needs to know of a task. remaining_ms: what is left of deadline_ms now."""

    kind: str
    deadline_ms: float
    remaining_ms: float
    qos_floor: float
    upload_bytes: int


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as one vehicle sees it.

    age_ms: since the newest load report; unreported: own tasks sent since then, which that report does not count.
    network_ms: expected round trip without queueing and inference.
    """

    state: NodeState
    age_ms: float
    unreported: int
    network_ms: float
    refused: bool = False


def build_candidates(
    task: TaskFacts, nodes: Iterable[NodeView], utility: UtilityModel, *, silent_after_ms: float
) -> list[Candidate]:
    """One row per (node, place), the vehicle's own included; `masked` says why a row may not be chosen.

    A node is masked when its last will said that it is dead, when it has been silent for `silent_after_ms`, when it
    has refused this very task, or when its measured quality is below the task's floor.
    """
    return [_row(task, view, place, utility, silent_after_ms) for view in nodes for place in view.state.places]


def _row(task: TaskFacts, view: NodeView, place: Place, utility: UtilityModel, silent_after_ms: float) -> Candidate:
    state, load = view.state, view.state.load
    own_place = place == "vehicle"
    quality = state.quality.get(place, {}).get(task.kind, 0.0)
    network_ms = 0.0 if own_place else view.network_ms
    service_ms = wait_ms = 0.0
    if load is not None:
        service_ms = load.service_ms.get(place, {}).get(task.kind, 0.0)
        # The reported queue has been worked off since the report, and our own tasks have joined it.
        wait_ms = max(0.0, load.wait_ms - view.age_ms) + view.unreported * service_ms / max(1, load.slots)
    latency_ms = network_ms + wait_ms + service_ms
    energy_j = state.slot_power_w * service_ms / 1000
    if not own_place:
        energy_j += utility.transmit_energy_j(task.upload_bytes)
    value = utility.utility(latency_ms=latency_ms, deadline_ms=task.remaining_ms, energy_j=energy_j, quality=quality)

    masked = ""
    if not state.alive:
        masked = DEAD
    elif not own_place and view.age_ms > silent_after_ms:
        masked = SILENT
    elif view.refused:
        masked = REFUSED
    elif quality < task.qos_floor:
        masked = FLOOR

    def per_deadline(time_ms: float) -> float:
        return min(time_ms / task.remaining_ms, _TIME_CAP)

    return Candidate(
        node=state.node,
        place=place,
        score=0.0,
        latency_ms=latency_ms,
        energy_j=energy_j,
        quality=quality,
        masked=masked,
        features=(
            *(float(place == other) for other in PLACES),
            per_deadline(network_ms),
            per_deadline(wait_ms),
            per_deadline(service_ms),
            per_deadline(latency_ms),
            float(latency_ms <= task.remaining_ms),
            energy_j / utility.reference_energy_j,
            quality,
            value,
            view.age_ms / 1000,
            task.deadline_ms / 1000,
        ),
    )


def utility_of(candidate: Candidate) -> float:
    """The expected utility that the row was built with."""
    return candidate.features[FEATURES.index("utility")]
