"""Policies whose scores a trained network gives, served with NumPy: DDPG and the neural bandit.

Beside the two stand, for a bench to compare, DDPG that also sets the knobs, DDPG that has met one fleet alone, and that
with one thing changed (training/recipes.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import WeightsError
from ..bus.places import Place
from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience, Knobs
from .features import FEATURES, TaskFacts
from .node_memory import NodeMemory
from .scorer import SetScorer
from .selection import best
from .weights import Weights, bundled_weights, load_weights

KNOBS, ONE_FLEET = "ddpg-knobs", "ddpg-one-fleet"
# Of ONE_FLEET.
ABLATIONS = (
    "ddpg-1-step",
    "ddpg-gaussian-noise",
    "ddpg-ornstein-uhlenbeck-noise",
    "ddpg-no-memory",
)

_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.5, 1.0
_SMALLEST_FRAME_SCALE = 0.25


class ServedPolicy:
    """The highest score among the allowed rows. It remembers how slow nodes are; its weights stay as they are."""

    ignores_floors = False

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self._memory = NodeMemory()
        self.use(weights)

    def use(self, weights: Weights, label: str = "") -> None:
        """Score with other weights from the next decision on; what is remembered of nodes stays.

        label: whose they are; see `Decision`. Raises WeightsError, and stays as it is, where they give no numbers.
        """
        scorer = SetScorer(weights)
        extremes = np.stack([weights.arrays[name] for name in ("lowest", "mean", "highest")])
        with np.errstate(all="ignore"):
            outputs = scorer.outputs(extremes, np.ones(len(extremes), np.bool_))
        if not all(np.isfinite(values).all() for values in outputs):
            raise WeightsError("not finite", "these weights give scores that are no finite numbers")
        self._scorer, self.feature_range, self.weights_label = scorer, _trusted(weights), label

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        scores, knobs = self._scorer(self._memory.inputs(candidates), allowed)
        index = best(scores, allowed)
        chosen = knobs_of(knobs[index], candidates.places[index])
        return Choice(index, scores, 1.0, "highest score of a trained network", chosen)

    def observe(self, experience: Experience) -> None:
        self._memory.observe(experience)

    def state_dict(self) -> dict[str, Any]:
        return self._memory.state_dict()


def _trusted(weights: Weights) -> NDArray[np.float32]:
    """[2, len(FEATURES)] between which values the guard may trust it: what it met, and half as much on either side."""
    met = np.stack((weights.arrays["lowest"], weights.arrays["highest"]))[:, : len(FEATURES)]
    margin = (met[1] - met[0]) / 2
    return met + np.stack((-margin, margin))


def knobs_of(values: NDArray[np.float32], place: Place) -> Knobs:
    """The knobs that a network's outputs, each within 0 and 1, stand for; those that mean nothing there are left out.

    A network that gives none leaves them to the nodes.
    """
    if not len(values) or place == "vehicle":
        return Knobs()
    threshold = _LOWEST_THRESHOLD + (_HIGHEST_THRESHOLD - _LOWEST_THRESHOLD) * float(values[0])
    return Knobs(
        exit_threshold=threshold if place == "edge+cloud" else None,
        frame_scale=_SMALLEST_FRAME_SCALE + (1 - _SMALLEST_FRAME_SCALE) * float(values[1]),
    )


def _serve(name: str, options: PolicyOptions) -> ServedPolicy:
    return ServedPolicy(name, load_weights(options.weights or bundled_weights(name)))


# ddpg (training/ddpg.py) minds what a choice does to later tasks; bandit (training/bandit.py), the same network, only
# what it brings its own. Of the others those are known that have been trained.
for _name in ("ddpg", "bandit", *(name for name in (KNOBS, ONE_FLEET, *ABLATIONS) if bundled_weights(name).exists())):
    register(_name)(partial(_serve, _name))
