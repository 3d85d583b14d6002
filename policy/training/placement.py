"""Placement as a domain to be learnt: every episode is another fleet, on another day, with other reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..environment.constants import EnvironmentConstants
from ..environment.environment import Environment, Situation
from ..node_memory import NodeMemory
from ..selection import best
from ..served import knobs_of
from ..softmax import draw_by_softmax
from .fleets import Fleet, FleetBounds, draw_fleet
from .replay import Observation

_GUIDE_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Variety:
    """What the episodes differ in; each is drawn anew for each of them, independently.

    The first half of it is of episodes in the fleet of the given constants:

    edges: how many roadside nodes, each as likely as it occurs. rates: bounds of the fleet's mean tasks per second,
    from which every other episode draws; the rest has `rate`. drifts: bounds of how far a node's speed may be off.
    together: share of those episodes in which edges also answer together with the cloud, where the constants have that.
    tasks: in such an episode; enough for a whole swing of the arrivals, whose rate begins by rising.

    others: share of the decisions that are made in other fleets (fleets.py), in episodes of `tasks_of_others`; 0: none.
    bounds: of what those are like.

    heartbeats_s: as `edges`, of all. remembers: whether outcomes are kept in mind at all. heard: bounds of the share of
    outcomes that the memory hears, which is all of them every other time: a vehicle hears its own.
    """

    edges: Sequence[int] = (3, 4, 5, 5, 5, 6, 8, 12, 32)
    rate: float = 20.0
    rates: tuple[float, float] = (12.0, 26.0)
    drifts: tuple[float, float] = (0.1, 0.4)
    together: float = 0.25
    tasks: int = 1_500
    others: float = 0.4
    tasks_of_others: int = 300
    bounds: FleetBounds = field(default_factory=FleetBounds)
    heartbeats_s: Sequence[float] = (0.0, 0.0, 0.1, 0.25, 0.5, 0.5, 0.5, 1.0, 2.0)
    heard: tuple[float, float] = (0.03, 1.0)
    remembers: bool = True
    first_seed: int = 1_000

    @property
    def other_episodes(self) -> float:
        """Share of the episodes that are in other fleets: more than of the decisions, where those are shorter."""
        other, own = self.others / self.tasks_of_others, (1 - self.others) / self.tasks
        return other / (other + own)


class PlacementDomain:
    """Episodes of the placement environment, for policy/training/ddpg.py.

    Observations and actions are those of set_networks.py.

    The reward is the utility of the task, less the discounted utility that the next task would have on an idle fleet.
    What comes next is nobody's doing, so no choice is better or worse for it, and the returns vary far less: what is
    left of the tasks to come is what the queues cost them.
    """

    def __init__(self, constants: EnvironmentConstants, variety: Variety, *, knobs: int, discount: float) -> None:
        """knobs: 2 for those of policy/served.py, or 0 for none. discount: of the learner."""
        self._constants, self._variety, self._knobs, self._discount = constants, variety, knobs, discount

    def reset(self, rng: np.random.Generator) -> Observation:
        variety = self._variety
        other = bool(rng.random() < variety.other_episodes)
        fleet = draw_fleet(self._constants, variety.bounds, rng) if other else self._own_fleet(rng)
        self._environment = Environment(
            fleet.constants,
            edges=fleet.edges,
            heartbeat_s=float(rng.choice(variety.heartbeats_s)),
            rate=fleet.rate_hz,
            tasks=variety.tasks_of_others if other else variety.tasks,
            seed=int(rng.integers(variety.first_seed, 2**31)),
        )
        self._floors = fleet.floors
        self._utility = fleet.constants.utility_model
        self._memory = NodeMemory()
        self._heard = float(rng.uniform(*variety.heard)) if rng.random() < 0.5 else 1.0
        self._ears = np.random.default_rng(rng.integers(2**62))
        self._situation: Situation = self._environment.situation
        self._observation = self._observe()
        return self._observation

    def guide(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Greed, greed with chance, or chance alone; the knobs at random."""
        candidates, allowed = self._situation.candidates, self._allowed()
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
        return float(utilities[self._allowed()].max())

    def _observe(self) -> Observation:
        return self._memory.inputs(self._situation.candidates), self._allowed()

    def _own_fleet(self, rng: np.random.Generator) -> Fleet:
        variety, constants = self._variety, self._constants
        hidden = msgspec.structs.replace(constants.hidden, drift=float(rng.uniform(*variety.drifts)))
        return Fleet(
            msgspec.structs.replace(
                constants,
                hidden=hidden,
                collaborative=constants.collaborative if rng.random() < variety.together else None,
            ),
            edges=int(rng.choice(variety.edges)),
            rate_hz=float(rng.uniform(*variety.rates)) if rng.random() < 0.5 else variety.rate,
        )

    def _allowed(self) -> NDArray[np.bool_]:
        """As the guard of a vehicle has it: below the quality floor only what nothing else is left for."""
        allowed, candidates = self._situation.allowed, self._situation.candidates
        if not self._floors:
            return allowed
        nodes = allowed & np.array([place != "vehicle" for place in candidates.places])
        return nodes if nodes.any() else allowed
