"""`greedy-delay`: the place that is expected to answer first (join the shortest expected delay)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts
from .selection import best


@register("greedy-delay")
class GreedyDelayPolicy:
    """Myopic, and blind to how good an answer is: where floors do not forbid it, a narrator that is at hand wins."""

    name = "greedy-delay"
    ignores_floors = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        scores = -candidates.latency_ms
        return Choice(best(scores, allowed), scores, 1.0, "shortest expected delay")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
