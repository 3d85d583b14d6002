"""`cs-ucb` and `cs-ucb-predicted`: PerLLM's bandit with constraints (Yang et al., arXiv 2405.14636, section 3.2).

Each row is an arm a. Those that violate no constraint, f >= 0, are compared by (eqs. 3 and 6)

    f(a) = min( (D - d) / D, (C_max - C) / C_max, (B_max - B) / B_max )
    UCB(a) = mean reward(a) + delta sqrt(ln t / L(a)) + theta P(a),   P = min(0, f)

t counts the outcomes that are known, not the decisions, which may be asked about without being made.
C: tasks in the node's care with this one, of C_max = slots_limit times its slots; B: seconds of queue on its link,
of B_max. Where every arm violates one, the one that violates least is taken. The reward is its eq. 4, minus the energy
plus lambda times f as it turned out, or this project's utility, which is what it is judged by elsewhere.

The processing time d of constraint C1 is only known afterwards. As printed, the algorithm is silent about that, so
`cs-ucb` meets C1 only in the reward; `cs-ucb-predicted` puts in the delay that it expects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import FEATURES, TaskFacts
from .selection import best

_LINK_WAIT_S = FEATURES.index("link_wait_s")
_UNTRIED = 1e6


@dataclass(frozen=True, slots=True)
class CsUcbSettings:
    """delta, theta, lambda_: eqs. 4 and 6. slots_limit: C_max in tasks per slot; link_limit_s: B_max.

    reference_energy_j: what makes joules a reward.
    """

    reward: Literal["utility", "equation-4"] = "utility"
    delta: float = 0.1
    theta: float = 0.5
    lambda_: float = 1.0
    slots_limit: float = 1.0
    link_limit_s: float = 0.5
    reference_energy_j: float = 60.0


@dataclass(slots=True)
class _Arm:
    tries: int = 0
    mean_reward: float = 0.0


class CsUcbPolicy:
    """Learns from its own decisions as it goes; an arm is a (node, place)."""

    ignores_floors = False

    def __init__(
        self, options: PolicyOptions, settings: CsUcbSettings | None = None, *, predicts_delay: bool = False
    ) -> None:
        self.name = "cs-ucb-predicted" if predicts_delay else "cs-ucb"
        self._settings = settings or CsUcbSettings()
        self._predicts_delay = predicts_delay
        self._random = np.random.default_rng(options.seed)
        self._arms: dict[tuple[str, str], _Arm] = {}
        self._outcomes = 0

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        satisfaction = self._satisfaction(task, candidates)
        satisfied = allowed & (satisfaction >= 0)
        scores = self._upper_bounds(candidates) + self._settings.theta * np.minimum(satisfaction, 0.0)
        if not satisfied.any():
            return Choice(best(satisfaction, allowed), satisfaction, 1.0, "violates its constraints least")
        # Untried arms are equals: none must come first because of its name.
        equals = np.flatnonzero(satisfied & (scores == scores[satisfied].max()))
        index = int(self._random.choice(equals)) if len(equals) > 1 else int(equals[0])
        return Choice(index, scores, 1 / len(equals), "highest upper confidence bound within its constraints")

    def observe(self, experience: Experience) -> None:
        arm = self._arms.setdefault((experience.node, experience.place), _Arm())
        arm.tries += 1
        self._outcomes += 1
        arm.mean_reward += (self._reward(experience) - arm.mean_reward) / arm.tries

    def state_dict(self) -> dict[str, Any]:
        arms = {f"{node} {place}": [arm.tries, arm.mean_reward] for (node, place), arm in self._arms.items()}
        return {"outcomes": self._outcomes, "arms": arms}

    def _satisfaction(self, task: TaskFacts, candidates: Candidates) -> NDArray[np.float64]:
        limit = self._settings.slots_limit * candidates.slots
        computing = (limit - candidates.in_flight - 1) / limit
        link = 1 - candidates.features[:, _LINK_WAIT_S] / self._settings.link_limit_s
        satisfaction = np.minimum(computing, link)
        if self._predicts_delay:
            satisfaction = np.minimum(satisfaction, 1 - candidates.latency_ms / task.remaining_ms)
        return satisfaction

    def _upper_bounds(self, candidates: Candidates) -> NDArray[np.float64]:
        arms = [self._arms.get(key) for key in zip(candidates.nodes, candidates.places, strict=True)]
        log_time = math.log(max(1, self._outcomes))
        return np.array(
            [
                _UNTRIED if arm is None else arm.mean_reward + self._settings.delta * math.sqrt(log_time / arm.tries)
                for arm in arms
            ]
        )

    def _reward(self, experience: Experience) -> float:
        if self._settings.reward == "utility":
            return experience.utility
        in_time_by = 1 - experience.latency_ms / experience.task.deadline_ms
        return self._settings.lambda_ * in_time_by - experience.energy_j / self._settings.reference_energy_j


@register("cs-ucb")
def as_printed(options: PolicyOptions) -> CsUcbPolicy:
    return CsUcbPolicy(options)


@register("cs-ucb-predicted")
def with_predicted_delay(options: PolicyOptions) -> CsUcbPolicy:
    return CsUcbPolicy(options, predicts_delay=True)
