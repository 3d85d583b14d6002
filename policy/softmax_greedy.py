"""`softmax-greedy`: a place drawn with a probability that grows with its expected utility.

Where many decide from the same stale reports, plain greedy sends all of them to the same place until the next report;
a little chance spreads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts
from .softmax import draw_by_softmax


@dataclass(frozen=True, slots=True)
class SoftmaxGreedySettings:
    """temperature: in units of utility; what differs by much less is drawn about equally often."""

    temperature: float = 0.2


@register("softmax-greedy")
class SoftmaxGreedyPolicy:
    name = "softmax-greedy"
    ignores_floors = False

    def __init__(self, options: PolicyOptions, settings: SoftmaxGreedySettings | None = None) -> None:
        self._temperature = (settings or SoftmaxGreedySettings()).temperature
        self._random = np.random.default_rng(options.seed)

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        scores = candidates.utility
        index, propensity = draw_by_softmax(scores, allowed, self._temperature, self._random)
        return Choice(index, scores, propensity, "drawn by expected utility")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}
