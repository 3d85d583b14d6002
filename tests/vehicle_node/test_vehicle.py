"""A whole vehicle on a real broker, against a node that does what the test tells it to.

Whatever the node does, every task must end exactly once, in time, and in the right state.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from roadside.bus.messages import Task
from roadside.qos.journal import Journal, read_journal
from roadside.vehicle_node import node as vehicle_node
from roadside.vehicle_node.configuration import VehicleConfiguration


def serve(node: Any, vehicle: str, task: Task) -> None:
    node.serve(vehicle, task)


async def test_answers_become_results_with_their_breakdown(scripted, drive, check_contract):
    async with scripted("edge-1", serve) as node:
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert [task.task_id for task in node.tasks] == [outcome.task_id for outcome in outcomes]
    for outcome in outcomes:
        assert (outcome.place, outcome.requested, outcome.node, outcome.attempts) == ("edge", "edge", "edge-1", 1)
        assert outcome.accepted
        assert outcome.timing.inference_ms == 20.0
        assert outcome.energy_j > 1.0, "the upload costs something too"
        assert outcome.decision is not None
        assert outcome.decision.policy == "greedy-utility"
        assert {row.node for row in outcome.decision.candidates} == {"vehicle-1", "edge-1"}
        assert outcome.truth is not None, "the bundled log has ground truth for every second"


async def test_a_silent_node_costs_a_fallback_and_never_an_answer(scripted, drive, check_contract):
    async with scripted("edge-1", lambda node, vehicle, task: None):
        outcomes = await drive(duration_s=0.7)
    assert set(check_contract(outcomes)) == {"fallback"}
    for outcome in outcomes:
        assert outcome.reason == "no answer in time"
        assert (outcome.place, outcome.requested, outcome.mode) == ("vehicle", "edge", "narrator")
        assert outcome.text
        assert not outcome.accepted


async def test_a_refused_task_is_tried_elsewhere(scripted, drive, check_contract):
    def refuse(node: Any, vehicle: str, task: Task) -> None:
        node.reject(vehicle, task)

    async with (
        scripted("edge-1", refuse) as first,
        scripted("edge-2", serve, service_ms=80.0) as second,
    ):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert first.tasks, "the faster node is asked first"
    assert {(outcome.node, outcome.attempts) for outcome in outcomes} == {("edge-2", 2)}
    assert [task.attempt for task in second.tasks] == [2] * len(second.tasks)


async def test_a_task_refused_everywhere_for_good_falls_back_at_once(scripted, drive, check_contract):
    refuse = lambda node, vehicle, task: node.reject(vehicle, task, reason="stopping")  # noqa: E731
    async with scripted("edge-1", refuse):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"fallback"}
    assert {(outcome.reason, outcome.attempts) for outcome in outcomes} == {("refused everywhere", 1)}


async def test_a_provisional_answer_is_noted_and_the_final_one_stands(scripted, drive, check_contract):
    def script(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task, text="provisional", final=False)
        asyncio.get_running_loop().call_later(0.2, lambda: node.answer(vehicle, task, text="final"))

    async with scripted("edge-1", script):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    for outcome in outcomes:
        assert outcome.text == "final"
        assert outcome.first_answer_ms < outcome.latency_ms


async def test_first_words_never_stand_for_an_answer(scripted, drive, check_contract):
    """A node that begins to answer and then says no more has not answered."""

    def script(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task, text="the car", final=False, is_whole=False)

    async with scripted("edge-1", script):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"fallback"}
    assert all(outcome.text != "the car" for outcome in outcomes)


async def test_repeated_and_contradicting_answers_are_shown_once(scripted, drive, check_contract):
    def script(node: Any, vehicle: str, task: Task) -> None:
        for text in ("first", "second", "third"):
            node.accept(vehicle, task)
            node.answer(vehicle, task, text=text)
        node.reject(vehicle, task)

    async with scripted("edge-1", script):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.text for outcome in outcomes} == {"first"}


async def test_an_answer_that_a_blocked_vehicle_reads_too_late_is_not_shown(scripted, drive, check_contract):
    def script(node: Any, vehicle: str, task: Task) -> None:
        node.answer(vehicle, task, text="stale")
        time.sleep(task.remaining_ms / 1000 + 0.05)

    async with scripted("edge-1", script):
        outcomes = await drive(duration_s=0.5, rate_hz=8.0)
    assert check_contract(outcomes)["fallback"] > 0
    for outcome in outcomes:
        assert outcome.state != "result" or outcome.latency_ms <= outcome.deadline_ms


async def test_tasks_of_a_dying_node_move_on(scripted, drive, check_contract):
    """The node accepts and dies; its last word is the retained state that a broker publishes as its will."""

    def die(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.announce(alive=False)

    async with (
        scripted("edge-1", die) as first,
        scripted("edge-2", serve, service_ms=80.0),
    ):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert len(first.tasks) == 1, "nobody asks a dead node again"
    assert max(outcome.attempts for outcome in outcomes) == 2


async def test_without_any_node_the_vehicle_answers_for_itself(drive, check_contract):
    outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.place for outcome in outcomes} == {"vehicle"}


async def test_told_to_stop_it_finishes_what_it_has_begun(scripted, drive, check_contract):
    stop = asyncio.Event()

    def script(node: Any, vehicle: str, task: Task) -> None:
        stop.set()
        asyncio.get_running_loop().call_later(0.3, lambda: node.answer(vehicle, task))

    async with scripted("edge-1", script):
        outcomes = await drive(stop=stop, duration_s=60.0)
    assert set(check_contract(outcomes)) == {"result"}
    assert len(outcomes) < 10


async def test_a_journal_that_cannot_be_written_creates_no_task(scripted, drive, tmp_path, monkeypatch):
    """Nothing is published that the vehicle could not remember."""
    from roadside.bus.errors import RunError

    def full(self: Journal, *args: object, **kwargs: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(Journal, "created", full)
    async with scripted("edge-1", lambda node, vehicle, task: None) as node:
        outcomes = await drive(duration_s=0.7)
    assert outcomes == []
    assert node.tasks == []
    assert list(read_journal(tmp_path / "vehicle-1.sqlite")) == []


async def test_an_unreadable_log_is_said_before_anything_starts(tmp_path):
    from roadside.bus.errors import LogError

    configuration = VehicleConfiguration(log=str(tmp_path / "nothing"), journal=str(tmp_path / "j.sqlite"))
    with pytest.raises(LogError):
        await vehicle_node.run(configuration, asyncio.Event())
