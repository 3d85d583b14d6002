"""`greedy-utility`: the place with the highest expected utility now, from the nodes' own reports. The default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..bus.messages import Candidate, Outcome
from .base import Choice, PolicyOptions, register
from .candidates import TaskFacts, utility_of


@register("greedy-utility")
class GreedyUtilityPolicy:
    """Myopic: it looks at this task only and learns nothing."""

    name = "greedy-utility"
    ignores_floors = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def decide(self, task: TaskFacts, candidates: Sequence[Candidate], allowed: Sequence[bool]) -> Choice:
        scores = tuple(utility_of(row) for row in candidates)
        index = max((i for i, free in enumerate(allowed) if free), key=scores.__getitem__)
        return Choice(index, scores, 1.0, "highest expected utility")

    def observe(self, outcome: Outcome) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
