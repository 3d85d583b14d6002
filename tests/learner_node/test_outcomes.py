"""What a learner takes from an outcome, and what it leaves out."""

import math

import msgspec
import pytest
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import Timing
from roadside.learner_node.outcomes import experience_from
from roadside.policy.utility import UtilityModel

UTILITY = UtilityModel()


def test_times_are_those_of_the_learner_s_own_clock(outcome_of):
    outcome = outcome_of(1, chosen=1, right=True, created_at_s=-4e9)
    made = experience_from(outcome, UTILITY, heard_s=50.0)
    assert (made.decided_s, made.ended_s) == (pytest.approx(49.6), 50.0)
    assert made.place == "edge"
    assert made.in_time
    assert made.service_ms == 100.0


def test_a_fallback_is_a_failure_of_the_place_that_was_chosen(outcome_of):
    made = experience_from(outcome_of(1, chosen=2, right=False), UTILITY, heard_s=50.0)
    assert (made.node, made.in_time, made.right) == ("cloud-1", False, 0.0)
    assert made.utility < -0.2


def with_decision(outcome, **changes):
    return msgspec.structs.replace(outcome, decision=msgspec.structs.replace(outcome.decision, **changes))


def with_features(outcome, **changes):
    rows = tuple(msgspec.structs.replace(row, **changes) for row in outcome.decision.candidates)
    return with_decision(outcome, candidates=rows)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda plain: msgspec.structs.replace(plain, decision=None, state="expired"), "undecided"),
        (lambda plain: with_features(plain, features=(1.0, 2.0)), "other features"),
        (
            lambda plain: with_features(plain, features=(1e9,) * len(plain.decision.candidates[0].features)),
            "implausible",
        ),
        (lambda plain: with_features(plain, quality=7.0), "implausible"),
        (lambda plain: with_decision(plain, chosen=3), "implausible"),
        (lambda plain: with_decision(plain, candidates=()), "implausible"),
        (lambda plain: with_decision(plain, propensity=0.0), "implausible"),
        (lambda plain: msgspec.structs.replace(plain, latency_ms=-1.0), "implausible"),
        (lambda plain: msgspec.structs.replace(plain, latency_ms=1e12), "implausible"),
        (lambda plain: msgspec.structs.replace(plain, deadline_ms=0.0), "implausible"),
        (lambda plain: msgspec.structs.replace(plain, energy_j=1e12), "implausible"),
        (lambda plain: msgspec.structs.replace(plain, timing=Timing(inference_ms=-5.0)), "implausible"),
    ],
)
def test_nothing_is_learnt_from_what_cannot_be(outcome_of, spoil, why):
    with pytest.raises(MessageRefused) as refused:
        experience_from(spoil(outcome_of(1, chosen=1, right=True)), UTILITY, heard_s=50.0)
    assert refused.value.reason == why


def test_one_outcome_says_no_more_than_any_other(outcome_of):
    made = experience_from(outcome_of(1, chosen=1, right=False, energy_j=9_999.0), UTILITY, heard_s=50.0)
    assert -2.0 <= made.utility <= 2.0
    assert math.isfinite(made.utility)
