"""A node's service loop on a real broker, with an answerer that takes as long as the test tells it to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import Accepted, ContextUse, NodeState, Rejected, Result, Task
from roadside.bus.places import Place
from roadside.bus.transport import Bus
from roadside.models.circumstances import UNKNOWN, Circumstances
from roadside.models.decoding import CloudReply, Spoke, Steps, Wait
from roadside.models.inference_worker import InferenceWorker
from roadside.models.local_runner import LocalRunner
from roadside.models.questions import Answer, Question
from roadside.models.serving import NodeConfiguration, TaskServer


@dataclass
class HeldAnswerer:
    """Answers at once while `free` is set, else says token after token until it is; asked for "a cloud", it waits for
    that first."""

    model: str = "held"
    model_hash: str = "0"
    quality: dict[Place, dict[str, float]] = field(default_factory=lambda: {"edge": {"explain": 0.9}})
    modes: dict[Place, str] = field(default_factory=lambda: {"edge": "standalone"})
    free: threading.Event = field(default_factory=threading.Event)
    asked: list[Question] = field(default_factory=list)

    def begin(self, question: Question, place: Place, circumstances: Circumstances = UNKNOWN) -> Steps[Answer]:
        if question.prompt == "a bad picture":
            raise MessageRefused("image-format", "neither JPEG nor PNG")
        self.asked.append(question)
        if question.prompt == "a cloud":
            yield Wait()
        while not self.free.wait(0.005):
            yield Spoke()
        return Answer("the car is stopped .", (1, 2), ("exit1", "exit2"), 0.95, 1.0, 1.0)

    def words(self, tokens: tuple[int, ...]) -> str:
        return " ".join(map(str, tokens))


class SlowCloud:
    """A line to a cloud, and every session on it, whose replies come once it is told so."""

    available = True
    energy_j = 0.0

    def __init__(self) -> None:
        self.replies = asyncio.Event()

    def open(self, *_: object, **__: object) -> SlowCloud:
        return self

    def link(self) -> None:
        return None

    async def reply(self) -> CloudReply | None:
        await self.replies.wait()

    def close(self) -> ContextUse:
        return ContextUse("cloud-1", 0, 0, 0, 0, 0)


def task(task_id: str, *, remaining_ms: float = 5000.0, prompt: str = "why ?") -> Task:
    return Task(
        task_id=task_id,
        attempt=1,
        kind="explain",
        prompt=prompt,
        frames=(b"\xff\xd8\xff\xd9",),
        telemetry={"Vehicle.Speed": 36.0},
        deadline_ms=remaining_ms,
        remaining_ms=remaining_ms,
        qos_floor=0.5,
        place="edge+cloud" if prompt == "a cloud" else "edge",
    )


class Client:
    """Plays a vehicle: sends tasks, and collects what comes back."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.acks = bus.subscribe(topics.ACK, vehicle=bus.name)
        self.results = bus.subscribe(topics.RESULT, vehicle=bus.name)
        self.states = bus.subscribe(topics.NODE_STATE)

    async def send(self, task_id: str, *, remaining_ms: float = 5000.0, prompt: str = "why ?") -> None:
        await self.bus.publish(topics.TASK, task(task_id, remaining_ms=remaining_ms, prompt=prompt), node="edge-1")

    async def ack(self) -> Accepted | Rejected:
        return (await asyncio.wait_for(anext(self.acks), 20)).body

    async def result(self) -> Result:
        return (await asyncio.wait_for(anext(self.results), 20)).body

    async def state(self, matches: Callable[[NodeState], Any]) -> NodeState:
        """The next state of the node that matches."""
        async with asyncio.timeout(20):
            async for received in self.states:
                if matches(received.body):
                    return received.body
        raise AssertionError("the bus was closed")


def is_busy(state: NodeState) -> bool:
    """One task under way, another waiting."""
    return state.load is not None and state.load.running == 1 and state.load.queued == 1


