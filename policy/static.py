"""`static`: every task goes to one place, whatever it costs. The baseline of every comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import ConfigurationError
from ..bus.places import PLACES, Place
from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts
from .selection import best


@register("static")
class StaticPolicy:
    """Among several nodes of the place it takes the one with the shortest expected latency."""

    name = "static"
    ignores_floors = True

    def __init__(self, options: PolicyOptions) -> None:
        if options.place is None:
            raise ConfigurationError(f"the policy 'static' needs --place: {', '.join(PLACES)}")
        self._place: Place = options.place

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        at_place = allowed & np.array([place == self._place for place in candidates.places])
        scores = -candidates.latency_ms
        if not at_place.any():
            # Without a living node at the place, the next best thing is whatever is still allowed.
            return Choice(best(scores, allowed), scores, 1.0, f"no {self._place} to be had")
        return Choice(best(scores, at_place), scores, 1.0, f"always {self._place}")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
