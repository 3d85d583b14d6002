"""Now and then another place than the best one, so that a learner hears what it would have brought."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from .base import Choice


class EvenExploration:
    """share: of the decisions that are drawn evenly among the allowed rows.

    A policy that draws its choices explores by itself and is left alone: only what was certain is drawn anew, and the
    propensity then says how likely the choice was.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._random = random.Random(f"{seed}/exploration")

    def perhaps(self, choice: Choice, allowed: NDArray[np.bool_]) -> Choice:
        """The choice, or one that is drawn in its place; its scores stay."""
        if not self._share or choice.propensity < 1:
            return choice
        rows = np.flatnonzero(allowed)
        evenly = self._share / len(rows)
        if self._random.random() < self._share:
            index = int(rows[self._random.randrange(len(rows))])
            if index != choice.index:
                return Choice(index, choice.scores, evenly, "drawn to learn from")
        return Choice(choice.index, choice.scores, 1 - self._share + evenly, choice.reason, choice.knobs)
