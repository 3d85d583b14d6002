"""What the live page knows, whatever arrives, in whatever order, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roadside.bus import topics
from roadside.bus.messages import Candidate, Decision, Message, Rejected
from roadside.bus.subscription import Received
from roadside.ui.activity import BIN_S, BINS
from roadside.ui.fleet_view import SILENT_AFTER_S, FleetView

Build = Callable[..., Any]
Receive = Callable[..., Received]


@pytest.fixture
def life_of_a_task(
    received: Receive, an_ack: Build, a_result: Build, an_outcome: Build
) -> Callable[..., list[Received]]:
    """All that is said of one task."""

    def build(task_id: str, vehicle: str = "vehicle-1", node: str = "edge-1", **ending: Any) -> list[Received]:
        outcome: Message = an_outcome(task_id=task_id, node=node, **ending)
        return [
            received(topics.ACK, an_ack(task_id=task_id), vehicle=vehicle, node=node),
            received(topics.RESULT, a_result(task_id=task_id, final=False), vehicle=vehicle, node=node),
            received(topics.RESULT, a_result(task_id=task_id), vehicle=vehicle, node=node),
            received(topics.OUTCOME, outcome, vehicle=vehicle),
        ]

    return build


def _heard(messages: list[Received], *, members: int = 256, step_s: float = 0.001) -> tuple[FleetView, float]:
    view = FleetView(100.0, members=members)
    now_s = 100.0
    for message in messages:
        now_s += step_s
        view.hear(message, now_s)
    return view, now_s


def test_a_task_is_followed_from_hand_to_hand(life_of_a_task: Callable[..., list[Received]]) -> None:
    accepted, provisional, final, outcome = life_of_a_task("t-1")
    view = FleetView(0.0)
    view.hear(accepted, 10.0)
    assert "vehicle-1" not in view.vehicles
    trace = view.traces.get("vehicle-1", "t-1")
    assert trace is not None
    assert trace.is_under_way(12.0)
    assert not trace.is_under_way(60.0)
    view.hear(provisional, 10.03)
    assert trace.provisional is not None
    assert trace.provisional.text == "the car stops ."
    assert view.vehicles["vehicle-1"].trace is trace
    view.hear(final, 10.06)
    assert trace.provisional is None
    view.hear(outcome, 10.07)
    assert not trace.is_under_way(10.08)
    # On the page's clock it was taken 70 ms before its end, which the vehicle measured at 80 ms.
    assert [trace.since_created_ms(event) for event in trace.events] == pytest.approx([10.0, 40.0, 70.0, 80.0])
    assert view.nodes["edge-1"].network_ms == 12.0
    total = view.activity.total(10.1)
    assert (total.ended, total.in_time, total.judged, total.right) == (1, 1, 1, 0)
    assert sum(total.parts_ms) == pytest.approx(total.latency_ms)
    assert (total.tokens, total.exit_tokens) == (5, 3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_messages_makes_no_difference(
    life_of_a_task: Callable[..., list[Received]], data: st.DataObject
) -> None:
    """Whatever arrives late or twice: every task is known once, with all that was said, and counted once."""
    states = data.draw(st.lists(st.sampled_from(["result", "fallback", "expired", "rejected"]), min_size=1, max_size=6))
    messages = [
        message
        for number, state in enumerate(states)
        for message in life_of_a_task(f"t-{number}", f"vehicle-{number % 2}", state=state)
    ]
    again = data.draw(
        st.lists(st.sampled_from([each for each in messages if each.topic is topics.OUTCOME]), max_size=4)
    )
    view, now_s = _heard(data.draw(st.permutations(messages + again)))
    assert len(view.traces) == len(states)
    for trace in view.traces:
        assert trace.outcome is not None
        assert sorted(event.what for event in trace.events) == ["accepted", "final", "outcome", "provisional"]
    total = view.activity.total(now_s)
    assert (total.ended, total.in_time, total.fallback) == (
        len(states),
        states.count("result"),
        states.count("fallback"),
    )
    assert sum(vehicle.ended for vehicle in view.vehicles.values()) == len(states)
    assert sum(total.placements) == states.count("result")
    by_vehicle = [vehicle.activity.total(now_s) for vehicle in view.vehicles.values()]
    assert sum(each.energy_j for each in by_vehicle) == pytest.approx(total.energy_j)
    assert sum(each.ended for each in view.activity.bins(now_s)) == total.ended


def test_memory_is_bounded_whoever_speaks(
    received: Receive, life_of_a_task: Callable[..., list[Received]], a_frame: Build, a_state: Build
) -> None:
    messages: list[Received] = []
    for number in range(600):
        vehicle = f"vehicle-{number}"
        messages += life_of_a_task(f"t-{number}", vehicle, f"edge-{number}")
        messages.append(received(topics.FRAME, a_frame(), vehicle=vehicle))
        messages.append(received(topics.NODE_STATE, a_state(node=f"edge-{number}"), node=f"edge-{number}"))
    view, _ = _heard(messages, members=50)
    assert len(view.traces) == 400
    assert len(view.vehicles) == len(view.nodes) == 50
    assert view.pictures.bytes_kept == 50 * 4
    assert "vehicle-599" in view.vehicles


def test_a_task_cannot_fill_the_page(received: Receive, an_ack: Build, an_outcome: Build) -> None:
    """A vehicle that resends for ever, and a decision with hundreds of candidates, keep their ends and their choice."""
    many = tuple(
        Candidate(f"edge-{number}", "edge", float(number), 1.0, 1.0, 0.5, "" if number % 2 else "full", ())
        for number in range(300)
    )
    decision = Decision("policy", chosen=8, propensity=1.0, reason="", candidates=many)
    flood = [received(topics.ACK, an_ack(), vehicle="vehicle-1", node="edge-1") for _ in range(100)]
    outcome = an_outcome(decision=decision, made_by=("full",) * 4000)
    view, _ = _heard([*flood, received(topics.OUTCOME, outcome, vehicle="vehicle-1"), *flood])
    trace = view.traces.get("vehicle-1", "t-1")
    assert trace is not None
    assert trace.outcome is not None
    assert len(trace.events) <= 24
    assert any(event.what == "outcome" for event in trace.events)
    kept = trace.outcome.decision
    assert kept is not None
    assert len(kept.candidates) + trace.candidates_left_out == 300
    assert kept.candidates[kept.chosen].node == "edge-8"
    # Of the others the best that were allowed.
    assert kept.candidates[1].node == "edge-299"
    assert not any(each.masked for each in kept.candidates[1:])
    assert len(trace.outcome.made_by) <= 512


def test_members_leave_fall_silent_and_come_back(received: Receive, a_state: Build) -> None:
    view = FleetView(0.0)

    def hear(alive: bool, now_s: float, *, boot_id: str = "first", sequence: int = 0) -> None:
        state = a_state(alive=alive) if alive else msgspec.structs.replace(a_state(), alive=False, load=None)
        view.hear(received(topics.NODE_STATE, state, node="edge-1", boot_id=boot_id, sequence=sequence), now_s)

    hear(True, 1.0, sequence=5)
    membership = view.nodes["edge-1"].membership
    assert membership.silent_s(2.0, listening_since_s=0.0) is None
    assert membership.silent_s(1.0 + 2 * SILENT_AFTER_S, listening_since_s=0.0) == pytest.approx(2 * SILENT_AFTER_S)
    # While there was no broker, nobody could be heard.
    assert membership.silent_s(100.0, listening_since_s=99.0) is None
    hear(False, 10.0)
    assert membership.dead_since_s == 10.0
    assert membership.state is not None
    assert (membership.state.model, membership.state.load) == ("small", None)
    # An older state that comes late does not revive it; its will does not make it die again.
    hear(True, 11.0, sequence=4)
    hear(False, 12.0)
    assert membership.dead_since_s == 10.0
    hear(True, 20.0, boot_id="second", sequence=1)
    assert membership.dead_since_s is None
    # The broker publishes the first life's will late.
    hear(False, 21.0, boot_id="first")
    assert membership.dead_since_s is None
    # A connection that was lost, and whose will was published, comes back with the same life.
    hear(False, 30.0, boot_id="second")
    assert membership.dead_since_s == 30.0
    hear(True, 31.0, boot_id="second", sequence=2)
    assert membership.dead_since_s is None


def test_a_refused_attempt_is_part_of_the_story(received: Receive, an_ack: Build) -> None:
    refused = Rejected(task_id="t-1", attempt=1, reason="queue full", retry_after_ms=50.0, load=an_ack().load)
    view, _ = _heard([received(topics.ACK, refused, vehicle="vehicle-1", node="edge-1")])
    trace = view.traces.get("vehicle-1", "t-1")
    assert trace is not None
    assert [(event.what, event.node, event.text) for event in trace.events] == [("rejected", "edge-1", "queue full")]


def test_a_straggler_does_not_replace_a_newer_answer(
    received: Receive, life_of_a_task: Callable[..., list[Received]], a_result: Build
) -> None:
    late = received(topics.RESULT, a_result(task_id="t-1"), vehicle="vehicle-1", node="edge-2")
    view, _ = _heard([*life_of_a_task("t-1"), *life_of_a_task("t-2"), late])
    trace = view.vehicles["vehicle-1"].trace
    assert trace is not None
    assert trace.task_id == "t-2"


def test_the_window_forgets(life_of_a_task: Callable[..., list[Received]]) -> None:
    view, now_s = _heard(life_of_a_task("t-1"))
    assert view.activity.total(now_s).ended == 1
    later_s = now_s + BIN_S * (BINS + 1)
    assert view.activity.total(later_s).ended == 0
    assert [each.ended for each in view.activity.bins(later_s)] == [0] * BINS
