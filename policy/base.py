"""The interface of a policy, and the registry by name.

A policy is one class in one file: it gets the table of policy/candidates.py and says which of the allowed rows to
take. It sees neither network nor clock, so the same object runs in a vehicle, in the simulator and in a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import ConfigurationError
from ..bus.places import Place
from .candidates import Candidates
from .experience import Experience, Knobs
from .features import TaskFacts
from .selection import Scores


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a policy says.

    index: into the candidates; scores: one per candidate, higher is better, comparable within this choice only.
    propensity: probability with which this policy takes this index here (1 for a deterministic one), which is what
        later off-policy evaluation needs.
    """

    index: int
    scores: Scores
    propensity: float
    reason: str
    knobs: Knobs = field(default_factory=Knobs)


class Policy(Protocol):
    """allowed: [n], per candidate; at least one is True, and only such an index may be chosen.

    now_s: of whatever clock the caller has; only differences mean anything.
    ignores_floors: the policy is told where to go and does not care for quality floors.

    `decide` may be asked several times about one task, and about choices that are then not made; it may draw, but
    learns nothing. What became of a choice that was made comes to `observe`.
    """

    name: str
    ignores_floors: bool

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice: ...

    def observe(self, experience: Experience) -> None:
        """Learn from what became of an earlier decision."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What has been learnt, as plain values; empty for a policy that learns nothing."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What a policy may be built from. place: for `static`; seed: for policies that draw.

    weights: a file of `roadside train policy`, for policies that are served with weights; None: those that ship.
    """

    place: Place | None = None
    seed: int = 0
    weights: Path | None = None


Factory = TypeVar("Factory", bound=Callable[[PolicyOptions], Policy])
_FACTORIES: dict[str, Callable[[PolicyOptions], Policy]] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Class decorator: `@register("my-policy")` makes `--policy my-policy` work."""

    def add(factory: Factory) -> Factory:
        _FACTORIES[name] = factory
        return factory

    return add


def policy_names() -> list[str]:
    return sorted(_FACTORIES)


def make_policy(name: str, options: PolicyOptions) -> Policy:
    """Build a policy by its registered name; ConfigurationError names the ones that exist.

    A place in the options means that everything goes there, whatever the name: that is `static`.
    """
    if options.place is not None:
        name = "static"
    try:
        factory = _FACTORIES[name]
    except KeyError:
        raise ConfigurationError(f"no policy {name!r}; there are {', '.join(policy_names())}") from None
    return factory(options)
