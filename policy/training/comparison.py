"""What another policy would have brought on decisions that were made by this one: a doubly robust estimate.

Dudik, Langford and Li, "Doubly robust policy evaluation and learning" (ICML 2011): with r_hat a model of the reward and
p the probability with which a was taken,

    V(pi) = mean of r_hat(s, pi(s)) + 1[pi(s) = a] / p * (r - r_hat(s, a))

It is right where the model is, and where the two policies agree whether the model is right or not. It counts what a
decision brings its own task, and not what it does to later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..scorer import SetScorer
from ..selection import best
from .experience_stream import Decided

_LARGEST_WEIGHT = 20.0
_Z_95 = 1.959964

RewardModel = Callable[[Decided], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """difference: of utility per decision, the candidate's less the current one's; within the bounds, 95% sure.

    agreement: share of decisions on which they agree. decisions: how many were compared.
    """

    difference: float
    lower: float
    upper: float
    agreement: float
    decisions: int


def compare(held_out: Sequence[Decided], candidate: SetScorer, current: SetScorer, rewards: RewardModel) -> Comparison:
    """On decisions that neither the candidate nor the reward model has learnt from; ValueError for fewer than two."""
    if len(held_out) < 2:
        raise ValueError("a comparison needs two decisions or more")
    differences = np.zeros(len(held_out))
    agreed = 0
    for index, decided in enumerate(held_out):
        inputs, allowed = decided.observation
        ours, theirs = (best(scorer(inputs, allowed)[0], allowed) for scorer in (candidate, current))
        agreed += ours == theirs
        expected = rewards(decided)
        differences[index] = _value(ours, decided, expected) - _value(theirs, decided, expected)
    mean = float(differences.mean())
    half = _Z_95 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Comparison(mean, mean - half, mean + half, agreed / len(held_out), len(held_out))


def _value(choice: int, decided: Decided, expected: NDArray[np.float32]) -> float:
    experience = decided.experience
    value = float(expected[choice])
    if choice == experience.chosen:
        weight = min(1 / max(experience.propensity, 1e-9), _LARGEST_WEIGHT)
        value += weight * (experience.utility - float(expected[choice]))
    return value
