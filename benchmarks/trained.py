"""The policies that were trained: which of them have weights in this installation, and their ablations."""

from __future__ import annotations

from collections.abc import Iterable

from ..policy.base import Policy
from ..policy.served import ABLATIONS, COLLABORATIVE, ServedPolicy
from ..policy.weights import bundled_weights, load_weights

TRAINED = ("bandit", "ddpg", COLLABORATIVE)


def with_weights(names: Iterable[str]) -> list[str]:
    return [name for name in names if bundled_weights(name).is_file()]


def ablations() -> list[str]:
    """Variants of `ddpg` that lack one of its parts each."""
    return with_weights(ABLATIONS)


def served(name: str) -> Policy:
    """A trained policy or ablation with the package's weights; ModelError where it has none."""
    return ServedPolicy(name, load_weights(bundled_weights(name)))
