"""Taking one of the rows that may be taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .candidates import FLOOR

Scores = Sequence[float] | NDArray[np.floating[Any]]


def best(scores: Scores, allowed: NDArray[np.bool_]) -> int:
    """Index of the highest score among the allowed rows, the first of equals. At least one must be allowed."""
    return int(np.where(allowed, scores, -np.inf).argmax())


def allowed_rows(masked: Sequence[str], places: Sequence[str], *, ignores_floors: bool = False) -> NDArray[np.bool_]:
    """Which rows a policy may take, [n].

    Where nothing is above the floor, any living place is better than silence, the vehicle's own at the least.
    """
    allowed = np.array([not why or (ignores_floors and why == FLOOR) for why in masked], np.bool_)
    if not allowed.any():
        allowed = np.array([why == FLOOR for why in masked], np.bool_)
    if not allowed.any():
        allowed = np.array([place == "vehicle" for place in places], np.bool_)
    return allowed
