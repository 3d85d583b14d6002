"""Whatever a policy returns or raises, and whatever the features are, an allowed place is chosen."""

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.messages import Decision
from roadside.policy.base import Choice, PolicyOptions
from roadside.policy.candidates import Candidates, NodeView, build_candidates
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment
from roadside.policy.even_exploration import EvenExploration
from roadside.policy.experience import Knobs
from roadside.policy.features import FEATURES
from roadside.policy.greedy_utility import GreedyUtilityPolicy
from roadside.policy.guard import Guard
from roadside.policy.registry import make_policy
from roadside.policy.utility import UtilityModel
from roadside.vehicle_node.own_model import OwnPlace

SITUATION = Environment(load_constants(), seed=3, tasks=1).situation
TASK, TABLE = SITUATION.task, SITUATION.candidates
ROWS = len(TABLE)
VEHICLE = TABLE.places.index("vehicle")
MASKS = ("", "dead", "silent", "refused", "below-floor")


class Says:
    name = "says"
    ignores_floors = False

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def decide(self, task, candidates, allowed, now_s) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def observe(self, experience) -> None:
        pass

    def state_dict(self):
        return {}


def changed(masked: tuple[str, ...] = ("",) * ROWS, **arrays) -> Candidates:
    fields = {name: getattr(TABLE, name) for name in Candidates.__slots__}
    return Candidates(**{**fields, "masked": masked, **arrays})


def decide(guard: Guard, table: Candidates, **flags) -> Decision:
    return guard.decide(TASK, table, 0.0, **flags)


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 1),
    st.floats(0, 1).map(np.float32),
    st.integers(-3, 12),
    st.none(),
    st.just("x"),
)
scores = st.one_of(
    st.lists(numbers, max_size=ROWS + 1),
    st.lists(st.floats(-5, 5), min_size=ROWS, max_size=ROWS),
    st.lists(st.floats(-5, 5, width=32), min_size=ROWS, max_size=ROWS).map(lambda row: np.array(row, np.float32)),
)
answers = st.one_of(
    st.builds(
        Choice,
        index=st.one_of(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1).map(np.int64), numbers),
        scores=scores,
        propensity=numbers,
        reason=st.one_of(st.text(max_size=300), st.none(), st.integers()),
        knobs=st.builds(Knobs, exit_threshold=numbers, frame_scale=numbers),
    ),
    st.sampled_from([None, 3, "edge-1", RuntimeError("broken"), ZeroDivisionError(), MemoryError(), StopIteration()]),
)


@settings(deadline=None, max_examples=400)
@given(answer=answers, masked=st.lists(st.sampled_from(MASKS), min_size=ROWS, max_size=ROWS), seed=st.integers(0, 9))
def test_an_allowed_row_is_chosen_whatever_a_policy_says_and_the_decision_can_travel(answer, masked, seed):
    masks = tuple("below-floor" if row == VEHICLE else why for row, why in enumerate(masked))
    guard = Guard(Says(answer), decision_budget_ms=math.inf, exploration=EvenExploration(0.3, seed))
    decision = decide(guard, changed(masks))
    why = masks[decision.chosen]
    assert why in ("", "below-floor")
    if "" in masks:
        assert why == "", "the floor holds while something above it is left"
    assert 0 < decision.propensity <= 1
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(decision), type=Decision).chosen == decision.chosen
    assert sum(guard.counters.values()) == decision.reason.startswith("guard (")


bad_numbers = st.sampled_from([math.nan, math.inf, -math.inf])


@settings(deadline=None, max_examples=100)
@given(spoilt=st.sets(st.integers(0, ROWS - 1), min_size=1), value=bad_numbers, in_utility=st.booleans())
def test_places_without_numbers_are_not_chosen_while_others_are_left(spoilt, value, in_utility):
    features, utility = TABLE.features.copy(), TABLE.utility.copy()
    for row in spoilt:
        if in_utility:
            utility[row] = value
        else:
            features[row, 5] = value
    guard = Guard(GreedyUtilityPolicy(PolicyOptions()), decision_budget_ms=math.inf)
    decision = decide(guard, changed(features=features, utility=utility))
    assert decision.chosen not in spoilt or (len(spoilt) == ROWS and decision.chosen == VEHICLE)
    assert guard.counters == {"garbled": 1}


