"""The guard around a policy: masks first, the policy second, plain greedy when the policy cannot be trusted.

Whatever a policy returns or raises, the guard's answer is an allowed place, and the vehicle's own place is what
remains when nothing else does.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

import msgspec
import structlog

from ..bus.messages import Candidate, Decision, Outcome
from .base import Choice, Policy, PolicyOptions
from .candidates import FLOOR, TaskFacts
from .greedy_utility import GreedyUtilityPolicy

log = structlog.get_logger()


class Guard:
    """decision_budget_ms: a policy that took longer is overruled for this task and counted.

    `counters` tells how often each reason overruled the policy.
    """

    def __init__(self, policy: Policy, *, decision_budget_ms: float = 20.0) -> None:
        self._policy = policy
        self._fallback = GreedyUtilityPolicy(PolicyOptions())
        self._decision_budget_ms = decision_budget_ms
        self.counters: Counter[str] = Counter()

    def decide(self, task: TaskFacts, candidates: Sequence[Candidate]) -> Decision:
        """Choose one of `candidates`, which must hold the vehicle's own place."""
        allowed = self._allowed(candidates)
        choice, overruled = self._ask(task, candidates, allowed)
        reason = choice.reason if not overruled else f"guard ({overruled}): {choice.reason}"
        return Decision(
            policy=self._policy.name,
            chosen=choice.index,
            propensity=choice.propensity,
            reason=reason[:96],
            candidates=tuple(
                msgspec.structs.replace(row, score=score) for row, score in zip(candidates, choice.scores, strict=True)
            ),
        )

    def observe(self, outcome: Outcome) -> None:
        """Hand an outcome to the policy; one that cannot learn from it is no reason to stop driving."""
        try:
            self._policy.observe(outcome)
        except Exception as error:
            self.counters["observe failed"] += 1
            log.error("policy failed to learn", policy=self._policy.name, error=repr(error))

    def _allowed(self, candidates: Sequence[Candidate]) -> list[bool]:
        allowed = [not row.masked or (self._policy.ignores_floors and row.masked == FLOOR) for row in candidates]
        if any(allowed):
            return allowed
        # Nothing is above the floor: any living place is better than silence, the vehicle's own at the least.
        below_floor = [row.masked == FLOOR for row in candidates]
        if any(below_floor):
            return below_floor
        return [row.place == "vehicle" for row in candidates]

    def _ask(self, task: TaskFacts, candidates: Sequence[Candidate], allowed: Sequence[bool]) -> tuple[Choice, str]:
        started = time.perf_counter()
        try:
            choice = self._policy.decide(task, candidates, allowed)
            overruled = _fault(choice, allowed)
        except Exception as error:  # a policy is foreign code: whatever it raises must not cost the driver an answer
            log.error("policy failed", policy=self._policy.name, error=repr(error))
            choice, overruled = None, "error"
        if not overruled and (time.perf_counter() - started) * 1000 > self._decision_budget_ms:
            overruled = "too slow"
        if choice is None or overruled:
            self.counters[overruled] += 1
            choice = self._fallback.decide(task, candidates, allowed)
        return choice, overruled


def _fault(choice: Choice, allowed: Sequence[bool]) -> str:
    if len(choice.scores) != len(allowed) or not all(math.isfinite(score) for score in choice.scores):
        return "bad scores"
    if not 0 <= choice.index < len(allowed) or not allowed[choice.index]:
        return "masked choice"
    return ""
