"""Every shipped policy behind the guard: masks hold whatever a policy does."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.bus.messages import Decision, Outcome, Truth
from roadside.bus.places import Place
from roadside.learner_node.configuration import LEARNABLE
from roadside.policy.base import Choice
from roadside.policy.candidates import Candidates
from roadside.policy.experience import Knobs, experience_of
from roadside.policy.features import FEATURES, TaskFacts
from roadside.policy.guard import Guard
from roadside.policy.registry import PolicyOptions, make_policy, policy_names
from roadside.policy.utility import UtilityModel
from roadside.policy.weights import bundled_weights

from .. import plain_messages

TASK = TaskFacts(kind="explain", deadline_ms=2000, remaining_ms=2000, qos_floor=0.6, upload_bytes=10_000, tokens=32)


@dataclass(frozen=True)
class Row:
    """One row of a table that is made by hand."""

    node: str
    place: Place
    utility: float = 0.5
    latency_ms: float = 100.0
    masked: str = ""


def table(*rows: Row) -> Candidates:
    features = np.zeros((len(rows), len(FEATURES)), np.float32)
    features[:, FEATURES.index("utility")] = [row.utility for row in rows]
    ones = np.ones(len(rows))
    return Candidates(
        nodes=tuple(row.node for row in rows),
        places=tuple(row.place for row in rows),
        masked=tuple(row.masked for row in rows),
        features=features,
        latency_ms=np.array([row.latency_ms for row in rows]),
        upload_ms=ones,
        network_ms=ones,
        wait_ms=ones,
        service_ms=ones,
        energy_j=ones,
        quality=0.9 * ones,
        utility=np.array([row.utility for row in rows]),
        in_flight=0 * ones,
        slots=ones,
    )


VEHICLE = Row("vehicle-1", "vehicle", masked="below-floor", latency_ms=0.0)
FLEET = [
    VEHICLE,
    Row("edge-1", "edge", utility=0.6, latency_ms=60),
    Row("edge-2", "edge", utility=0.7, latency_ms=50),
    Row("cloud-1", "cloud", utility=0.8, latency_ms=90),
]


def guard(name: str, **options) -> Guard:
    return Guard(make_policy(name, PolicyOptions(**options)), decision_budget_ms=math.inf)


def decide(guard: Guard, fleet: list[Row]) -> Decision:
    return guard.decide(TASK, table(*fleet), now_s=0.0)


class Scripted:
    """A policy that returns what it is told to, or raises it."""

    name = "scripted"
    ignores_floors = False

    def __init__(self, says: Any) -> None:
        self.says = says

    def decide(self, task, candidates, allowed, now_s) -> Choice:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def observe(self, experience) -> None:
        raise ValueError("cannot learn")

    def state_dict(self):
        return {}


def test_greedy_takes_the_highest_utility():
    decision = decide(guard("greedy-utility"), FLEET)
    assert decision.candidates[decision.chosen].node == "cloud-1"
    assert [candidate.score for candidate in decision.candidates][1:] == [0.6, 0.7, 0.8]


def test_greedy_tells_what_else_there_was():
    assert decide(guard("greedy-utility"), FLEET).reason == "highest expected utility, 0.100 ahead of edge-2 (edge)"
    alone = [row if row.node == "edge-2" else replace(row, masked="dead") for row in FLEET]
    assert decide(guard("greedy-utility"), alone).reason.endswith("of the only place left")


@pytest.mark.parametrize(("place", "node"), [("vehicle", "vehicle-1"), ("edge", "edge-2"), ("cloud", "cloud-1")])
def test_static_goes_to_its_place_and_ignores_floors(place, node):
    decision = decide(guard("static", place=place), FLEET)
    assert decision.candidates[decision.chosen].node == node


def test_a_node_with_two_places_is_asked_for_the_one_that_is_meant():
    fleet = [*FLEET, Row("edge-1", "edge+cloud", latency_ms=120.0), Row("edge-2", "edge+cloud", masked="refused")]
    decision = decide(guard("static", place="edge+cloud"), fleet)
    chosen = decision.candidates[decision.chosen]
    assert (chosen.node, chosen.place) == ("edge-1", "edge+cloud")
    drawn = Counter(fleet[decide(guard("random", seed=seed), fleet).chosen].place for seed in range(200))
    assert drawn.keys() == {"vehicle", "edge", "edge+cloud", "cloud"}


def test_static_without_a_living_node_of_its_place_takes_what_is_left_and_says_so():
    fleet = [VEHICLE, Row("edge-1", "edge"), Row("cloud-1", "cloud", masked="dead")]
    decision = decide(guard("static", place="cloud"), fleet)
    assert decision.candidates[decision.chosen].node in ("vehicle-1", "edge-1")
    assert decision.reason == "no cloud to be had"


def test_static_without_a_place_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="--place"):
        make_policy("static", PolicyOptions())


def test_random_visits_every_place_evenly_and_repeats_with_its_seed():
    first, second = guard("random", seed=3), guard("random", seed=3)
    drawn = [decide(first, FLEET).chosen for _ in range(3000)]
    assert drawn == [decide(second, FLEET).chosen for _ in range(3000)]
    places = Counter(FLEET[index].place for index in drawn)
    assert all(900 < places[place] < 1100 for place in ("vehicle", "edge", "cloud"))


def test_random_states_the_probability_of_its_choice():
    decision = decide(guard("random", seed=1), FLEET)
    expected = {"vehicle": 1 / 3, "edge": 1 / 6, "cloud": 1 / 3}[FLEET[decision.chosen].place]
    assert decision.propensity == pytest.approx(expected)


def test_a_place_means_static_whatever_the_policy():
    assert make_policy("greedy-utility", PolicyOptions(place="cloud")).name == "static"


def test_an_unknown_policy_is_answered_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="greedy-utility"):
        make_policy("gredy", PolicyOptions())


masks = st.sampled_from(["", "dead", "silent", "refused", "below-floor"])
# Those that are served with weights are policies wherever these are.
usable = [name for name in policy_names() if name not in LEARNABLE or bundled_weights(name).is_file()]


@given(name=st.sampled_from(usable), masked=st.lists(masks, max_size=8), seed=st.integers(0, 99))
def test_no_policy_gets_past_a_hard_mask(name, masked, seed):
    fleet = [VEHICLE, *(Row(f"edge-{i}", "edge", utility=i / 10, masked=why) for i, why in enumerate(masked))]
    decision = decide(guard(name, seed=seed, place="edge" if name == "static" else None), fleet)
    assert fleet[decision.chosen].masked in ("", "below-floor")
    if name == "greedy-utility" and "" in masked:
        assert fleet[decision.chosen].masked == "", "the floor holds while something above it is left"


@given(masked=st.lists(st.sampled_from(["dead", "silent", "refused"]), max_size=8))
def test_the_vehicle_is_what_remains(masked):
    fleet = [VEHICLE, *(Row(f"edge-{i}", "edge", masked=why) for i, why in enumerate(masked))]
    assert decide(guard("greedy-utility"), fleet).chosen == 0


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (RuntimeError("broken"), "error"),
        (Choice(0, (1.0, 1.0, 1.0, 1.0), 1.0, "into the mask"), "masked choice"),
        (Choice(99, (1.0, 1.0, 1.0, 1.0), 1.0, "nowhere"), "masked choice"),
        (Choice(1, (1.0, float("nan"), 1.0, 1.0), 1.0, "not a number"), "bad scores"),
        (Choice(1, (1.0,), 1.0, "too few"), "bad scores"),
        (Choice(1, (1.0, 1.0, 1.0, 1.0), 1.0, "no picture", Knobs(frame_scale=0.0)), "bad knobs"),
        (Choice(1, (1.0, 1.0, 1.0, 1.0), 1.0, "no number", Knobs(exit_threshold=math.nan)), "bad knobs"),
    ],
)
def test_the_guard_overrules_a_policy_that_cannot_be_trusted(says, why):
    watched = Guard(Scripted(says), decision_budget_ms=math.inf)
    decision = decide(watched, FLEET)
    assert decision.candidates[decision.chosen].node == "cloud-1", "plain greedy answers instead"
    assert decision.reason.startswith(f"guard ({why})")
    assert watched.counters == {why: 1}


def test_the_guard_overrules_a_policy_that_spends_the_time_budget():
    watched = Guard(Scripted(Choice(1, (1.0, 1.0, 1.0, 1.0), 1.0, "late")), decision_budget_ms=0.0)
    assert decide(watched, FLEET).reason.startswith("guard (too slow)")


def test_the_guard_overrules_a_policy_that_was_trained_on_something_else():
    says = Choice(1, (1.0, 1.0, 1.0, 1.0), 1.0, "trained")
    trained = Scripted(says)
    utility = FEATURES.index("utility")
    lowest, highest = np.full(len(FEATURES), -10.0), np.full(len(FEATURES), 10.0)
    trained.feature_range = np.array([lowest, highest])  # pyright: ignore[reportAttributeAccessIssue]
    assert decide(Guard(trained, decision_budget_ms=math.inf), FLEET).reason == "trained"
    highest[utility] = 0.75
    trained.feature_range = np.array([lowest, highest])  # pyright: ignore[reportAttributeAccessIssue]
    watched = Guard(trained, decision_budget_ms=math.inf)
    assert decide(watched, FLEET).reason.startswith("guard (untrained)")
    without_cloud = [*FLEET[:3], Row("cloud-1", "cloud", utility=0.8, masked="dead")]
    assert decide(watched, without_cloud).reason == "trained", "what may not be taken need not be known"


def test_knobs_and_features_travel_with_the_decision():
    choice = Choice(1, (0.0, 3.0, 2.0, 1.0), 0.5, "turned down", Knobs(exit_threshold=0.7, frame_scale=0.5))
    decision = decide(Guard(Scripted(choice), decision_budget_ms=math.inf), FLEET)
    assert (decision.exit_threshold, decision.frame_scale) == (0.7, 0.5)
    assert [row.score for row in decision.candidates] == [0.0, 3.0, 2.0, 1.0]
    assert np.array([row.features for row in decision.candidates]) == pytest.approx(table(*FLEET).features)


class Listening(Scripted):
    def __init__(self) -> None:
        super().__init__(Choice(3, (0.0, 0.0, 0.0, 1.0), 0.5, "to learn"))
        self.heard: list[Any] = []

    def observe(self, experience):
        self.heard.append(experience)


def outcome(decision: Decision | None, **changes: Any) -> Outcome:
    plain = msgspec.structs.replace(
        plain_messages.OUTCOME,
        task_id="vehicle-1-00001",
        created_at_s=1000.0,
        requested="cloud",
        place="cloud",
        node="cloud-1",
        mode="full",
        latency_ms=500.0,
        first_answer_ms=500.0,
        network_ms=20.0,
        energy_j=10.0,
        clip="",
        moment_s=0.0,
        decision=decision,
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "in_time", "right", "utility"),
    [
        ({}, True, 0.9, 0.9 - 0.25 * 0.25 - 0.15 * 0.2),
        ({"truth": Truth("", "", True, False)}, True, 0.0, -0.25 * 0.25 - 0.15 * 0.2),
        ({"truth": Truth("", "", None, True)}, True, 1.0, 1 - 0.25 * 0.25 - 0.15 * 0.2),
        # The narrator spoke just before the deadline: the chosen place has answered nothing.
        ({"state": "fallback", "latency_ms": 1975.0}, False, 0.0, -0.25 * 1975 / 2000 - 0.15 * 0.2),
    ],
)
def test_a_policy_learns_from_what_became_of_its_decision(changes, in_time, right, utility):
    policy = Listening()
    watched = Guard(policy, decision_budget_ms=math.inf)
    watched.observe(outcome(decide(watched, FLEET), **changes))
    (heard,) = policy.heard
    assert (heard.chosen, heard.node, heard.place, heard.propensity) == (3, "cloud-1", "cloud", 0.5)
    assert heard.features == pytest.approx(table(*FLEET).features)
    assert heard.allowed.tolist() == [False, True, True, True]
    assert (heard.in_time, heard.right) == (in_time, right)
    assert heard.utility == pytest.approx(utility)


def test_nothing_is_learnt_from_a_task_without_a_decision_or_with_features_of_another_version():
    decision = decide(guard("greedy-utility"), FLEET)
    foreign = tuple(msgspec.structs.replace(row, features=(1.0, 2.0)) for row in decision.candidates)
    assert experience_of(outcome(None), UtilityModel()) is None
    assert experience_of(outcome(msgspec.structs.replace(decision, candidates=foreign)), UtilityModel()) is None


def test_a_policy_that_fails_to_learn_does_not_stop_the_vehicle():
    watched = Guard(Scripted(RuntimeError("broken")))
    watched.observe(outcome(decide(guard("greedy-utility"), FLEET)))
    assert watched.counters == {"observe failed": 1}
