"""`random`: a place drawn evenly, then a node of it drawn evenly. It shows every path at work."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts


@register("random")
class RandomPolicy:
    """Seeded. Floors do not bind it: its use is to visit every place."""

    name = "random"
    ignores_floors = True

    def __init__(self, options: PolicyOptions) -> None:
        self._random = random.Random(options.seed)

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        by_place: dict[str, list[int]] = {}
        for index in np.flatnonzero(allowed).tolist():
            by_place.setdefault(candidates.places[index], []).append(index)
        nodes = by_place[self._random.choice(sorted(by_place))]
        index = self._random.choice(nodes)
        propensity = 1 / (len(by_place) * len(nodes))
        return Choice(index, np.zeros(len(candidates)), propensity, "drawn at random")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
