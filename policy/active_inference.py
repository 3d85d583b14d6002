"""`active-inference`: a place by its expected free energy, after Fang et al. (IEEE VTC 2023), without a reward.

That paper, PerLLM's baseline "RewardlessGuidance", publishes neither formulas that could be followed to the end nor
code; this is the discrete active inference that it names (Friston et al., "Active inference: a process theory", 2017,
eq. 8), with what can be observed here. For each row it believes, as a Beta(a, b) distribution, how likely an answer in
time is in its present state: the queues ahead of the task and its deadline, in bins. The expected free energy of a row,

    G = - preference * (2 p - 1) * quality   +   energy_cost * E / reference   -   curiosity / (a + b)

weighs risk against a preference for right answers in time, cost, and what trying would teach (p = a / (a + b)); a row
is drawn with probability softmax(-precision * G).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import FEATURES, TaskFacts
from .softmax import draw_by_softmax

_LINK_WAIT_S, _COMPUTE_WAIT_S = FEATURES.index("link_wait_s"), FEATURES.index("compute_wait_s")
_DEADLINE = FEATURES.index("deadline_per_6s")


@dataclass(frozen=True, slots=True)
class ActiveInferenceSettings:
    """wait_bin_s, deadline_bin_s: how finely the state is told apart. precision: how seldom a worse row is drawn."""

    preference: float = 4.0
    energy_cost: float = 0.2
    curiosity: float = 0.5
    precision: float = 3.0
    reference_energy_j: float = 60.0
    wait_bin_s: float = 0.1
    deadline_bin_s: float = 1.0


_State = tuple[str, str, int, int]
_NOTHING_KNOWN = (1.0, 1.0)


@register("active-inference")
class ActiveInferencePolicy:
    """Learns from its own decisions whether an answer came in time, and nothing else."""

    name = "active-inference"
    ignores_floors = False

    def __init__(self, options: PolicyOptions, settings: ActiveInferenceSettings | None = None) -> None:
        self._settings = settings or ActiveInferenceSettings()
        self._random = np.random.default_rng(options.seed)
        self._beliefs: dict[_State, tuple[float, float]] = {}

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        settings = self._settings
        waits, deadlines = self._bins(candidates.features)
        states = zip(candidates.nodes, candidates.places, waits.tolist(), deadlines.tolist(), strict=True)
        beliefs = np.array([self._beliefs.get(state, _NOTHING_KNOWN) for state in states])
        seen = beliefs.sum(axis=1)
        in_time = beliefs[:, 0] / seen
        scores = (
            settings.preference * (2 * in_time - 1) * candidates.quality
            - settings.energy_cost * candidates.energy_j / settings.reference_energy_j
            + settings.curiosity / seen
        )
        index, propensity = draw_by_softmax(scores, allowed, 1 / settings.precision, self._random)
        return Choice(index, scores, propensity, "drawn by expected free energy")

    def observe(self, experience: Experience) -> None:
        waits, deadlines = self._bins(experience.features[experience.chosen][None])
        state = (experience.node, experience.place, int(waits[0]), int(deadlines[0]))
        in_time, late = self._beliefs.get(state, _NOTHING_KNOWN)
        self._beliefs[state] = (in_time + experience.in_time, late + (not experience.in_time))

    def state_dict(self) -> dict[str, Any]:
        return {" ".join(map(str, state)): belief for state, belief in self._beliefs.items()}

    def _bins(self, features: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        waits_s = features[:, _LINK_WAIT_S] + features[:, _COMPUTE_WAIT_S]
        deadlines_s = 6 * features[:, _DEADLINE]
        return (
            (waits_s / self._settings.wait_bin_s).astype(np.intp),
            (deadlines_s / self._settings.deadline_bin_s).astype(np.intp),
        )