@asynccontextmanager
async def serving(
    url: str, fleet: str, answerer: HeldAnswerer, *, queue_limit: int = 2, cloud: Any = None
) -> AsyncIterator[Client]:
    """A node and a client; the node is told to stop at the end, and must then come to an end."""
    configuration = NodeConfiguration(
        name="edge-1", queue_limit=queue_limit, parallel_tasks=2, slot_power_w=50.0, heartbeat_s=0.1
    )
    answerer.free.set()  # the server warms up before it announces itself
    async with Bus(url=url, fleet=fleet, name="edge-1") as node_bus, Bus(url=url, fleet=fleet, name="car-1") as bus:
        worker = InferenceWorker()
        runner = LocalRunner(answerer, worker, cloud_line=cloud, slot_power_w=configuration.slot_power_w)
        server = TaskServer(bus=node_bus, role="edge", configuration=configuration, runner=runner)
        client, stop = Client(bus), asyncio.Event()
        running = asyncio.create_task(server.run(stop))
        await client.state(lambda state: state.alive)
        answerer.asked.clear()
        try:
            yield client
        finally:
            answerer.free.set()
            stop.set()
            await asyncio.wait_for(running, 20)
            worker.close()


async def test_a_task_is_acknowledged_then_answered(broker, fleet):
    answerer = HeldAnswerer()
    async with serving(broker.url, fleet, answerer) as client:
        await client.send("a")
        ack, result = await client.ack(), await client.result()
    assert isinstance(ack, Accepted)
    assert (ack.task_id, result.task_id, result.final, result.place) == ("a", "a", True, "edge")
    assert result.text == "the car is stopped ."
    assert result.made_by == ("exit1", "exit2")
    assert result.energy_j == pytest.approx(50.0 * result.timing.inference_ms / 1000)
    (question,) = answerer.asked
    assert question.telemetry == {"Vehicle.Speed": 36.0}


async def test_a_resent_task_is_answered_again_and_computed_once(best_broker, fleet):
    answerer = HeldAnswerer()
    async with serving(best_broker.url, fleet, answerer) as client:
        await client.send("a")
        first = await client.result()
        await client.send("a")
        second = await client.result()
    assert (first.text, first.timing) == (second.text, second.timing)
    assert len(answerer.asked) == 1


async def test_a_full_queue_rejects_and_the_reject_overtakes_the_answers(best_broker, fleet):
    answerer = HeldAnswerer()
    async with serving(best_broker.url, fleet, answerer, queue_limit=2) as client:
        answerer.free.clear()
        await client.send("running")
        await client.state(lambda state: state.load and state.load.running == 1)
        for task_id in ("waiting-1", "waiting-2", "too-many"):
            await client.send(task_id)
        acks = {ack.task_id: ack for ack in [await client.ack() for _ in range(4)]}
        rejected = acks.pop("too-many")
        assert isinstance(rejected, Rejected)
        assert rejected.reason == "full"
        assert rejected.load.queued == 2
        assert all(isinstance(ack, Accepted) for ack in acks.values())
        answerer.free.set()
        assert [(await client.result()).task_id for _ in range(3)] == ["running", "waiting-1", "waiting-2"]


async def test_an_answer_begins_while_another_waits_for_the_cloud_and_not_beside_it(best_broker, fleet):
    answerer = HeldAnswerer(modes={"edge": "standalone", "edge+cloud": "ce"})
    cloud = SlowCloud()
    async with serving(best_broker.url, fleet, answerer, cloud=cloud) as client:
        await client.state(lambda state: "edge+cloud" in state.places)
        answerer.free.clear()
        await client.send("waits", prompt="a cloud")
        await client.state(lambda state: state.load and state.load.running == 1)
        await client.send("computes")
        await client.state(lambda state: state.load and state.load.running == 2)
        cloud.replies.set()
        await client.send("later")
        await client.state(lambda state: state.load and (state.load.running, state.load.queued) == (2, 1))
        answerer.free.set()
        assert {(await client.result()).task_id for _ in range(3)} == {"waits", "computes", "later"}


