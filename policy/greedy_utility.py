"""`greedy-utility`: the place with the highest expected utility now, from the nodes' own reports. The default."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts
from .selection import best


@register("greedy-utility")
class GreedyUtilityPolicy:
    """Myopic: it looks at this task only and learns nothing."""

    name = "greedy-utility"
    ignores_floors = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        scores = candidates.utility
        index = best(scores, allowed)
        return Choice(index, scores, 1.0, f"highest expected utility{_ahead_of(index, candidates, allowed)}")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


def _ahead_of(index: int, candidates: Candidates, allowed: NDArray[np.bool_]) -> str:
    """What else there was, for people: the next best row, and by how much it is behind."""
    others = allowed.copy()
    others[index] = False
    if not others.any():
        return ", of the only place left"
    other = best(candidates.utility, others)
    ahead = float(candidates.utility[index] - candidates.utility[other])
    return f", {ahead:.3f} ahead of {candidates.nodes[other]} ({candidates.places[other]})"
