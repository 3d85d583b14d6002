"""What a policy remembers of the nodes while it serves, as further features beside those of policy/features.py.

A report says what a node promises, and outcomes say what it keeps: how much longer than promised it computes is known
to nobody in advance, differs from node to node, and shows in every answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates
from .experience import Experience
from .features import FEATURES

MEMORY_FEATURES = ("slowness", "slowness_doubt")
INPUTS = (*FEATURES, *MEMORY_FEATURES)

_SERVICE = FEATURES.index("service_per_deadline")
_PRIOR_OUTCOMES = 3.0  # it takes so many to believe half of what they say
_FORGETTING = 0.95  # of the weight of older outcomes, with each new one of the same node
_LIMIT = 1.5  # of the logarithm of a single outcome's slowness


class NodeMemory:
    """slowness: mean logarithm of measured over promised computing time, of each (node, place), 0 before any outcome.

    slowness_doubt: 1 / sqrt(outcomes that count), from 0.58 downwards.
    """

    def __init__(self) -> None:
        self._features: dict[tuple[str, str], tuple[float, float]] = {}
        self._sums: dict[tuple[str, str], tuple[float, float]] = {}

    def observe(self, experience: Experience) -> None:
        """Take in one outcome; one without an answer of the chosen place says nothing of its speed."""
        promised_ms = float(experience.features[experience.chosen, _SERVICE]) * experience.task.remaining_ms
        if experience.service_ms <= 0 or promised_ms <= 0:
            return
        slowness = min(max(math.log(max(experience.service_ms, 1e-6) / promised_ms), -_LIMIT), _LIMIT)
        key = (experience.node, experience.place)
        total, count = self._sums.get(key, (0.0, _PRIOR_OUTCOMES))
        total, count = _FORGETTING * total + slowness, _FORGETTING * count + 1
        self._sums[key] = total, count
        self._features[key] = total / count, 1 / math.sqrt(count)

    def inputs(self, candidates: Candidates) -> NDArray[np.float32]:
        """The candidates' features with the memory's beside them, [n, len(INPUTS)]."""
        return self.inputs_of(candidates.features, zip(candidates.nodes, candidates.places, strict=True))

    def inputs_of(self, features: NDArray[np.float32], rows: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """The same of features alone, [n, len(FEATURES)], and the (node, place) of each."""
        remembered = self._features
        inputs = np.empty((len(features), len(INPUTS)), np.float32)
        inputs[:, : len(FEATURES)] = features
        inputs[:, len(FEATURES) :] = [remembered.get(row, _UNKNOWN) for row in rows]
        return inputs

    def state_dict(self) -> dict[str, Any]:
        return {f"{node} {place}": list(sums) for (node, place), sums in self._sums.items()}


_UNKNOWN = (0.0, 1 / math.sqrt(_PRIOR_OUTCOMES))
