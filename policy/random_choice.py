"""`random`: a place drawn evenly, then a node of it drawn evenly. It shows every path at work."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..bus.messages import Candidate, Outcome
from .base import Choice, PolicyOptions, register
from .candidates import TaskFacts


@register("random")
class RandomPolicy:
    """Seeded. Floors do not bind it: its use is to visit every place."""

    name = "random"
    ignores_floors = True

    def __init__(self, options: PolicyOptions) -> None:
        self._random = random.Random(options.seed)

    def decide(self, task: TaskFacts, candidates: Sequence[Candidate], allowed: Sequence[bool]) -> Choice:
        by_place: dict[str, list[int]] = {}
        for index, row in enumerate(candidates):
            if allowed[index]:
                by_place.setdefault(row.place, []).append(index)
        nodes = by_place[self._random.choice(sorted(by_place))]
        index = self._random.choice(nodes)
        propensity = 1 / (len(by_place) * len(nodes))
        return Choice(index, (0.0,) * len(candidates), propensity, "drawn at random")

    def observe(self, outcome: Outcome) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
