"""`linucb`: a linear model of the reward, and optimism where it is unsure (Li et al., WWW 2010, algorithm 1).

One model for all places, since a row's features say what kind of place it is:

    score = theta . x + alpha sqrt(x' A^-1 x),   theta = A^-1 b,   A = ridge I + sum x x',   b = sum r x

with x the row's features and a constant, r the utility that came of it. A^-1 is kept by the Sherman-Morrison formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import FEATURES, TaskFacts
from .selection import best


@dataclass(frozen=True, slots=True)
class LinUcbSettings:
    """alpha: weight of what is not known yet; ridge: how strongly the model holds to zero before it has seen much."""

    alpha: float = 0.1
    ridge: float = 1.0


@register("linucb")
class LinUcbPolicy:
    """Learns from its own decisions as it goes, from nothing."""

    name = "linucb"
    ignores_floors = False

    def __init__(self, options: PolicyOptions, settings: LinUcbSettings | None = None) -> None:
        del options
        self._settings = settings or LinUcbSettings()
        size = len(FEATURES) + 1
        self._inverse = np.eye(size) / self._settings.ridge
        self._rewards = np.zeros(size)

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        rows = np.ones((len(candidates), len(FEATURES) + 1))
        rows[:, :-1] = candidates.features
        spread = rows @ self._inverse
        doubt = np.sqrt(np.maximum((spread * rows).sum(axis=1), 0.0))
        scores = spread @ self._rewards + self._settings.alpha * doubt
        return Choice(best(scores, allowed), scores, 1.0, "highest upper bound of a linear model")

    def observe(self, experience: Experience) -> None:
        row = np.append(experience.features[experience.chosen], 1.0)
        self._rewards += experience.utility * row
        reached = self._inverse @ row
        self._inverse -= np.outer(reached, reached) / (1 + row @ reached)

    def state_dict(self) -> dict[str, Any]:
        return {"inverse": self._inverse.tolist(), "rewards": self._rewards.tolist()}
