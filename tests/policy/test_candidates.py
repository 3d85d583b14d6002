"""The rows that policies decide on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.messages import Load, NodeState, Role
from roadside.bus.places import Place
from roadside.policy.candidates import FEATURES, NodeView, TaskFacts, build_candidates, utility_of
from roadside.policy.utility import UtilityModel

UTILITY = UtilityModel()
EXPLAIN = TaskFacts(kind="explain", deadline_ms=2000, remaining_ms=1900, qos_floor=0.6, upload_bytes=12_000)


def node_view(
    name: str = "edge-1",
    *,
    place: Place = "edge",
    quality: float = 0.9,
    wait_ms: float = 0.0,
    service_ms: float = 50.0,
    alive: bool = True,
    age_ms: float = 100.0,
    unreported: int = 0,
    refused: bool = False,
) -> NodeView:
    role: Role = "edge" if place == "edge+cloud" else place
    state = NodeState(
        node=name,
        role=role,
        alive=alive,
        places=(place,),
        load=Load(queued=0, running=0, slots=1, wait_ms=wait_ms, service_ms={place: {"explain": service_ms}}),
        quality={place: {"explain": quality}},
        slot_power_w=50.0,
    )
    return NodeView(state=state, age_ms=age_ms, unreported=unreported, network_ms=10.0, refused=refused)


def build(*views: NodeView, task: TaskFacts = EXPLAIN):
    return build_candidates(task, views, UTILITY, silent_after_ms=5000)


def feature(row, name: str) -> float:
    return row.features[FEATURES.index(name)]


@pytest.mark.parametrize(
    ("view", "masked"),
    [
        (node_view(), ""),
        (node_view(alive=False), "dead"),
        (node_view(age_ms=5001), "silent"),
        (node_view(refused=True), "refused"),
        (node_view(quality=0.59), "below-floor"),
        (node_view(place="vehicle", quality=0.0, age_ms=9999), "below-floor"),
    ],
)
def test_a_row_says_why_it_may_not_be_chosen(view, masked):
    assert build(view)[0].masked == masked


def test_latency_is_network_and_the_rest_of_the_queue_and_service():
    row = build(node_view(wait_ms=300, age_ms=100, service_ms=50))[0]
    assert row.latency_ms == pytest.approx(10 + (300 - 100) + 50)


def test_own_tasks_on_their_way_count_as_queue():
    alone, busy = build(node_view(unreported=0), node_view(unreported=3))
    assert busy.latency_ms - alone.latency_ms == pytest.approx(3 * 50)


def test_energy_is_power_times_inference_and_the_upload():
    row = build(node_view(service_ms=1000))[0]
    assert row.energy_j == pytest.approx(50.0 * 1.0 + 2.0 * 12_000 * 8 / 20e6)


def test_the_vehicle_itself_has_no_network_and_no_upload():
    row = build(node_view(place="vehicle", service_ms=0))[0]
    assert row.latency_ms == 0
    assert row.energy_j == 0


@given(
    wait_ms=st.floats(0, 1e6),
    service_ms=st.floats(0, 1e6),
    age_ms=st.floats(0, 1e7),
    quality=st.floats(0, 1),
    remaining_ms=st.floats(1, 6e5),
    unreported=st.integers(0, 1000),
)
def test_features_are_finite_and_times_are_capped(wait_ms, service_ms, age_ms, quality, remaining_ms, unreported):
    task = TaskFacts(kind="explain", deadline_ms=6e5, remaining_ms=remaining_ms, qos_floor=0.6, upload_bytes=1)
    view = node_view(wait_ms=wait_ms, service_ms=service_ms, age_ms=age_ms, quality=quality, unreported=unreported)
    row = build(view, task=task)[0]
    assert len(row.features) == len(FEATURES)
    assert all(math.isfinite(value) for value in row.features)
    assert 0 <= feature(row, "latency_per_deadline") <= 3
    assert utility_of(row) <= quality


def test_utility_prefers_right_then_fast_then_cheap():
    def value(*, latency_ms: float = 500.0, energy_j: float = 5.0, quality: float = 0.9) -> float:
        return UTILITY.utility(latency_ms=latency_ms, deadline_ms=2000, energy_j=energy_j, quality=quality)

    assert value(quality=0.95) > value() > value(quality=0.5)
    assert value(latency_ms=100) > value() > value(latency_ms=1900)
    assert value(energy_j=1) > value() > value(energy_j=50)
    assert value(latency_ms=2001) < value(latency_ms=2000) - 0.8, "a late answer loses its quality"


def test_a_node_has_a_row_for_each_of_its_places_with_its_own_figures_and_is_refused_as_a_whole():
    state = NodeState(
        node="edge-1",
        role="edge",
        alive=True,
        places=("edge", "edge+cloud"),
        load=Load(0, 0, 1, 0.0, {"edge": {"explain": 50.0}, "edge+cloud": {"explain": 90.0}}),
        quality={"edge": {"explain": 0.7}, "edge+cloud": {"explain": 0.9}},
    )
    alone, together = build(NodeView(state=state, age_ms=0.0, unreported=0, network_ms=10.0))
    assert (alone.place, alone.latency_ms, alone.quality) == ("edge", 60.0, 0.7)
    assert (together.place, together.latency_ms, together.quality) == ("edge+cloud", 100.0, 0.9)
    refused = build(NodeView(state=state, age_ms=0.0, unreported=0, network_ms=10.0, refused=True))
    assert {row.masked for row in refused} == {"refused"}
