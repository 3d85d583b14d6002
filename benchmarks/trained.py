"""The policies that were trained: which of them have weights in this installation, and their variants."""

from __future__ import annotations

from collections.abc import Iterable

from ..policy.base import Policy
from ..policy.served import ABLATIONS, KNOBS, ONE_FLEET, ServedPolicy
from ..policy.weights import bundled_weights, load_weights

TRAINED = ("bandit", "ddpg")
# Each beside what it differs from in one respect.
VARIANTS = {KNOBS: "ddpg", ONE_FLEET: "ddpg", **dict.fromkeys(ABLATIONS, ONE_FLEET)}


def with_weights(names: Iterable[str]) -> list[str]:
    return [name for name in names if bundled_weights(name).is_file()]


def variants() -> list[tuple[str, str]]:
    """Variants of `ddpg`, each with what it is compared with, where both have weights."""
    return [(name, of) for name, of in VARIANTS.items() if len(with_weights((name, of))) == 2]


def served(name: str) -> Policy:
    """A trained policy or variant with the package's weights; ModelError where it has none."""
    return ServedPolicy(name, load_weights(bundled_weights(name)))
