"""A trained network's scores in NumPy: what a vehicle computes at each decision, without torch.

Every candidate goes through the same small network, which also sees the mean of all that may be chosen. So the scores
do not depend on the candidates' order, and there may be any number of them.

    h_i = relu(W2 relu(W1 x_i + b1) + b2)        x_i: the candidate's inputs, clipped to what was trained on, scaled
    p   = mean of h_i over the allowed ones
    o_i = W4 relu(W3 [h_i, p] + b3) + b4         o_i: correction of the score, then the knobs' logits
    score_i = prior_weight * expected utility_i + o_i[0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import FEATURES
from .node_memory import INPUTS
from .weights import Weights

_UTILITY = FEATURES.index("utility")
Floats = NDArray[np.float32]


class SetScorer:
    """Built once from weights; a call costs four matrix products."""

    def __init__(self, weights: Weights) -> None:
        arrays = weights.arrays
        scale = arrays["scale"]
        # The scaling of the inputs is part of the first layer.
        self._body1 = arrays["body1.weight"].T / scale[:, None]
        self._bias1 = arrays["body1.bias"] - (arrays["mean"] / scale) @ arrays["body1.weight"].T
        self._body2, self._bias2 = np.ascontiguousarray(arrays["body2.weight"].T), arrays["body2.bias"]
        width = len(self._bias2)
        head = arrays["head1.weight"].T
        self._head_own, self._head_pool = np.ascontiguousarray(head[:width]), np.ascontiguousarray(head[width:])
        self._head_bias = arrays["head1.bias"]
        self._out, self._out_bias = np.ascontiguousarray(arrays["head2.weight"].T), arrays["head2.bias"]
        self._lowest, self._highest = arrays["lowest"], arrays["highest"]
        self._prior_weight = np.float32(weights.prior_weight)
        self.knobs = self._out.shape[1] - 1

    def __call__(self, inputs: Floats, allowed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """inputs: [n, len(INPUTS)], allowed: [n]. Scores, [n], and knobs, [n, knobs], each within 0 and 1."""
        scores, logits = self.outputs(inputs, allowed)
        return scores, np.reciprocal(1 + np.exp(-logits))

    def outputs(self, inputs: Floats, allowed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Scores, and the knobs' logits."""
        assert inputs.shape[1] == len(INPUTS)
        rows = np.minimum(np.maximum(inputs, self._lowest), self._highest)
        hidden = np.maximum(rows @ self._body1 + self._bias1, 0)
        hidden = np.maximum(hidden @ self._body2 + self._bias2, 0)
        free = allowed.astype(np.float32)
        pooled = (free @ hidden) / max(float(free.sum()), 1.0)
        head = np.maximum(hidden @ self._head_own + (pooled @ self._head_pool + self._head_bias), 0)
        out = head @ self._out + self._out_bias
        scores = out[:, 0] + self._prior_weight * inputs[:, _UTILITY]
        return scores.astype(np.float32, copy=False), out[:, 1:]
