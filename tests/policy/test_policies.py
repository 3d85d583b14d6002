"""Every shipped policy behind the guard: masks hold whatever a policy does."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.bus.messages import Candidate
from roadside.policy.base import Choice
from roadside.policy.candidates import FEATURES, TaskFacts
from roadside.policy.guard import Guard
from roadside.policy.registry import PolicyOptions, make_policy, policy_names

TASK = TaskFacts(kind="explain", deadline_ms=2000, remaining_ms=2000, qos_floor=0.6, upload_bytes=10_000)


def row(node: str, place: str, *, utility: float = 0.5, latency_ms: float = 100.0, masked: str = "") -> Candidate:
    features = tuple(utility if name == "utility" else 0.0 for name in FEATURES)
    return Candidate(
        node=node,
        place=place,  # pyright: ignore[reportArgumentType]
        score=0.0,
        latency_ms=latency_ms,
        energy_j=1.0,
        quality=0.9,
        masked=masked,
        features=features,
    )


VEHICLE = row("vehicle-1", "vehicle", masked="below-floor", latency_ms=0.0)
FLEET = [
    VEHICLE,
    row("edge-1", "edge", utility=0.6, latency_ms=60),
    row("edge-2", "edge", utility=0.7, latency_ms=50),
    row("cloud-1", "cloud", utility=0.8, latency_ms=90),
]


def guard(name: str, **options) -> Guard:
    return Guard(make_policy(name, PolicyOptions(**options)), decision_budget_ms=math.inf)


class Scripted:
    """A policy that returns what it is told to, or raises it."""

    name = "scripted"
    ignores_floors = False

    def __init__(self, says: Any) -> None:
        self.says = says

    def decide(self, task, candidates, allowed) -> Choice:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def observe(self, outcome):
        raise ValueError("cannot learn")

    def state_dict(self):
        return {}


def test_greedy_takes_the_highest_utility():
    decision = guard("greedy-utility").decide(TASK, FLEET)
    assert decision.candidates[decision.chosen].node == "cloud-1"
    assert [candidate.score for candidate in decision.candidates][1:] == [0.6, 0.7, 0.8]


@pytest.mark.parametrize(("place", "node"), [("vehicle", "vehicle-1"), ("edge", "edge-2"), ("cloud", "cloud-1")])
def test_static_goes_to_its_place_and_ignores_floors(place, node):
    decision = guard("static", place=place).decide(TASK, FLEET)
    assert decision.candidates[decision.chosen].node == node


def test_a_node_with_two_places_is_asked_for_the_one_that_is_meant():
    fleet = [*FLEET, row("edge-1", "edge+cloud", latency_ms=120.0), row("edge-2", "edge+cloud", masked="refused")]
    decision = guard("static", place="edge+cloud").decide(TASK, fleet)
    chosen = decision.candidates[decision.chosen]
    assert (chosen.node, chosen.place) == ("edge-1", "edge+cloud")
    drawn = Counter(fleet[guard("random", seed=seed).decide(TASK, fleet).chosen].place for seed in range(200))
    assert drawn.keys() == {"vehicle", "edge", "edge+cloud", "cloud"}


def test_static_without_a_living_node_of_its_place_takes_what_is_left_and_says_so():
    fleet = [VEHICLE, row("edge-1", "edge"), row("cloud-1", "cloud", masked="dead")]
    decision = guard("static", place="cloud").decide(TASK, fleet)
    assert decision.candidates[decision.chosen].node in ("vehicle-1", "edge-1")
    assert decision.reason == "no cloud to be had"


def test_static_without_a_place_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="--place"):
        make_policy("static", PolicyOptions())


def test_random_visits_every_place_evenly_and_repeats_with_its_seed():
    first, second = guard("random", seed=3), guard("random", seed=3)
    drawn = [first.decide(TASK, FLEET).chosen for _ in range(3000)]
    assert drawn == [second.decide(TASK, FLEET).chosen for _ in range(3000)]
    places = Counter(FLEET[index].place for index in drawn)
    assert all(900 < places[place] < 1100 for place in ("vehicle", "edge", "cloud"))


def test_random_states_the_probability_of_its_choice():
    decision = guard("random", seed=1).decide(TASK, FLEET)
    expected = {"vehicle": 1 / 3, "edge": 1 / 6, "cloud": 1 / 3}[FLEET[decision.chosen].place]
    assert decision.propensity == pytest.approx(expected)


def test_a_place_means_static_whatever_the_policy():
    assert make_policy("greedy-utility", PolicyOptions(place="cloud")).name == "static"


def test_an_unknown_policy_is_answered_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="greedy-utility"):
        make_policy("gredy", PolicyOptions())


masks = st.sampled_from(["", "dead", "silent", "refused", "below-floor"])


@given(name=st.sampled_from(policy_names()), masked=st.lists(masks, max_size=8), seed=st.integers(0, 99))
def test_no_policy_gets_past_a_hard_mask(name, masked, seed):
    fleet = [VEHICLE, *(row(f"edge-{i}", "edge", utility=i / 10, masked=why) for i, why in enumerate(masked))]
    decision = guard(name, seed=seed, place="edge" if name == "static" else None).decide(TASK, fleet)
    assert fleet[decision.chosen].masked in ("", "below-floor")
    if name == "greedy-utility" and "" in masked:
        assert fleet[decision.chosen].masked == "", "the floor holds while something above it is left"


@given(masked=st.lists(st.sampled_from(["dead", "silent", "refused"]), max_size=8))
def test_the_vehicle_is_what_remains(masked):
    fleet = [VEHICLE, *(row(f"edge-{i}", "edge", masked=why) for i, why in enumerate(masked))]
    assert guard("greedy-utility").decide(TASK, fleet).chosen == 0


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (RuntimeError("broken"), "error"),
        (Choice(0, (1.0, 1.0, 1.0, 1.0), 1.0, "into the mask"), "masked choice"),
        (Choice(99, (1.0, 1.0, 1.0, 1.0), 1.0, "nowhere"), "masked choice"),
        (Choice(1, (1.0, float("nan"), 1.0, 1.0), 1.0, "not a number"), "bad scores"),
        (Choice(1, (1.0,), 1.0, "too few"), "bad scores"),
    ],
)
def test_the_guard_overrules_a_policy_that_cannot_be_trusted(says, why):
    watched = Guard(Scripted(says), decision_budget_ms=math.inf)
    decision = watched.decide(TASK, FLEET)
    assert decision.candidates[decision.chosen].node == "cloud-1", "plain greedy answers instead"
    assert decision.reason.startswith(f"guard ({why})")
    assert watched.counters == {why: 1}


def test_the_guard_overrules_a_policy_that_spends_the_time_budget():
    watched = Guard(Scripted(Choice(1, (1.0, 1.0, 1.0, 1.0), 1.0, "late")), decision_budget_ms=0.0)
    assert watched.decide(TASK, FLEET).reason.startswith("guard (too slow)")


def test_a_policy_that_fails_to_learn_does_not_stop_the_vehicle():
    watched = Guard(Scripted(RuntimeError("broken")))
    watched.observe(None)  # pyright: ignore[reportArgumentType]
    assert watched.counters == {"observe failed": 1}
