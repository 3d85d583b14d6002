"""What a policy sees of each place: estimates from the last reports, and the row of numbers made of them.

The live vehicle and the simulator fill the same structure of arrays, `Observed`, and everything after it is shared.
All arithmetic is on arrays of n places at once: a decision has a fraction of a millisecond.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bus.places import PLACES
from .utility import UtilityModel

FEATURES = (
    *(f"is_{place}" for place in PLACES),
    "network_per_deadline",
    "link_wait_per_deadline",
    "compute_wait_per_deadline",
    "service_per_deadline",
    "latency_per_deadline",
    "in_time",
    "energy_per_reference",
    "quality",
    "utility",
    "link_wait_s",
    "compute_wait_s",
    "deadline_per_6s",
    "upload_per_4mb",
    "tokens_per_50",
    "slack",
    "state_age_s",
    "tokens_per_second_per_60",
    "unreported",
)
# Raised when a feature keeps its name and changes its meaning: weights trained before then must not be used.
_MEANING = 1
FEATURE_SCHEMA = hashlib.sha256("\n".join((f"v{_MEANING}", *FEATURES)).encode()).hexdigest()[:16]

UPLOAD_UNIT_BYTES = 4e6
TOKENS_UNIT = 50.0
_DEADLINE_UNIT_MS = 6000.0
_TOKEN_RATE_UNIT_HZ = 60.0
_TIME_CAP = 3.0  # in deadlines, or seconds of queue: how late is too late stops mattering
_SLACK_SLOPE = 4.0  # the slack is told apart finely within a quarter of the deadline
FEATURE_LIMIT = 10.0  # of every feature: what a garbled report says must not dwarf all the rest


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a decision needs to know of a task.

    remaining_ms: what is left of deadline_ms now. tokens: the answer's expected length.
    """

    kind: str
    deadline_ms: float
    remaining_ms: float
    qos_floor: float
    upload_bytes: int
    tokens: float


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What a dispatcher knows of n places where a task could run; every array is [n].

    place: index into PLACES.
    upload_ms: air time of this task's upload; round_trip_ms: what the network takes besides.
    link_wait_ms: until the upload could begin. compute_wait_ms: for a slot, as the place's node reported age_ms ago.
    unreported: own tasks that went there since, which that report does not count.
    service_ms: inference of this task; power_w: electric power meanwhile. quality: probability of a right answer.
    in_flight: tasks queued and running there as reported; slots: tasks that are answered at a time.
    """

    place: NDArray[np.intp]
    upload_ms: NDArray[np.float64]
    round_trip_ms: NDArray[np.float64]
    link_wait_ms: NDArray[np.float64]
    compute_wait_ms: NDArray[np.float64]
    age_ms: NDArray[np.float64]
    unreported: NDArray[np.float64]
    service_ms: NDArray[np.float64]
    power_w: NDArray[np.float64]
    quality: NDArray[np.float64]
    in_flight: NDArray[np.float64]
    slots: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What an answer from each of n places is expected to cost; every array is [n]."""

    network_ms: NDArray[np.float64]
    link_wait_ms: NDArray[np.float64]
    compute_wait_ms: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    utility: NDArray[np.float64]


def estimate(task: TaskFacts, observed: Observed, utility: UtilityModel) -> Estimates:
    """Latency, energy and utility of the task at each place, if nobody else sent anything there.

    A reported queue has been worked off since the report, and is while the task is on its way; our own tasks have
    joined it.
    """
    upload_ms, service_ms = observed.upload_ms, observed.service_ms
    link_wait_ms = observed.link_wait_ms
    arrives_ms = observed.age_ms + link_wait_ms + upload_ms
    compute_wait_ms = np.maximum(observed.compute_wait_ms - arrives_ms, 0.0)
    compute_wait_ms += observed.unreported * service_ms / observed.slots
    network_ms = upload_ms + observed.round_trip_ms
    latency_ms = network_ms + link_wait_ms + compute_wait_ms + service_ms
    energy_j = (observed.power_w * service_ms + utility.transmit_power_w * upload_ms) / 1000
    return Estimates(
        network_ms=network_ms,
        link_wait_ms=link_wait_ms,
        compute_wait_ms=compute_wait_ms,
        latency_ms=latency_ms,
        energy_j=energy_j,
        utility=utility.utility(
            latency_ms=latency_ms, deadline_ms=task.remaining_ms, energy_j=energy_j, quality=observed.quality
        ),
    )


def feature_matrix(
    task: TaskFacts, observed: Observed, estimates: Estimates, utility: UtilityModel
) -> NDArray[np.float32]:
    """[n, len(FEATURES)], one row per place; finite, and within [-10, 10], for any finite input."""
    rows = len(observed.place)
    columns = np.zeros((len(FEATURES), rows))
    columns[observed.place, np.arange(rows)] = 1.0
    times = columns[4:9]
    times[0] = estimates.network_ms
    times[1] = estimates.link_wait_ms
    times[2] = estimates.compute_wait_ms
    times[3] = observed.service_ms
    times[4] = estimates.latency_ms
    columns[13:15] = np.minimum(times[1:3] / 1000, _TIME_CAP)
    times /= task.remaining_ms
    columns[18] = np.maximum(np.minimum((1 - times[4]) * _SLACK_SLOPE, 1.0), -1.0)
    np.minimum(times, _TIME_CAP, out=times)
    columns[9] = estimates.latency_ms <= task.remaining_ms
    columns[10] = estimates.energy_j / utility.reference_energy_j
    columns[11] = observed.quality
    columns[12] = estimates.utility
    columns[15] = task.deadline_ms / _DEADLINE_UNIT_MS
    columns[16] = task.upload_bytes / UPLOAD_UNIT_BYTES
    columns[17] = task.tokens / TOKENS_UNIT
    columns[19] = observed.age_ms / 1000
    # A place that answers at once, as the narrator does, has the rate of the limit.
    columns[20] = task.tokens * (1000 / _TOKEN_RATE_UNIT_HZ) / np.maximum(observed.service_ms, 1e-3)
    columns[21] = observed.unreported
    return np.clip(columns, -FEATURE_LIMIT, FEATURE_LIMIT).T.astype(np.float32)
