"""The rows that policies decide on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.messages import Load, NodeState, Role
from roadside.bus.places import Place
from roadside.policy.candidates import NodeView, build_candidates
from roadside.policy.features import FEATURES, TaskFacts
from roadside.policy.utility import UtilityModel

UTILITY = UtilityModel()
EXPLAIN = TaskFacts(kind="explain", deadline_ms=2000, remaining_ms=1900, qos_floor=0.6, upload_bytes=12_000, tokens=32)


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


def feature(table, name: str, row: int = 0) -> float:
    return float(table.features[row, FEATURES.index(name)])


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
    assert build(view).masked == (masked,)


def test_latency_is_network_and_the_rest_of_the_queue_and_service():
    table = build(node_view(wait_ms=300, age_ms=100, service_ms=50))
    upload_ms = 12_000 * 8 / 20e6 * 1000
    assert table.wait_ms == pytest.approx([300 - 100 - upload_ms]), "the queue shortens while the picture travels"
    assert table.latency_ms == pytest.approx([10 + (300 - 100 - upload_ms) + 50])


def test_own_tasks_on_their_way_count_as_queue():
    table = build(node_view(unreported=0), node_view(unreported=3))
    alone_ms, busy_ms = table.latency_ms
    assert busy_ms - alone_ms == pytest.approx(3 * 50)
    assert table.in_flight.tolist() == [0, 3]


def test_energy_is_power_times_inference_and_the_upload():
    table = build(node_view(service_ms=1000))
    assert table.energy_j == pytest.approx([50.0 * 1.0 + 2.0 * 12_000 * 8 / 20e6])


def test_the_vehicle_itself_has_no_network_and_no_upload():
    table = build(node_view(place="vehicle", service_ms=0))
    assert table.latency_ms == [0]
    assert table.energy_j == [0]


@given(
    wait_ms=st.floats(0, 1e6),
    service_ms=st.floats(0, 1e6),
    age_ms=st.floats(0, 1e7),
    quality=st.floats(0, 1),
    remaining_ms=st.floats(1, 6e5),
    unreported=st.integers(0, 1000),
)
def test_features_are_finite_and_times_are_capped(wait_ms, service_ms, age_ms, quality, remaining_ms, unreported):
    task = TaskFacts(
        kind="explain", deadline_ms=6e5, remaining_ms=remaining_ms, qos_floor=0.6, upload_bytes=1, tokens=32
    )
    view = node_view(wait_ms=wait_ms, service_ms=service_ms, age_ms=age_ms, quality=quality, unreported=unreported)
    table = build(view, task=task)
    assert table.features.shape == (1, len(FEATURES))
    assert np.isfinite(table.features).all()
    assert 0 <= feature(table, "latency_per_deadline") <= 3
    assert table.utility <= quality


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
    table = build(NodeView(state=state, age_ms=0.0, unreported=0, network_ms=10.0))
    assert table.places == ("edge", "edge+cloud")
    assert table.latency_ms.tolist() == pytest.approx([60.0, 100.0])
    assert table.quality.tolist() == [0.7, 0.9]
    refused = build(NodeView(state=state, age_ms=0.0, unreported=0, network_ms=10.0, refused=True))
    assert refused.masked == ("refused", "refused")


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["wait_ms", "service_ms", "quality"])
def test_a_report_of_no_numbers_masks_its_node_and_spoils_no_other(where, nonsense):
    sound = node_view("edge-2")
    table = build(node_view(**{where: nonsense}), sound)
    if where != "quality" and math.isinf(nonsense):
        assert np.isfinite(table.latency_ms).all(), "endless is very long, and before the beginning is nothing"
    else:
        assert table.masked == ("garbled", "")
    assert np.isfinite(table.features).all()
    assert (table.features[1] == build(sound).features[0]).all()


@given(st.permutations(range(5)))
def test_nodes_in_another_order_are_rows_in_that_order(order):
    views = [node_view(f"edge-{i}", wait_ms=70.0 * i, service_ms=20.0 + i, age_ms=40.0 * i) for i in range(5)]
    straight, shuffled = build(*views), build(*(views[i] for i in order))
    assert shuffled.nodes == tuple(straight.nodes[i] for i in order)
    assert (shuffled.features == straight.features[list(order)]).all()
    assert (shuffled.utility == straight.utility[list(order)]).all()
