"""What nobody had a right to say to a vehicle: it is counted by reason, nothing of it is shown, and nothing breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import aiomqtt
import msgspec
import pytest
from roadside.bus import codec, topics
from roadside.bus.connection import BrokerAddress
from roadside.bus.messages import SCHEMA_VERSION, Accepted, Envelope, Load, Message, NodeState, Task
from roadside.bus.topics import Topic

LOAD = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})
GARBAGE = (b"", b"\xc1", b"hello", msgspec.msgpack.encode({"version": 1}), b"\x91" * 5000)
LISTENED_TO = (topics.NODE_STATE, topics.ACK, topics.RESULT)


def signed(sender: str, body: Message) -> bytes:
    return codec.encode(Envelope(SCHEMA_VERSION, sender, "boot", 1, 0.0, body))


class Stranger:
    """A raw MQTT client: it can say anything on any address, as nobody keeps it from doing so here."""

    def __init__(self, client: aiomqtt.Client, fleet: str) -> None:
        self.client = client
        self.fleet = fleet

    async def say(self, topic: Topic, payload: bytes, *, node: str = "stranger-1") -> None:
        names = {"node": node} if topic is topics.NODE_STATE else {"vehicle": "vehicle-1", "node": node}
        await self.client.publish(topic.address(self.fleet, **names), payload, qos=1)


@pytest.fixture
async def stranger(best_broker, fleet):
    address = BrokerAddress.parse(best_broker.url)
    async with aiomqtt.Client(
        address.host, address.port, username=address.username, password=address.password
    ) as client:
        yield Stranger(client, fleet)


async def test_garbage_on_every_topic_is_counted_and_costs_nothing(
    scripted, drive, check_contract, told_counters, stranger
):
    async def babble() -> None:
        while True:
            for topic in LISTENED_TO:
                for garbage in GARBAGE:
                    await stranger.say(topic, garbage)
                # A right message under the name of somebody else than its address says.
                body: Message = NodeState(node="edge-1", role="edge", alive=False)
                if topic is not topics.NODE_STATE:
                    body = Accepted(task_id="any", attempt=1, load=LOAD)
                await stranger.say(topic, signed("edge-1", body))
            await asyncio.sleep(0.1)

    async with told_counters() as counters, scripted("edge-1", lambda node, vehicle, task: node.serve(vehicle, task)):
        babbling = asyncio.create_task(babble())
        outcomes = await drive()
        babbling.cancel()
        assert set(check_contract(outcomes)) == {"result"}
        assert {outcome.node for outcome in outcomes} == {"edge-1"}
    assert counters["refused.schema"] >= len(LISTENED_TO) * len(GARBAGE)
    assert counters["refused.sender"] >= 2


async def test_only_a_node_that_was_asked_may_answer(scripted, drive, check_contract, told_counters):
    """A node of the fleet, with its own name and right messages, answers tasks of others in every way it can."""

    def watched(node: Any, vehicle: str, task: Task) -> None:
        # The other one is quicker than the node that was asked ...
        other.accept(vehicle, task)
        other.answer(vehicle, task, text="not asked")
        other.answer(vehicle, task, text="not asked", final=False)
        other.answer(vehicle, task, text="no such attempt", attempt=7)
        other.reject(vehicle, task)
        other.answer(vehicle, task, text="unknown", task_id="vehicle-2-abcdef-00001")
        other.accept(vehicle, task, task_id="vehicle-2-abcdef-00001")
        # ... which itself says a few wrong things before the right one.
        node.accept(vehicle, task, attempt=3)
        node.answer(vehicle, task, text="attempt to come", attempt=2)
        asyncio.get_running_loop().call_later(0.1, lambda: node.serve(vehicle, task))

    async with (
        told_counters() as counters,
        scripted("edge-1", watched),
        # So slow that no task is sent to it.
        scripted("edge-2", lambda node, vehicle, task: None, service_ms=1e6) as other,
    ):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.text for outcome in outcomes} == {"the car is stopped ."}
    assert {outcome.node for outcome in outcomes} == {"edge-1"}
    assert all(outcome.first_answer_ms == outcome.latency_ms for outcome in outcomes)
    assert other.tasks == []
    assert counters["ignored.not asked"] == 7 * len(outcomes)
    assert counters["ignored.unknown task"] == 2 * len(outcomes)


async def test_an_answer_after_the_end_is_counted_and_not_shown(scripted, drive, check_contract, told_counters):
    def twice(node: Any, vehicle: str, task: Task) -> None:
        node.serve(vehicle, task)
        node.answer(vehicle, task, text="again")
        node.answer(vehicle, task, text="still thinking", final=False)

    async with told_counters() as counters, scripted("edge-1", twice):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.text for outcome in outcomes} == {"the car is stopped ."}
    assert counters["late_answers"] == 2 * len(outcomes)


async def test_a_node_speaks_only_for_itself_and_for_its_own_places(scripted, drive, check_contract, told_counters):
    def serve(node: Any, vehicle: str, task: Task) -> None:
        node.serve(vehicle, task)
        liar.announce(node="edge-1", alive=False)
        liar.announce(role="cloud")
        liar.announce(places=("vehicle",))

    async with (
        told_counters() as counters,
        scripted("edge-1", serve),
        scripted("edge-2", serve, service_ms=1e6) as liar,
    ):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {(outcome.node, outcome.place) for outcome in outcomes} == {("edge-1", "edge")}
    assert counters["ignored.foreign state"] > 0
    assert not any(name.startswith("attempt_over") for name in counters)
