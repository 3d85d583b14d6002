"""One policy's episode in one cell of the placement environment, and who competes there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from ..bus.places import Place
from ..policy.base import Policy
from ..policy.environment.clairvoyant import ClairvoyantPolicy
from ..policy.environment.constants import COMMITTED, EnvironmentConstants, Scenario, load_constants
from ..policy.environment.environment import Environment, Summary, run_episode
from ..policy.environment.observation import InFlight
from ..policy.registry import PolicyOptions, make_policy
from .trained import TRAINED, VARIANTS, served, with_weights

CLAIRVOYANT = "clairvoyant"
# In the order in which they are shown: what learns nothing, what learns as it goes, what was trained.
NAMES = (
    "static",
    "random",
    "jsq",
    "greedy-delay",
    "greedy-utility",
    "softmax-greedy",
    "shadow-price",
    "cs-ucb",
    "cs-ucb-predicted",
    "active-inference",
    "linucb",
    "bandit",
    "ddpg",
    CLAIRVOYANT,
)
LEARNS_NOTHING = ("static", "random", "jsq", "greedy-delay", "greedy-utility", "softmax-greedy")


_PLACES: dict[str, Place] = {"static": "edge", "static vehicle": "vehicle", "static cloud": "cloud"}


@dataclass(frozen=True, slots=True)
class Cell:
    """rate_hz: mean tasks per second. drift: of the nodes' hidden speeds; None: the constants' own.

    in_flight: whose unreported tasks a dispatcher knows of (policy/environment/observation.py).
    file: of the constants.
    """

    heartbeat_s: float = 0.5
    edges: int = 5
    rate_hz: float = 20.0
    drift: float | None = None
    scenario: Scenario = "headline"
    in_flight: InFlight = "vehicle"
    file: Path = COMMITTED

    def constants(self) -> EnvironmentConstants:
        return _constants(self.file, self.scenario, self.drift)


@dataclass(frozen=True, slots=True)
class PolicyJob:
    cell: Cell
    policy: str
    seed: int
    tasks: int


def run_job(job: PolicyJob) -> Summary:
    environment = environment_of(job.cell, job.seed, job.tasks)
    if job.policy == CLAIRVOYANT:
        return run_episode(environment, ClairvoyantPolicy(environment))
    return run_episode(environment, policy_for(job.policy, job.seed))


def environment_of(cell: Cell, seed: int, tasks: int) -> Environment:
    return Environment(
        cell.constants(),
        edges=cell.edges,
        heartbeat_s=cell.heartbeat_s,
        rate=cell.rate_hz,
        tasks=tasks,
        seed=seed,
        in_flight=cell.in_flight,
    )


def policy_for(name: str, seed: int) -> Policy:
    """`static` is all to the edges here, the best of the places for that."""
    if name in _PLACES:
        return make_policy("static", PolicyOptions(place=_PLACES[name], seed=seed))
    if name in (*TRAINED, *VARIANTS):
        return served(name)
    return make_policy(name, PolicyOptions(seed=seed))


def contenders() -> list[str]:
    """Those of NAMES that this installation has."""
    missing = set(TRAINED) - set(with_weights(TRAINED))
    return [name for name in NAMES if name not in missing]


@cache
def _constants(file: Path, scenario: Scenario, drift: float | None) -> EnvironmentConstants:
    constants = load_constants(file, scenario=scenario)
    if drift is None:
        return constants
    hidden = msgspec.structs.replace(constants.hidden, drift=drift)
    return msgspec.structs.replace(constants, hidden=hidden)
