"""Drawing a row with a probability that grows with its score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_by_softmax(
    scores: NDArray[np.float64], allowed: NDArray[np.bool_], temperature: float, random: np.random.Generator
) -> tuple[int, float]:
    """An allowed row's index, drawn with probability exp(score / temperature) / sum, and that probability."""
    logits = np.where(allowed, scores, -np.inf)
    weights = np.exp((logits - logits.max()) / temperature)
    cumulative = weights.cumsum()
    # Where rounding puts the draw at the very end, the last row might be a masked one: searchsorted finds the first
    # row that reaches the draw, and only an allowed one adds to the sum.
    index = int(cumulative.searchsorted(random.random() * cumulative[-1], side="right"))
    return index, float(weights[index] / cumulative[-1])