async def test_a_task_that_expires_is_cancelled_and_the_next_one_is_answered(best_broker, fleet):
    answerer = HeldAnswerer()
    async with serving(best_broker.url, fleet, answerer) as client:
        answerer.free.clear()
        await client.send("expires", remaining_ms=800.0)
        await client.send("expires-in-the-queue", remaining_ms=700.0)
        await client.send("has-time", remaining_ms=20_000.0)
        await client.state(lambda state: state.counters.get("cancelled_at_deadline"))
        answerer.free.set()
        assert (await client.result()).task_id == "has-time"
        state = await client.state(lambda state: state.counters.get("answered"))
    assert state.counters["expired_in_queue"] == 1
    assert state.counters["expired_work_ms"] >= 100
    assert len(answerer.asked) == 2, "what expired in the queue was never computed"


async def test_a_picture_that_cannot_be_read_is_refused_by_reason(best_broker, fleet):
    async with serving(best_broker.url, fleet, HeldAnswerer()) as client:
        await client.send("bad", prompt="a bad picture")
        await client.send("good")
        acks = [await client.ack() for _ in range(3)]
        assert (await client.result()).task_id == "good"
    rejected = [ack for ack in acks if isinstance(ack, Rejected)]
    assert [(ack.task_id, ack.reason) for ack in rejected] == [("bad", "image-format")]


async def test_it_finishes_what_it_has_accepted_and_says_goodbye(best_broker, fleet):
    answerer = HeldAnswerer()
    async with serving(best_broker.url, fleet, answerer) as client:
        answerer.free.clear()
        await client.send("last")
        await client.ack()
    # serving() has told the node to stop while the task was under way.
    async with Bus(url=best_broker.url, fleet=fleet, name="late-comer") as bus:
        states = bus.subscribe(topics.NODE_STATE, node="edge-1")
        retained = (await asyncio.wait_for(anext(states), 20)).body
    assert not retained.alive
    assert retained.counters["answered"] == 1


async def test_it_stops_also_when_the_broker_is_gone(fleet):
    async with Broker() as broker, serving(broker.url, fleet, HeldAnswerer()) as client:
        await client.send("a")
        await client.result()
        await broker.stop()


async def test_load_and_service_times_are_announced(best_broker, fleet):
    answerer = HeldAnswerer()
    async with serving(best_broker.url, fleet, answerer) as client:
        state = await client.state(lambda state: state.alive)
        assert state.load is not None
        assert set(state.load.service_ms["edge"]) == {"hazard", "explain", "describe"}
        assert state.memory_bytes > 0
        answerer.free.clear()
        await client.send("a")
        await client.send("b")
        await client.state(is_busy)
        assert [(await client.ack()).load.queued for _ in range(2)] == [1, 1]
        await client.send("c", remaining_ms=0.001)
        refusal = await client.ack()
        assert isinstance(refusal, Rejected)
        assert refusal.reason == "deadline"
        assert refusal.load.wait_ms > 0, "behind what waits of the same vehicle"


async def test_a_link_that_lets_nothing_out_ends_no_node_and_what_was_held_back_is_said_when_asked_again(fleet):
    bus = Bus(url="mqtt://127.0.0.1:1", fleet=fleet, name="edge-1", outbox_limit=0)
    worker = InferenceWorker()
    runner = LocalRunner(HeldAnswerer(), worker, cloud_line=None, slot_power_w=50.0)
    configuration = NodeConfiguration(name="edge-1", queue_limit=1)
    server = TaskServer(bus=bus, role="edge", configuration=configuration, runner=runner)
    for number in range(3):
        server._take("car-1", task(f"t-{number}"))
    assert server.counters["held_back"] == 3
    assert server.state().load is not None
    assert server.state().counters["rejected.full"] == 2
    server._take("car-1", task("t-0"))
    assert (server.counters["resent"], server.counters["held_back"]) == (1, 4)
    worker.close()
