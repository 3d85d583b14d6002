"""What a vehicle believes of the nodes."""

import math

import msgspec
import pytest
from roadside.bus.messages import Load, NodeState
from roadside.vehicle_node.nodes import NodeTable, speaks_for_itself


def load(wait_ms: float = 0.0) -> Load:
    return Load(queued=0, running=0, slots=1, wait_ms=wait_ms, service_ms={"edge": {"explain": 50.0}})


def state(*, alive: bool = True, wait_ms: float = 0.0) -> NodeState:
    return NodeState(node="edge-1", role="edge", alive=alive, places=("edge",), load=load(wait_ms))


def test_only_the_death_of_a_living_node_is_news():
    nodes = NodeTable()
    assert not nodes.update_state(state(alive=False), 0.0), "it was dead when we came"
    assert not nodes.update_state(state(), 1.0)
    assert nodes.update_state(state(alive=False), 2.0)
    assert not nodes.update_state(state(alive=False), 3.0)


def test_an_ack_refreshes_the_load():
    nodes = NodeTable()
    nodes.update_state(state(wait_ms=10), 0.0)
    nodes.update_load("edge-1", load(wait_ms=400), 2.0)
    (view,) = nodes.views(2.5)
    assert view.state.load is not None
    assert view.state.load.wait_ms == 400
    assert view.age_ms == 500


def test_what_a_dead_node_said_earlier_does_not_revive_it():
    nodes = NodeTable()
    nodes.update_state(state(), 0.0)
    nodes.update_state(state(alive=False), 1.0)
    nodes.update_load("edge-1", load(), 2.0)
    (view,) = nodes.views(2.0)
    assert not view.state.alive


def test_own_tasks_count_until_the_node_has_answered_for_them():
    nodes = NodeTable()
    nodes.update_state(state(), 0.0)
    nodes.sent("edge-1", "a")
    nodes.sent("edge-1", "b")
    assert nodes.views(0.0)[0].unreported == 2
    nodes.settled("edge-1", "a")
    nodes.settled("edge-1", "a")
    assert nodes.views(0.0)[0].unreported == 1


def test_the_first_round_trip_replaces_the_guess_and_later_ones_are_smoothed():
    nodes = NodeTable()
    nodes.update_state(state(), 0.0)
    nodes.observe_network("edge-1", 400.0)
    assert nodes.network_ms("edge-1") == 400.0
    nodes.observe_network("edge-1", 5.0)
    assert 5.0 < nodes.network_ms("edge-1") < 400.0
    for _ in range(50):
        nodes.observe_network("edge-1", 5.0)
    assert nodes.views(0.0)[0].network_ms == pytest.approx(5.0, abs=0.1)


def test_the_quickest_answer_counts_no_queue_and_a_dead_node_gives_none():
    nodes = NodeTable()
    nodes.update_state(state(wait_ms=900), 0.0)
    nodes.observe_network("edge-1", 10.0)
    assert nodes.quickest_ms("edge-1", "explain") == 60.0
    nodes.update_state(state(alive=False), 1.0)
    assert nodes.quickest_ms("edge-1", "explain") == math.inf


def test_silence_is_measured_from_the_last_word():
    nodes = NodeTable()
    nodes.update_state(state(), 0.0)
    nodes.update_load("edge-1", load(), 2.0)
    assert not nodes.is_silent("edge-1", 2.9, silent_after_ms=1000)
    assert nodes.is_silent("edge-1", 3.1, silent_after_ms=1000)


@pytest.mark.parametrize(
    ("changes", "honest"),
    [
        ({}, True),
        ({"places": ("edge", "edge+cloud")}, True),
        ({"places": ()}, True),
        ({"node": "edge-2"}, False),
        ({"places": ("vehicle",)}, False),
        ({"places": ("edge", "cloud")}, False),
        ({"role": "cloud"}, False),
        ({"role": "vehicle"}, False),
    ],
)
def test_a_node_speaks_for_itself_and_its_role(changes, honest):
    assert speaks_for_itself(msgspec.structs.replace(state(), **changes), "edge-1") is honest


def test_refusals_belong_to_one_task():
    nodes = NodeTable()
    nodes.update_state(state(), 0.0)
    assert nodes.views(0.0, refused_by=frozenset({"edge-1"}))[0].refused
    assert not nodes.views(0.0)[0].refused


def test_messages_from_a_node_that_never_announced_itself_are_survived():
    nodes = NodeTable()
    nodes.update_load("ghost-1", load(), 0.0)
    nodes.settled("ghost-1", "a")
    assert nodes.views(0.0) == []
