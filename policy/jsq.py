"""`jsq`: join the shortest queue, as long as it lasts: JSQ(d) of Mitzenmacher (IEEE TPDS 12(10), 2001).

It counts tasks and asks for no estimate of links; a queue's length is what its tasks take at the place's speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts


@dataclass(frozen=True, slots=True)
class JsqSettings:
    """choices: d, how many rows are drawn at random to choose from; 0: all of them."""

    choices: int = 3


@register("jsq")
class JsqPolicy:
    """score = -(tasks there, this one included) / slots * service time; equals are drawn from at random."""

    name = "jsq"
    ignores_floors = False

    def __init__(self, options: PolicyOptions, settings: JsqSettings | None = None) -> None:
        self._choices = (settings or JsqSettings()).choices
        self._random = np.random.default_rng(options.seed)

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        scores = -(candidates.in_flight + 1) / candidates.slots * candidates.service_ms
        rows = np.flatnonzero(allowed)
        drawn = min(self._choices, len(rows)) or len(rows)
        pool = rows if drawn == len(rows) else self._random.choice(rows, drawn, replace=False)
        shortest = pool[scores[pool] == scores[pool].max()]
        index = int(self._random.choice(shortest)) if len(shortest) > 1 else int(shortest[0])
        return Choice(index, scores, _propensity(scores[rows], scores[index], drawn), "shortest queue")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


def _propensity(scores: NDArray[np.float64], chosen: float, drawn: int) -> float:
    """Of a row with the score `chosen`: none that is better is among those drawn, but one that is as good."""
    better = int((scores > chosen).sum())
    as_good = int((scores == chosen).sum())
    others = len(scores) - better
    favourable = math.comb(others, drawn) - math.comb(others - as_good, drawn)
    return favourable / math.comb(len(scores), drawn) / as_good
