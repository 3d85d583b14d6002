"""Placement as a domain to be learnt: every episode is another fleet, on another day, with other reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..environment.constants import EnvironmentConstants
from ..environment.environment import Environment, Situation
from ..node_memory import NodeMemory
from ..selection import best
from ..served import knobs_of
from ..softmax import draw_by_softmax
from .replay import Observation

_GUIDE_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Variety:
    """What the episodes differ in; each is drawn anew for each of them, independently.

    edges: how many roadside nodes, each as likely as it occurs. heartbeats_s: likewise.
    rates: bounds of the fleet's mean tasks per second, from which every other episode draws; the rest has `rate`.
    remembers: whether outcomes are kept in mind at all.
    drifts: bounds of how far a node's speed may be off. heard: bounds of the share of outcomes that the memory hears,
        which is all of them every other time: a vehicle hears its own.
    tasks: in an episode; enough for a whole swing of the arrivals, whose rate begins by rising.
    """

    edges: Sequence[int] = (3, 4, 5, 5, 5, 6, 8, 12, 32)
    heartbeats_s: Sequence[float] = (0.0, 0.0, 0.1, 0.25, 0.5, 0.5, 0.5, 1.0, 2.0)
    rate: float = 20.0
    rates: tuple[float, float] = (12.0, 26.0)
    drifts: tuple[float, float] = (0.1, 0.4)
    heard: tuple[float, float] = (0.03, 1.0)
    remembers: bool = True
    tasks: int = 1_500
    first_seed: int = 1_000


# Only the headline's fleet, for what is to be learnt about the algorithm rather than for use.
HEADLINE = Variety(edges=(5,), heartbeats_s=(0.5,), rates=(20.0, 20.0), drifts=(0.3, 0.3), heard=(1.0, 1.0))


class PlacementDomain:
    """Episodes of the placement environment, for policy/training/ddpg.py.

    Observations and actions are those of set_networks.py.

    The reward is the utility of the task, less the discounted utility that the next task would have on an idle fleet.
    What comes next is nobody's doing, so no choice is better or worse for it, and the returns vary far less: what is
    left of the tasks to come is what the queues cost them.
    """

    def __init__(
        self, scenarios: Sequence[EnvironmentConstants], variety: Variety, *, knobs: int, discount: float
    ) -> None:
        """scenarios: of which each episode has one; knobs: 2 for those of policy/served.py, or 0 for none.

        discount: of the learner.
        """
        self._scenarios, self._variety, self._knobs, self._discount = scenarios, variety, knobs, discount

    def reset(self, rng: np.random.Generator) -> Observation:
        variety = self._variety
        constants = self._scenarios[int(rng.integers(len(self._scenarios)))]
        hidden = msgspec.structs.replace(constants.hidden, drift=float(rng.uniform(*variety.drifts)))
        self._environment = Environment(
            msgspec.structs.replace(constants, hidden=hidden),
            edges=int(rng.choice(variety.edges)),
            heartbeat_s=float(rng.choice(variety.heartbeats_s)),
            rate=float(rng.uniform(*variety.rates)) if rng.random() < 0.5 else variety.rate,
            tasks=variety.tasks,
            seed=int(rng.integers(variety.first_seed, 2**31)),
        )
        self._utility = constants.utility_model
        self._memory = NodeMemory()
        self._heard = float(rng.uniform(*variety.heard)) if rng.random() < 0.5 else 1.0
        self._ears = np.random.default_rng(rng.integers(2**62))
        self._situation: Situation = self._environment.situation
        self._observation = self._observe()
        return self._observation

    def guide(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Greed, greed with chance, or chance alone; the knobs at random."""
        candidates, allowed = self._situation.candidates, self._situation.allowed
        kind = rng.random()
        if kind < 0.4:
            index = best(candidates.utility, allowed)
        elif kind < 0.8:
            index, _ = draw_by_softmax(candidates.utility, allowed, _GUIDE_TEMPERATURE, rng)
        else:
            index = int(rng.choice(np.flatnonzero(allowed)))
        action = np.zeros((len(candidates), 1 + self._knobs), np.float32)
        action[:, 1:] = rng.random((len(candidates), self._knobs))
        action[index, 0] = 1
        return action.ravel()

    def step(self, action: NDArray[np.float32]) -> tuple[float, Observation, bool, bool]:
        rows = action.reshape(-1, 1 + self._knobs)
        index = int(rows[:, 0].argmax())
        place = self._situation.candidates.places[index]
        step = self._environment.step(index, knobs_of(rows[index, 1:], place))
        for experience in step.experiences:
            if self._variety.remembers and self._ears.random() < self._heard:
                self._memory.observe(experience)
        if step.situation is None:
            # Tasks go on arriving, but nobody simulates them: the last observation is the best guess of the next.
            return step.reward - self._discount * self._idle_utility(), self._observation, False, True
        self._situation = step.situation
        self._observation = self._observe()
        return step.reward - self._discount * self._idle_utility(), self._observation, False, False

    def _idle_utility(self) -> float:
        """What the best place would bring the waiting task if nobody else were there."""
        situation = self._situation
        candidates = situation.candidates
        utilities = self._utility.utility(
            latency_ms=candidates.latency_ms - candidates.wait_ms,
            deadline_ms=situation.task.remaining_ms,
            energy_j=candidates.energy_j,
            quality=candidates.quality,
        )
        return float(utilities[situation.allowed].max())

    def _observe(self) -> Observation:
        return self._memory.inputs(self._situation.candidates), self._situation.allowed
