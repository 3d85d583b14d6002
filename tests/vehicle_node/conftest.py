"""A vehicle driven by a test, and nodes without a model that react to each task as a script says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.kinds import KINDS
from roadside.bus.messages import Accepted, Load, NodeState, Outcome, Rejected, Result, Task, Timing
from roadside.bus.places import Place
from roadside.bus.transport import Bus
from roadside.models.questions import Answerer
from roadside.qos.journal import read_journal
from roadside.vehicle_node import node as vehicle_node
from roadside.vehicle_node.configuration import VehicleConfiguration

Script = Callable[["ScriptedNode", str, Task], None]
Scripted = Callable[..., AbstractAsyncContextManager["ScriptedNode"]]
Drive = Callable[..., Awaitable[list[Outcome]]]

_IDLE = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})


class ScriptedNode:
    """Announces itself as an edge with the given places and hands every task that it gets to its script.

    service_ms: how quick it says it is; tasks: all that it got.
    """

    def __init__(self, bus: Bus, name: str, script: Script, *, service_ms: float, places: tuple[Place, ...]) -> None:
        self.bus = bus
        self.name = name
        self.script = script
        self.places: tuple[Place, ...] = places
        self.load = msgspec.structs.replace(
            _IDLE, service_ms={place: dict.fromkeys(KINDS, service_ms) for place in places}
        )
        self.tasks: list[Task] = []

    def announce(self, *, alive: bool = True, **changes: Any) -> None:
        state = NodeState(
            node=self.name,
            role="edge",
            alive=alive,
            places=self.places,
            load=self.load,
            quality={place: dict.fromkeys(KINDS, 0.9) for place in self.places},
            slot_power_w=50,
        )
        self.bus.post(topics.NODE_STATE, msgspec.structs.replace(state, **changes), node=self.name)

    def accept(self, vehicle: str, task: Task, **changes: Any) -> None:
        message = Accepted(task_id=task.task_id, attempt=task.attempt, load=self.load)
        self.bus.post(topics.ACK, msgspec.structs.replace(message, **changes), vehicle=vehicle, node=self.name)

    def reject(self, vehicle: str, task: Task, *, reason: str = "full", retry_after_ms: float = 10.0) -> None:
        message = Rejected(
            task_id=task.task_id, attempt=task.attempt, reason=reason, retry_after_ms=retry_after_ms, load=self.load
        )
        self.bus.post(topics.ACK, message, vehicle=vehicle, node=self.name)

    def answer(self, vehicle: str, task: Task, **changes: Any) -> None:
        message = Result(
            task_id=task.task_id,
            attempt=task.attempt,
            final=True,
            text="the car is stopped .",
            place=task.place,
            mode="standalone",
            model="scripted",
            made_by=("exit1",),
            confidence=1.0,
            timing=Timing(inference_ms=20.0),
            energy_j=1.0,
            energy_method="modelled",
            load=self.load,
        )
        self.bus.post(topics.RESULT, msgspec.structs.replace(message, **changes), vehicle=vehicle, node=self.name)

    def serve(self, vehicle: str, task: Task) -> None:
        """What a node does on a good day."""
        self.accept(vehicle, task)
        self.answer(vehicle, task)

    async def run(self) -> None:
        inbox = self.bus.subscribe(topics.TASK, node=self.name)
        await inbox.active.wait()
        self.announce()
        async for received in inbox:
            self.tasks.append(received.body)
            self.script(self, received.names["vehicle"], received.body)


@pytest.fixture
def scripted(best_broker: Broker, fleet: str) -> Scripted:
    """`async with scripted(name, script) as node`: a ScriptedNode, until the block is left."""

    @asynccontextmanager
    async def running(
        name: str,
        script: Script,
        *,
        service_ms: float = 20.0,
        places: tuple[Place, ...] = ("edge",),
        url: str = best_broker.url,
    ) -> AsyncIterator[ScriptedNode]:
        async with Bus(url=url, fleet=fleet, name=name) as bus:
            node = ScriptedNode(bus, name, script, service_ms=service_ms, places=places)
            serving = asyncio.create_task(node.run())
            try:
                yield node
            finally:
                serving.cancel()

    return running


@pytest.fixture
def drive(best_broker: Broker, fleet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drive:
    """`await drive(**configuration)`: run vehicle-1 to its end and return the outcomes that it published."""
    # The scripted nodes are there before the vehicle is.
    monkeypatch.setattr(vehicle_node, "_FIRST_STATES_S", 0.3)

    async def run(
        *,
        stop: asyncio.Event | None = None,
        url: str = best_broker.url,
        make_answerer: Callable[[], Answerer] | None = None,
        **options: Any,
    ) -> list[Outcome]:
        # A seed without the kind of the longest deadline, which some tests wait for.
        configuration = VehicleConfiguration(
            broker=url,
            fleet=fleet,
            journal=str(tmp_path / "vehicle-1.sqlite"),
            **{"rate_hz": 12.0, "duration_s": 0.7, "seed": 20, **options},
        )
        async with Bus(url=url, fleet=fleet, name="observer") as bus:
            outcomes = bus.subscribe(topics.OUTCOME, vehicle="vehicle-1")
            await outcomes.active.wait()
            await vehicle_node.run(configuration, stop or asyncio.Event(), make_answerer)
            # The vehicle has gone, so the broker has all that it will ever send; what is under way arrives within this.
            await asyncio.sleep(0.3)
            return [(await anext(outcomes)).body for _ in range(len(outcomes))]

    return run


@pytest.fixture
def check_contract(tmp_path: Path) -> Callable[[list[Outcome]], Counter[str]]:
    """Created = ended, each once, told once, no result late; returns the tasks by state."""

    def check(outcomes: list[Outcome]) -> Counter[str]:
        entries = read_journal(tmp_path / "vehicle-1.sqlite")
        assert entries, "a drive without tasks shows nothing"
        assert sorted(entry.task_id for entry in entries) == sorted(outcome.task_id for outcome in outcomes)
        assert {entry.task_id: entry.state for entry in entries} == {o.task_id: o.state for o in outcomes}
        assert all(entry.refused_endings == 0 for entry in entries)
        assert all(o.latency_ms <= o.deadline_ms for o in outcomes if o.state == "result")
        return Counter(outcome.state for outcome in outcomes)

    return check


@pytest.fixture
def told_counters(best_broker: Broker, fleet: str) -> Callable[[], AbstractAsyncContextManager[dict[str, int]]]:
    """`async with told_counters() as counters`: filled with the counters of vehicle-1's newest state."""

    @asynccontextmanager
    async def listening() -> AsyncIterator[dict[str, int]]:
        counters: dict[str, int] = {}

        async def listen() -> None:
            async for received in bus.subscribe(topics.VEHICLE_STATE, vehicle="vehicle-1"):
                counters.update(received.body.counters)

        async with Bus(url=best_broker.url, fleet=fleet, name="listener") as bus:
            listener = asyncio.create_task(listen())
            yield counters
            listener.cancel()

    return listening
