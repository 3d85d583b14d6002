"""A whole vehicle on a real broker, against a node that does what the test tells it to.

Whatever the node does, every task must end exactly once, in time, and in the right state.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.kinds import KINDS
from roadside.bus.messages import Accepted, Load, NodeState, Outcome, Rejected, Result, Task, Timing
from roadside.bus.transport import Bus
from roadside.qos.journal import Journal, read_journal
from roadside.vehicle_node import node as vehicle_node
from roadside.vehicle_node.configuration import VehicleConfiguration

QUALITY = dict.fromkeys(KINDS, 0.9)
LOAD = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={"edge": dict.fromkeys(KINDS, 20.0)})

Script = Callable[["ScriptedNode", str, Task], None]


class ScriptedNode:
    """A node without a model: it announces itself and reacts to each task as its script says."""

    def __init__(self, bus: Bus, name: str, script: Script, load: Load = LOAD) -> None:
        self.bus = bus
        self.name = name
        self.script = script
        self.load = load
        self.tasks: list[Task] = []

    def state(self, *, alive: bool) -> NodeState:
        return NodeState(
            node=self.name,
            role="edge",
            alive=alive,
            places=("edge",),
            load=self.load,
            quality={"edge": QUALITY},
            slot_power_w=50,
        )

    def accept(self, vehicle: str, task: Task) -> None:
        message = Accepted(task_id=task.task_id, attempt=task.attempt, load=self.load)
        self.bus.post(topics.ACK, message, vehicle=vehicle, node=self.name)

    def reject(self, vehicle: str, task: Task) -> None:
        message = Rejected(
            task_id=task.task_id, attempt=task.attempt, reason="full", retry_after_ms=10.0, load=self.load
        )
        self.bus.post(topics.ACK, message, vehicle=vehicle, node=self.name)

    def answer(self, vehicle: str, task: Task, *, text: str = "the car is stopped .", final: bool = True) -> None:
        message = Result(
            task_id=task.task_id,
            attempt=task.attempt,
            final=final,
            text=text,
            place="edge",
            mode="standalone",
            model="scripted",
            made_by=("exit1",),
            confidence=1.0,
            timing=Timing(inference_ms=20.0),
            energy_j=1.0,
            energy_method="modelled",
            load=self.load,
        )
        self.bus.post(topics.RESULT, message, vehicle=vehicle, node=self.name)

    async def run(self) -> None:
        inbox = self.bus.subscribe(topics.TASK, node=self.name)
        await inbox.active.wait()
        self.bus.post(topics.NODE_STATE, self.state(alive=True), node=self.name)
        async for received in inbox:
            self.tasks.append(received.body)
            self.script(self, received.names["vehicle"], received.body)


@asynccontextmanager
async def scripted(
    broker: Broker, fleet: str, name: str, script: Script, load: Load = LOAD
) -> AsyncIterator[ScriptedNode]:
    async with Bus(url=broker.url, fleet=fleet, name=name) as bus:
        node = ScriptedNode(bus, name, script, load)
        running = asyncio.create_task(node.run())
        try:
            yield node
        finally:
            running.cancel()


async def drive(
    broker: Broker, fleet: str, tmp_path: Path, *, stop: asyncio.Event | None = None, **options
) -> list[Outcome]:
    """Run a vehicle to its end and return the outcomes that it published."""
    configuration = VehicleConfiguration(
        broker=broker.url,
        fleet=fleet,
        journal=str(tmp_path / "vehicle-1.sqlite"),
        **{"rate_hz": 8.0, "duration_s": 1.5, "seed": 1, **options},
    )
    async with Bus(url=broker.url, fleet=fleet, name="observer") as bus:
        outcomes = bus.subscribe(topics.OUTCOME, vehicle="vehicle-1")
        await outcomes.active.wait()
        await vehicle_node.run(configuration, stop or asyncio.Event())
        # The vehicle has gone, so the broker has all that it will ever send; what is under way arrives within this.
        await asyncio.sleep(0.3)
        return [(await anext(outcomes)).body for _ in range(len(outcomes))]


def check_contract(outcomes: list[Outcome], tmp_path: Path) -> Counter[str]:
    """Created = ended, each once; no visible answer is late. Returns the tasks by state."""
    entries = list(read_journal(tmp_path / "vehicle-1.sqlite"))
    assert entries, "a drive without tasks shows nothing"
    assert all(entry.state is not None for entry in entries)
    assert sorted(entry.task_id for entry in entries) == sorted(outcome.task_id for outcome in outcomes)
    assert {entry.task_id: entry.state for entry in entries} == {o.task_id: o.state for o in outcomes}
    assert all(entry.refused_endings == 0 for entry in entries)
    return Counter(outcome.state for outcome in outcomes)


async def test_answers_become_results_with_their_breakdown(best_broker, fleet, tmp_path):
    def script(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task)

    async with scripted(best_broker, fleet, "edge-1", script) as node:
        outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
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


async def test_a_silent_node_costs_a_fallback_and_never_an_answer(best_broker, fleet, tmp_path):
    async with scripted(best_broker, fleet, "edge-1", lambda node, vehicle, task: None):
        outcomes = await drive(best_broker, fleet, tmp_path, duration_s=1.0)
    assert set(check_contract(outcomes, tmp_path)) == {"fallback"}
    for outcome in outcomes:
        assert outcome.reason == "no answer in time"
        assert (outcome.place, outcome.requested, outcome.mode) == ("vehicle", "edge", "narrator")
        assert outcome.text
        assert not outcome.accepted


async def test_a_refused_task_is_tried_elsewhere(best_broker, fleet, tmp_path):
    def refuse(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.reject(vehicle, task)

    def answer(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task)

    slower = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={"edge": dict.fromkeys(KINDS, 80.0)})
    async with (
        scripted(best_broker, fleet, "edge-1", refuse) as first,
        scripted(best_broker, fleet, "edge-2", answer, slower) as second,
    ):
        outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
    assert first.tasks, "the faster node is asked first"
    assert {(outcome.node, outcome.attempts) for outcome in outcomes} == {("edge-2", 2)}
    assert [task.attempt for task in second.tasks] == [2] * len(second.tasks)


async def test_a_task_refused_everywhere_falls_back_at_once(best_broker, fleet, tmp_path):
    async with scripted(best_broker, fleet, "edge-1", lambda node, vehicle, task: node.reject(vehicle, task)):
        outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"fallback"}
    assert {outcome.reason for outcome in outcomes} == {"refused everywhere"}


async def test_a_provisional_answer_is_noted_and_the_final_one_stands(best_broker, fleet, tmp_path):
    def script(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task, text="provisional", final=False)
        asyncio.get_running_loop().call_later(0.2, lambda: node.answer(vehicle, task, text="final"))

    async with scripted(best_broker, fleet, "edge-1", script):
        outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
    for outcome in outcomes:
        assert outcome.text == "final"
        assert outcome.first_answer_ms < outcome.latency_ms


async def test_repeated_and_contradicting_answers_are_shown_once(best_broker, fleet, tmp_path):
    def script(node: ScriptedNode, vehicle: str, task: Task) -> None:
        for text in ("first", "second", "third"):
            node.accept(vehicle, task)
            node.answer(vehicle, task, text=text)
        node.reject(vehicle, task)

    async with scripted(best_broker, fleet, "edge-1", script):
        outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
    assert {outcome.text for outcome in outcomes} == {"first"}


async def test_an_answer_that_a_blocked_vehicle_reads_too_late_is_not_shown(best_broker, fleet, tmp_path):
    def script(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.answer(vehicle, task, text="stale")
        time.sleep(task.remaining_ms / 1000 + 0.05)

    async with scripted(best_broker, fleet, "edge-1", script):
        outcomes = await drive(best_broker, fleet, tmp_path, duration_s=0.5, rate_hz=8.0)
    assert check_contract(outcomes, tmp_path)["fallback"] > 0
    for outcome in outcomes:
        assert outcome.state != "result" or outcome.latency_ms <= outcome.deadline_ms


async def test_tasks_of_a_dying_node_move_on(best_broker, fleet, tmp_path):
    """The node accepts and dies; its last word is the retained state that a broker publishes as its will."""

    def die(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.bus.post(topics.NODE_STATE, node.state(alive=False), node=node.name)

    def answer(node: ScriptedNode, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task)

    slower = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={"edge": dict.fromkeys(KINDS, 80.0)})
    async with (
        scripted(best_broker, fleet, "edge-1", die) as first,
        scripted(best_broker, fleet, "edge-2", answer, slower),
    ):
        outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
    assert len(first.tasks) == 1, "nobody asks a dead node again"
    assert max(outcome.attempts for outcome in outcomes) == 2


async def test_without_any_node_the_vehicle_answers_for_itself(best_broker, fleet, tmp_path):
    outcomes = await drive(best_broker, fleet, tmp_path)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
    assert {outcome.place for outcome in outcomes} == {"vehicle"}


async def test_told_to_stop_it_finishes_what_it_has_begun(best_broker, fleet, tmp_path):
    stop = asyncio.Event()

    def script(node: ScriptedNode, vehicle: str, task: Task) -> None:
        stop.set()
        asyncio.get_running_loop().call_later(0.3, lambda: node.answer(vehicle, task))

    async with scripted(best_broker, fleet, "edge-1", script):
        outcomes = await drive(best_broker, fleet, tmp_path, stop=stop, duration_s=60.0)
    assert set(check_contract(outcomes, tmp_path)) == {"result"}
    assert len(outcomes) < 10


async def test_it_ends_its_tasks_and_itself_when_the_broker_is_gone(fleet, tmp_path):
    async with Broker() as broker:
        asyncio.get_running_loop().call_later(2.0, lambda: stopping.append(asyncio.create_task(broker.stop())))
        stopping: list[asyncio.Task[None]] = []
        configuration = VehicleConfiguration(
            broker=broker.url, fleet=fleet, journal=str(tmp_path / "vehicle-1.sqlite"), rate_hz=8.0, duration_s=3.0
        )
        async with asyncio.timeout(30):
            await vehicle_node.run(configuration, asyncio.Event())
    entries = read_journal(tmp_path / "vehicle-1.sqlite")
    assert len(entries) > 10
    assert {entry.state for entry in entries} == {"result"}, "its own place needs no broker"


async def test_a_journal_that_cannot_be_written_creates_no_task(best_broker, fleet, tmp_path, monkeypatch):
    """Nothing is published that the vehicle could not remember."""
    from roadside.bus.errors import RunError

    def full(self: Journal, *args: object, **kwargs: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(Journal, "created", full)
    async with scripted(best_broker, fleet, "edge-1", lambda node, vehicle, task: None) as node:
        outcomes = await drive(best_broker, fleet, tmp_path, duration_s=1.0)
    assert outcomes == []
    assert node.tasks == []
    assert list(read_journal(tmp_path / "vehicle-1.sqlite")) == []


async def test_an_unreadable_log_is_said_before_anything_starts(tmp_path):
    from roadside.bus.errors import LogError

    configuration = VehicleConfiguration(log=str(tmp_path / "nothing"), journal=str(tmp_path / "j.sqlite"))
    with pytest.raises(LogError):
        await vehicle_node.run(configuration, asyncio.Event())
