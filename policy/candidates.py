"""From what a vehicle knows of the nodes to one row per place where a task could run.

The live vehicle and the simulator build their rows here, so that a policy sees the same thing in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus import messages
from ..bus.places import PLACES, Place
from .features import Observed, TaskFacts, estimate, feature_matrix
from .utility import UtilityModel

DEAD = "dead"
SILENT = "silent"
REFUSED = "refused"
FLOOR = "below-floor"
GARBLED = "garbled"
UNREACHABLE = "unreachable"

_PLACE_INDEX = {place: index for index, place in enumerate(PLACES)}
_LONGEST_MS = 1e9


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as one vehicle sees it.

    age_ms: since the newest load report; unreported: own tasks sent since then, which that report does not count.
    network_ms: expected round trip without queueing and inference.
    """

    state: messages.NodeState
    age_ms: float
    unreported: int
    network_ms: float
    refused: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """A table with one row per (node, place): what a policy sees, and what it is expected to cost.

    masked: why a row may not be chosen; empty where it may.
    features: [n, len(FEATURES)]; every other array is [n]. wait_ms: on the link and for a slot together.
    upload_ms: what of network_ms the link is busy with this task.
    utility: expected, and myopic: of this task alone.
    in_flight: tasks queued and running as last reported, and own ones that were not reported yet.
    """

    nodes: tuple[str, ...]
    places: tuple[Place, ...]
    masked: tuple[str, ...]
    features: NDArray[np.float32]
    latency_ms: NDArray[np.float64]
    upload_ms: NDArray[np.float64]
    network_ms: NDArray[np.float64]
    wait_ms: NDArray[np.float64]
    service_ms: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    quality: NDArray[np.float64]
    utility: NDArray[np.float64]
    in_flight: NDArray[np.float64]
    slots: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.nodes)

    def rows(self, scores: Sequence[float] | NDArray[np.floating[Any]]) -> tuple[messages.Candidate, ...]:
        """The table as it travels and is kept, with the scores that a policy gave."""
        columns = zip(
            self.nodes,
            self.places,
            np.asarray(scores, float).tolist(),
            self.latency_ms.tolist(),
            self.energy_j.tolist(),
            self.quality.tolist(),
            self.masked,
            map(tuple, self.features.tolist()),
            strict=True,
        )
        return tuple(messages.Candidate(*row) for row in columns)


def candidates_of(
    task: TaskFacts,
    observed: Observed,
    utility: UtilityModel,
    *,
    nodes: tuple[str, ...],
    places: tuple[Place, ...],
    masked: tuple[str, ...],
) -> Candidates:
    """The table of what was observed; row by row in its order."""
    estimates = estimate(task, observed, utility)
    return Candidates(
        nodes=nodes,
        places=places,
        masked=masked,
        features=feature_matrix(task, observed, estimates, utility),
        latency_ms=estimates.latency_ms,
        upload_ms=observed.upload_ms,
        network_ms=estimates.network_ms,
        wait_ms=estimates.link_wait_ms + estimates.compute_wait_ms,
        service_ms=observed.service_ms,
        energy_j=estimates.energy_j,
        quality=observed.quality,
        utility=estimates.utility,
        in_flight=observed.in_flight + observed.unreported,
        slots=observed.slots,
    )


def build_candidates(
    task: TaskFacts, nodes: Iterable[NodeView], utility: UtilityModel, *, silent_after_ms: float
) -> Candidates:
    """One row per (node, place), the vehicle's own included; `masked` says why a row may not be chosen.

    A node is masked when its last will said that it is dead, when it has been silent for `silent_after_ms`, when it
    has refused this very task, when its figures are no numbers, or when its measured quality is below the task's floor.
    """
    places: list[tuple[NodeView, Place]] = [(view, place) for view in nodes for place in view.state.places]
    rows = [_observe(task, view, place, utility) for view, place in places]
    finite = [all(map(math.isfinite, row)) for row in rows]
    # What no number can be read from is masked, and must not spoil its neighbours.
    sound_rows = [row if sound else _NOTHING for row, sound in zip(rows, finite, strict=True)]
    columns = np.array(sound_rows).reshape(-1, len(_NOTHING)).T
    return candidates_of(
        task,
        Observed(np.array([_PLACE_INDEX[place] for _, place in places], np.intp), *columns),
        utility,
        nodes=tuple(view.state.node for view, _ in places),
        places=tuple(place for _, place in places),
        masked=tuple(
            _mask(task, view, place, silent_after_ms) if sound else GARBLED
            for (view, place), sound in zip(places, finite, strict=True)
        ),
    )


# In place of a row that is no numbers: nothing known, one slot.
_NOTHING = (0.0,) * 10 + (1.0,)


def _observe(task: TaskFacts, view: NodeView, place: Place, utility: UtilityModel) -> tuple[float, ...]:
    """A row of `Observed` without its place, in the order of its fields."""
    state, load = view.state, view.state.load
    own_place = place == "vehicle"
    network_ms = 0.0 if own_place else min(view.network_ms, _LONGEST_MS)
    # The vehicle times round trips as a whole; what the picture's upload should take of one counts as upload.
    upload_ms = 0.0 if own_place else min(utility.nominal_upload_ms(task.upload_bytes), network_ms)
    wait_ms = service_ms = in_flight = 0.0
    slots = 1.0
    if load is not None:
        wait_ms = min(max(load.wait_ms, 0.0), _LONGEST_MS)
        service_ms = min(max(load.service_ms.get(place, {}).get(task.kind, 0.0), 0.0), _LONGEST_MS)
        in_flight = float(load.queued + load.running)
        slots = float(max(1, load.slots))
    return (
        upload_ms,
        network_ms - upload_ms,
        0.0,  # of the queues on its links a vehicle hears nothing
        wait_ms,
        view.age_ms,
        float(view.unreported),
        service_ms,
        state.slot_power_w,
        state.quality.get(place, {}).get(task.kind, 0.0),
        in_flight,
        slots,
    )


def _mask(task: TaskFacts, view: NodeView, place: Place, silent_after_ms: float) -> str:
    if not view.state.alive:
        return DEAD
    if place != "vehicle" and view.age_ms > silent_after_ms:
        return SILENT
    if view.refused:
        return REFUSED
    if view.state.quality.get(place, {}).get(task.kind, 0.0) < task.qos_floor:
        return FLOOR
    return ""