def test_where_only_the_vehicle_is_left_nobody_is_asked():
    masks = tuple("refused" if row == VEHICLE else "dead" for row in range(ROWS))
    guard = Guard(Says(RuntimeError("asked")))
    decision = decide(guard, changed(masks))
    assert decision.chosen == VEHICLE
    assert decision.reason.startswith("guard (nothing left)")
    assert guard.counters == {"nothing left": 1}


def test_reports_that_are_all_old_are_not_for_the_policy_and_a_fresh_one_is():
    choice = Choice(1, np.zeros(ROWS), 1.0, "mine")
    features = TABLE.features.copy()
    features[:, FEATURES.index("state_age_s")] = 4.0
    guard = Guard(Says(choice), decision_budget_ms=math.inf, stale_after_ms=3000)
    assert decide(guard, changed(features=features)).reason.startswith("guard (stale)")
    features[2, FEATURES.index("state_age_s")] = 0.1
    assert decide(guard, changed(features=features)).reason == "mine"
    assert guard.counters == {"stale": 1}


def test_a_question_counts_nothing_and_draws_nothing():
    guard = Guard(Says(RuntimeError("broken")))
    decide(guard, TABLE, hypothetical=True)
    assert not guard.counters
    choice = Choice(1, np.zeros(ROWS), 1.0, "mine")
    guard = Guard(Says(choice), decision_budget_ms=math.inf, exploration=EvenExploration(0.5, 0))
    assert {decide(guard, TABLE, hypothetical=True).chosen for _ in range(50)} == {1}
    assert len({decide(guard, TABLE).chosen for _ in range(200)}) == SITUATION.allowed.sum()


@pytest.mark.parametrize("name", ["cs-ucb", "cs-ucb-predicted", "linucb", "greedy-utility", "active-inference"])
def test_to_ask_a_policy_changes_nothing_that_it_has_learnt(name):
    policy = make_policy(name, PolicyOptions(seed=1))
    before = policy.state_dict()
    for _ in range(5):
        policy.decide(TASK, TABLE, SITUATION.allowed, 0.0)
    assert policy.state_dict() == before


def test_exploration_is_as_likely_as_it_says():
    sure = Choice(1, np.zeros(ROWS), 1.0, "mine", Knobs(frame_scale=0.5))
    allowed = np.ones(ROWS, np.bool_)
    allowed[0] = False
    exploration = EvenExploration(0.4, seed=5)
    drawn = [exploration.perhaps(sure, allowed) for _ in range(6000)]
    counts = Counter(choice.index for choice in drawn)
    told = {choice.index: choice.propensity for choice in drawn}
    assert 0 not in counts
    assert sum(told.values()) == pytest.approx(1.0)
    for index, propensity in told.items():
        assert counts[index] / 6000 == pytest.approx(propensity, abs=0.03)
    assert all(choice.knobs == (sure.knobs if choice.index == 1 else Knobs()) for choice in drawn)
    unsure = Choice(1, np.zeros(ROWS), 0.5, "drawn")
    assert exploration.perhaps(unsure, allowed) is unsure


def test_a_vehicle_alone_answers_for_itself():
    own = NodeView(state=OwnPlace("vehicle-1").state(), age_ms=0.0, unreported=0, network_ms=0.0)
    table = build_candidates(TASK, [own], UtilityModel(), silent_after_ms=5000)
    decision = decide(Guard(GreedyUtilityPolicy(PolicyOptions())), table)
    assert decision.candidates[decision.chosen].place == "vehicle"
