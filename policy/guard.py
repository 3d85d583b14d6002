"""The guard around a policy: masks first, the policy second, plain greedy when the policy cannot be trusted.

Whatever a policy returns or raises, the guard's answer is an allowed place, and the vehicle's own place is what
remains when nothing else does. Every time that the policy is overruled, it is counted and the decision says why:

    nothing left    every place but the vehicle's own is dead, silent, or has refused the task
    garbled         a place's features or expected utility are no numbers; such a place is not allowed
    stale           the newest report of any allowed node is too old to tell nodes apart by
    untrained       features beyond those that the policy was trained on, the reports' age among them
    error           it raised something, or answered what is no choice
    bad scores, masked choice, bad knobs, bad propensity
    too slow        it took longer than a decision may
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Protocol, runtime_checkable

import numpy as np
import structlog
from numpy.typing import NDArray

from ..bus.messages import Decision, Outcome
from .base import Choice, Policy, PolicyOptions
from .candidates import FLOOR, Candidates
from .even_exploration import EvenExploration
from .experience import Knobs, experience_of
from .features import FEATURES, TaskFacts
from .greedy_utility import GreedyUtilityPolicy
from .live_weights import TakesWeights
from .selection import allowed_rows
from .utility import UtilityModel

_IS_VEHICLE, _AGE_S = FEATURES.index("is_vehicle"), FEATURES.index("state_age_s")

log = structlog.get_logger()


@runtime_checkable
class Trained(Protocol):
    """A policy that was trained knows how far it may be trusted.

    feature_range: [2, len(FEATURES)], lowest and highest value of each feature that it is fit for, the age of the
        nodes' reports among them.
    """

    feature_range: NDArray[np.float32]


class Guard:
    """decision_budget_ms: a policy that took longer is overruled for this task.
    stale_after_ms: of the nodes' reports, up to 10 s, beyond which features do not tell.
    exploration: what is drawn in place of a policy's sound choice; None: nothing.

    `counters`: how often each reason overruled the policy, and "observe failed".
    """

    def __init__(
        self,
        policy: Policy,
        *,
        utility: UtilityModel | None = None,
        decision_budget_ms: float = 20.0,
        stale_after_ms: float = 3000.0,
        exploration: EvenExploration | None = None,
    ) -> None:
        self._policy = policy
        # Both are asked at every decision: a policy's weights may be replaced between two.
        self._trained = policy if isinstance(policy, Trained) else None
        self._weighted = policy if isinstance(policy, TakesWeights) else None
        self._utility = utility or UtilityModel()
        self._fallback = GreedyUtilityPolicy(PolicyOptions())
        self._decision_budget_ms = decision_budget_ms
        self._stale_after_s = stale_after_ms / 1000
        self._exploration = exploration
        self.counters: Counter[str] = Counter()

    def decide(self, task: TaskFacts, candidates: Candidates, now_s: float, *, hypothetical: bool = False) -> Decision:
        """Choose one of `candidates`, which must hold the vehicle's own place.

        now_s: of a monotonic clock. hypothetical: somebody asks what would be chosen; nothing is counted, or explored.
        """
        allowed = allowed_rows(candidates.masked, candidates.places, ignores_floors=self._policy.ignores_floors)
        sound = np.isfinite(candidates.features).all(axis=1) & np.isfinite(candidates.utility)
        if (allowed & sound).any():
            overruled = self._mistrust(candidates, allowed, sound)
            allowed &= sound
        else:
            overruled = "garbled"
            allowed = np.array([place == "vehicle" for place in candidates.places], np.bool_)
        choice = None
        if not overruled:
            choice, overruled = self._ask(task, candidates, allowed, now_s)
        if choice is None:
            choice = self._fallback.decide(task, candidates, allowed, now_s)
            if not hypothetical:
                self.counters[overruled] += 1
        elif self._exploration is not None and not hypothetical:
            choice = self._exploration.perhaps(choice, allowed)
        reason = choice.reason if not overruled else f"guard ({overruled}): {choice.reason}"
        return Decision(
            policy=self._policy.name,
            chosen=choice.index,
            propensity=choice.propensity,
            reason=reason[:96],
            candidates=candidates.rows(choice.scores),
            exit_threshold=choice.knobs.exit_threshold,
            frame_scale=choice.knobs.frame_scale,
            weights="" if self._weighted is None else self._weighted.weights_label,
        )

    def observe(self, outcome: Outcome) -> None:
        """Hand an outcome to the policy; one that cannot learn from it is no reason to stop driving."""
        try:
            if (experience := experience_of(outcome, self._utility)) is not None:
                self._policy.observe(experience)
        except Exception as error:
            self.counters["observe failed"] += 1
            log.error("policy failed to learn", policy=self._policy.name, error=repr(error))

    def _mistrust(self, candidates: Candidates, allowed: NDArray[np.bool_], sound: NDArray[np.bool_]) -> str:
        """Why the policy is not even asked; empty where it is."""
        if all(why not in ("", FLOOR) for why in candidates.masked):
            return "nothing left"
        if not sound[allowed].all():
            return "garbled"
        features = candidates.features[allowed]
        of_nodes = features[features[:, _IS_VEHICLE] == 0]
        if len(of_nodes) and of_nodes[:, _AGE_S].min() > self._stale_after_s:
            return "stale"
        if self._trained is not None and _beyond(self._trained.feature_range, features):
            return "untrained"
        return ""

    def _ask(
        self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float
    ) -> tuple[Choice | None, str]:
        """The policy's choice, or None and why it does not count."""
        started_s = time.perf_counter()
        try:
            choice = self._policy.decide(task, candidates, allowed, now_s)
            fault = _fault(choice, allowed)
            plain = None if fault else _plain(choice)
        except Exception as error:  # foreign code: whatever it raises must not cost the driver an answer
            log.error("policy failed", policy=self._policy.name, error=repr(error))
            return None, "error"
        if plain is not None and (time.perf_counter() - started_s) * 1000 > self._decision_budget_ms:
            return None, "too slow"
        return plain, fault


def _beyond(feature_range: NDArray[np.float32], features: NDArray[np.float32]) -> bool:
    lowest, highest = feature_range
    return bool(((features < lowest) | (features > highest)).any())


def _fault(choice: Choice, allowed: NDArray[np.bool_]) -> str:
    scores = np.asarray(choice.scores, float)
    if scores.shape != allowed.shape or not np.isfinite(scores).all():
        return "bad scores"
    if not 0 <= choice.index < len(allowed) or not allowed[choice.index]:
        return "masked choice"
    knobs = choice.knobs
    # Written so that what is no number is bad as well.
    if not 0 < knobs.frame_scale <= 1 or not (knobs.exit_threshold is None or 0 <= knobs.exit_threshold <= 10):
        return "bad knobs"
    if not 0 < choice.propensity <= 1:
        return "bad propensity"
    return ""


def _plain(choice: Choice) -> Choice:
    """The same in plain numbers and text: NumPy's are not what travels."""
    threshold, scale = choice.knobs.exit_threshold, choice.knobs.frame_scale
    knobs = Knobs(None if threshold is None else float(threshold), float(scale))
    index = range(len(choice.scores))[choice.index]
    return Choice(index, choice.scores, float(choice.propensity), str(choice.reason), knobs)
