"""From an outcome on the bus to an experience to learn from, or a reason why nothing is learnt from it.

An outcome is what some vehicle says. A single one must not be able to say so much that it outweighs all others, and
its clock is not ours: when it was decided is reckoned back from when it was heard.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..bus.errors import MessageRefused
from ..bus.messages import Decision, Outcome
from ..policy.experience import Experience, experience_of
from ..policy.features import FEATURE_LIMIT, FEATURES
from ..policy.utility import UtilityModel

_LONGEST_DEADLINE_MS = 600_000.0
_LATEST = 2.0  # in deadlines: a vehicle ends every task by the first
_MOST_ENERGY_J = 10_000.0
_MOST_UTILITY = 2.0  # either way; an answer is worth 1 at the best


def experience_from(outcome: Outcome, utility: UtilityModel, heard_s: float) -> Experience:
    """heard_s: on the clock of the experience's times, a monotonic one.

    Raises MessageRefused with reason "undecided" (the vehicle was down), "other features" or "implausible".
    """
    decision = outcome.decision
    if decision is None:
        raise MessageRefused("undecided", outcome.reason)
    _check(outcome, decision)
    experience = experience_of(outcome, utility)
    if experience is None:
        raise MessageRefused("other features", f"{len(decision.candidates[0].features)} for {len(FEATURES)}")
    if not (np.abs(experience.features) <= FEATURE_LIMIT).all():
        raise MessageRefused("implausible", "features beyond their limit")
    return replace(
        experience,
        utility=min(max(experience.utility, -_MOST_UTILITY), _MOST_UTILITY),
        decided_s=heard_s - outcome.latency_ms / 1000,
        ended_s=heard_s,
    )


def _check(outcome: Outcome, decision: Decision) -> None:
    """What no type says and every vehicle of ours keeps to."""
    timing = outcome.timing
    plausible = (
        decision.chosen < len(decision.candidates)
        and 0 < decision.propensity <= 1
        and 0 <= decision.candidates[decision.chosen].quality <= 1
        and 0 < outcome.deadline_ms <= _LONGEST_DEADLINE_MS
        and 0 <= outcome.latency_ms <= _LATEST * outcome.deadline_ms
        and 0 <= outcome.energy_j <= _MOST_ENERGY_J
        and min(timing.inference_ms, timing.context_ms) >= 0
    )
    if not plausible:
        raise MessageRefused("implausible", f"task {outcome.task_id}")
