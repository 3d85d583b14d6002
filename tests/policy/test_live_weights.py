"""A learner's weights: taken when they are fit, refused by reason otherwise, and then nothing changes."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.messages import PolicyWeights
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment
from roadside.policy.features import FEATURE_SCHEMA
from roadside.policy.guard import Guard
from roadside.policy.live_weights import LiveWeights
from roadside.policy.served import ServedPolicy
from roadside.policy.training.set_networks import SetActor, export
from roadside.policy.weights import Weights, encode_weights

SITUATION = Environment(load_constants(), seed=3, tasks=1).situation


def weights(best: int | None = None) -> Weights:
    """Greedy ones, or such that nothing but the features' column `best` counts."""
    made = export(SetActor().net, 10.0, "test", {})
    if best is not None:
        made.arrays["body1.weight"][0, best] = 1.0
        made.arrays["body2.weight"][0, 0] = 1.0
        made.arrays["head1.weight"][0, 0] = 1.0
        made.arrays["head2.weight"][0, 0] = -100.0
    return made


def message(version: int = 1, of: Weights | None = None, **changes) -> PolicyWeights:
    archive = encode_weights(of or weights())
    return msgspec.structs.replace(PolicyWeights("ddpg", version, FEATURE_SCHEMA, archive, 10), **changes)


def chosen(policy: ServedPolicy) -> tuple[str, str]:
    decision = Guard(policy, decision_budget_ms=math.inf).decide(SITUATION.task, SITUATION.candidates, 0.0)
    return decision.candidates[decision.chosen].node, decision.weights


def test_new_weights_decide_from_the_next_decision_on_and_decisions_say_whose_they_are():
    policy = ServedPolicy("ddpg", weights())
    live = LiveWeights(policy)
    before, label = chosen(policy)
    assert label == ""
    column = int(np.argmax(SITUATION.candidates.features[SITUATION.candidates.nodes.index(before)][:4]))
    assert live.hear("learner-1", message(of=weights(best=column)))
    after, label = chosen(policy)
    assert after != before, "that kind of place is what these weights avoid"
    assert label == "learner-1 v1"
    assert live.counters == {"weights_taken": 1}


def not_finite() -> Weights:
    made = weights()
    made.arrays["body1.bias"][0] = np.nan
    return made


def too_steep() -> Weights:
    """Finite weights whose scores are not."""
    made = weights(best=0)
    made.arrays["body1.weight"][:] = made.arrays["body2.weight"][:] = 3e38
    return made


def misfit() -> Weights:
    made = weights()
    made.arrays["body2.weight"] = made.arrays["body2.weight"][:, :-1]
    return made


def no_scale() -> Weights:
    made = weights()
    made.arrays["scale"][0] = 0.0
    return made


REFUSED = [
    ("learner-1", message(2, feature_schema="other"), "other features"),
    ("learner-1", message(2, of=not_finite()), "not finite"),
    ("learner-1", message(2, of=too_steep()), "not finite"),
    ("learner-1", message(2, of=misfit()), "misfit"),
    ("learner-1", message(2, of=no_scale()), "misfit"),
    ("learner-1", message(2, weights=b"\x80\x04no archive"), "unreadable"),
    ("learner-1", message(2, policy="bandit"), "another policy"),
    ("learner-1", message(0), "old version"),
    ("learner-2", message(2), "another learner"),
]


@pytest.mark.parametrize(
    ("learner", "told", "why"), REFUSED, ids=[f"{why} {i}" for i, (_, _, why) in enumerate(REFUSED)]
)
def test_what_is_not_fit_is_refused_and_nothing_changes(learner, told, why):
    policy = ServedPolicy("ddpg", weights())
    live = LiveWeights(policy)
    assert live.hear("learner-1", message(1))
    before = chosen(policy)
    assert not live.hear(learner, told)
    assert chosen(policy) == before
    assert live.counters == {"weights_taken": 1, f"weights_refused.{why}": 1}
    assert live.hear("learner-1", message(3)), "and the next good ones are taken"


def test_the_same_version_again_is_no_news_and_no_fault():
    live = LiveWeights(ServedPolicy("ddpg", weights()))
    assert live.hear("learner-1", message(4))
    assert not live.hear("learner-1", message(4))
    assert live.counters == {"weights_taken": 1}


def test_only_the_learner_that_was_named_is_followed_or_else_the_first_that_is_fit():
    live = LiveWeights(ServedPolicy("ddpg", weights()), learner="learner-2")
    assert not live.hear("learner-1", message(9))
    assert live.hear("learner-2", message(1))
    live = LiveWeights(ServedPolicy("ddpg", weights()))
    assert not live.hear("learner-1", message(9, of=not_finite()))
    assert live.hear("learner-2", message(1))
    assert not live.hear("learner-1", message(10))


GOOD = encode_weights(weights(best=1))


@settings(deadline=None, max_examples=100)
@given(at=st.integers(0, len(GOOD) - 1), new=st.binary(min_size=1, max_size=8))
def test_damaged_weights_are_refused_or_serve_finite_scores(at, new):
    policy = ServedPolicy("ddpg", weights())
    LiveWeights(policy).hear("learner-1", message(weights=(GOOD[:at] + new + GOOD[at + len(new) :])))
    choice = policy.decide(SITUATION.task, SITUATION.candidates, SITUATION.allowed, 0.0)
    assert np.isfinite(choice.scores).all()
    assert SITUATION.allowed[choice.index]
