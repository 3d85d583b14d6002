"""`static`: every task goes to one place, whatever it costs. The baseline of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..bus.errors import ConfigurationError
from ..bus.messages import Candidate, Outcome
from ..bus.places import PLACES, Place
from .base import Choice, PolicyOptions, register
from .candidates import TaskFacts


@register("static")
class StaticPolicy:
    """Among several nodes of the place it takes the one with the shortest expected latency."""

    name = "static"
    ignores_floors = True

    def __init__(self, options: PolicyOptions) -> None:
        if options.place is None:
            raise ConfigurationError(f"the policy 'static' needs --place: {', '.join(PLACES)}")
        self._place: Place = options.place

    def decide(self, task: TaskFacts, candidates: Sequence[Candidate], allowed: Sequence[bool]) -> Choice:
        at_place = [i for i, row in enumerate(candidates) if allowed[i] and row.place == self._place]
        # Without a living node at the place, the next best thing is whatever is still allowed.
        pool = at_place or [i for i, free in enumerate(allowed) if free]
        index = min(pool, key=lambda i: candidates[i].latency_ms)
        reason = f"always {self._place}" if at_place else f"no {self._place} to be had"
        return Choice(index, tuple(-row.latency_ms for row in candidates), 1.0, reason)

    def observe(self, outcome: Outcome) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
