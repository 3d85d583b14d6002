"""Sampling with shared noise: edge and cloud draw the same random numbers without telling each other.

A token is sampled as argmax(logits / temperature + noise) with Gumbel noise, which is a draw from the softmax of
logits / temperature (the Gumbel-max trick). The noise depends on nothing but a seed and the token's position, so two
machines that see the same logits say the same token, and a smaller model which sees similar ones mostly does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_UNITS = 2.0**-53


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature: above 0; 1 is the model's own distribution. seed: 0 to 2**63 - 1, of one answer."""

    temperature: float
    seed: int

    def pick(self, logits: NDArray[np.float32], position: int) -> int:
        """The token that follows the first `position` positions, from its logits [vocabulary]."""
        scaled = logits.astype(np.float64) / self.temperature
        return int(np.argmax(scaled + gumbel_noise(self.seed, position, len(logits))))


def gumbel_noise(seed: int, position: int, size: int) -> NDArray[np.float64]:
    """Standard Gumbel numbers [size], the same on every machine for the same seed and position.

    From the raw bits of a counter-based generator (Philox), because NumPy promises the same bits for ever and not the
    same distributions.
    """
    bits = np.random.Philox(key=np.array([seed, position], dtype=np.uint64)).random_raw(size)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * _UNITS  # strictly between 0 and 1
    return -np.log(-np.log(uniform))
