"""When a vehicle asks what: a seeded schedule, so that two runs with one seed create the same tasks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from ..bus.kinds import KINDS, TaskKind


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task to be created `at_s` seconds into the run."""

    at_s: float
    kind: TaskKind


def arrivals(*, seed: int, vehicle: str, rate_hz: float, duration_s: float) -> Iterator[Arrival]:
    """Poisson arrivals with the kinds' shares; `vehicle` makes the vehicles of a fleet differ."""
    generator = random.Random(f"{seed}/{vehicle}")
    kinds = list(KINDS.values())
    shares = [kind.share for kind in kinds]
    at_s = 0.0
    while True:
        at_s += generator.expovariate(rate_hz)
        if at_s >= duration_s:
            return
        yield Arrival(at_s, generator.choices(kinds, shares)[0])
