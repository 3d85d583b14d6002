"""The guard around a policy: masks first, the policy second, plain greedy when the policy cannot be trusted.

Whatever a policy returns or raises, the guard's answer is an allowed place, and the vehicle's own place is what
remains when nothing else does.
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
from .candidates import Candidates
from .experience import experience_of
from .features import TaskFacts
from .greedy_utility import GreedyUtilityPolicy
from .selection import allowed_rows
from .utility import UtilityModel

log = structlog.get_logger()


@runtime_checkable
class Trained(Protocol):
    """A policy that was trained knows how far it may be trusted.

    feature_range: [2, len(FEATURES)], lowest and highest value of each feature that it is fit for, the age of the
        nodes' reports among them.
    """

    feature_range: NDArray[np.float32]


class Guard:
    """decision_budget_ms: a policy that took longer is overruled for this task and counted.

    `counters` tells how often each reason overruled the policy.
    """

    def __init__(
        self, policy: Policy, *, utility: UtilityModel | None = None, decision_budget_ms: float = 20.0
    ) -> None:
        self._policy = policy
        self._feature_range = policy.feature_range if isinstance(policy, Trained) else None
        self._utility = utility or UtilityModel()
        self._fallback = GreedyUtilityPolicy(PolicyOptions())
        self._decision_budget_ms = decision_budget_ms
        self.counters: Counter[str] = Counter()

    def decide(self, task: TaskFacts, candidates: Candidates, now_s: float) -> Decision:
        """Choose one of `candidates`, which must hold the vehicle's own place."""
        allowed = allowed_rows(candidates.masked, candidates.places, ignores_floors=self._policy.ignores_floors)
        choice, overruled = self._ask(task, candidates, allowed, now_s)
        reason = choice.reason if not overruled else f"guard ({overruled}): {choice.reason}"
        return Decision(
            policy=self._policy.name,
            chosen=choice.index,
            propensity=choice.propensity,
            reason=reason[:96],
            candidates=candidates.rows(choice.scores),
            exit_threshold=choice.knobs.exit_threshold,
            frame_scale=choice.knobs.frame_scale,
        )

    def observe(self, outcome: Outcome) -> None:
        """Hand an outcome to the policy; one that cannot learn from it is no reason to stop driving."""
        try:
            if (experience := experience_of(outcome, self._utility)) is not None:
                self._policy.observe(experience)
        except Exception as error:
            self.counters["observe failed"] += 1
            log.error("policy failed to learn", policy=self._policy.name, error=repr(error))

    def _ask(
        self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float
    ) -> tuple[Choice, str]:
        started = time.perf_counter()
        choice, overruled = None, ""
        if self._feature_range is not None and _beyond(self._feature_range, candidates.features[allowed]):
            overruled = "untrained"
        else:
            try:
                choice = self._policy.decide(task, candidates, allowed, now_s)
                overruled = _fault(choice, allowed)
            except Exception as error:  # foreign code: whatever it raises must not cost the driver an answer
                log.error("policy failed", policy=self._policy.name, error=repr(error))
                choice, overruled = None, "error"
        if not overruled and (time.perf_counter() - started) * 1000 > self._decision_budget_ms:
            overruled = "too slow"
        if choice is None or overruled:
            self.counters[overruled] += 1
            choice = self._fallback.decide(task, candidates, allowed, now_s)
        return choice, overruled


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
    return ""
