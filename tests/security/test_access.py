"""Who is sent what by a secured broker, and what nobody is sent. What counts is delivery.

mosquitto grants a subscription that it will never serve, and acknowledges a message that it throws away: neither shows
anything. So each forged message is followed by a right one on the same way, which does arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack

import aiomqtt
import msgspec
import pytest
from roadside.bus import codec, topics
from roadside.bus.messages import (
    SCHEMA_VERSION,
    CloseContext,
    Envelope,
    InferRequest,
    Message,
    Nack,
    NodeState,
    PolicyWeights,
    Result,
    Task,
)
from roadside.bus.topics import Topic

from .. import plain_messages

FLEET = "guarded"
PATIENCE_S = 20.0

# Written out by hand, as the rules themselves are generated: what is said on each topic by whom, to whom, and who is
# sent it of all the fleet. vehicle-2 and edge-2 stand for everybody who has nothing to do with it.
DELIVERIES: list[tuple[Topic, dict[str, str], str, set[str]]] = [
    (topics.VEHICLE_STATE, {"vehicle": "vehicle-1"}, "vehicle-1", {"recorder", "watcher-1"}),
    (topics.FRAME, {"vehicle": "vehicle-1"}, "vehicle-1", {"recorder", "watcher-1"}),
    (topics.ACK, {"vehicle": "vehicle-1", "node": "edge-1"}, "edge-1", {"vehicle-1", "recorder", "watcher-1"}),
    (topics.RESULT, {"vehicle": "vehicle-1", "node": "edge-1"}, "edge-1", {"vehicle-1", "recorder", "watcher-1"}),
    (topics.RESULT, {"vehicle": "vehicle-1", "node": "cloud-1"}, "cloud-1", {"vehicle-1", "recorder", "watcher-1"}),
    (topics.OUTCOME, {"vehicle": "vehicle-1"}, "vehicle-1", {"learner-1", "recorder", "watcher-1"}),
    (
        topics.NODE_STATE,
        {"node": "edge-1"},
        "edge-1",
        {"vehicle-1", "vehicle-2", "edge-1", "edge-2", "recorder", "watcher-1"},
    ),
    (topics.TASK, {"node": "edge-1", "vehicle": "vehicle-1"}, "vehicle-1", {"edge-1", "recorder"}),
    (topics.TASK, {"node": "cloud-1", "vehicle": "vehicle-1"}, "vehicle-1", {"cloud-1", "recorder"}),
    (
        topics.POLICY,
        {"learner": "learner-1"},
        "learner-1",
        {"vehicle-1", "vehicle-2", "learner-1", "recorder", "watcher-1"},
    ),
    (topics.CONTEXT, {"node": "cloud-1", "edge": "edge-1"}, "edge-1", {"cloud-1"}),
    (topics.INFER, {"node": "cloud-1", "edge": "edge-1"}, "edge-1", {"cloud-1"}),
    (topics.TOKEN, {"edge": "edge-1", "node": "cloud-1"}, "cloud-1", {"edge-1"}),
]
EVERYBODY = ("vehicle-1", "vehicle-2", "edge-1", "edge-2", "cloud-1", "learner-1", "recorder", "watcher-1")


def signed(sender: str, body: Message, number: int = 1) -> bytes:
    return codec.encode(Envelope(SCHEMA_VERSION, sender, "forged-boot", number, 0.0, body))


def task(task_id: str) -> Task:
    return msgspec.structs.replace(plain_messages.TASK, task_id=task_id, telemetry={})


def result(task_id: str) -> Result:
    return msgspec.structs.replace(
        plain_messages.RESULT, task_id=task_id, text="the car brakes", made_by=(), energy_j=0.0
    )


def weights(note: str) -> PolicyWeights:
    return PolicyWeights(policy="ddpg", version=7, feature_schema="x", weights=b"npz?", trained_tasks=1, note=note)


async def test_everybody_is_sent_what_concerns_them_and_nobody_else_can_say_it(guarded):
    """The whole table: each topic from each identity, with everybody listening to everything."""
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(guarded.client(name)) for name in EVERYBODY}
        for client in clients.values():
            # All of it is granted; see above.
            assert await client.mqtt.subscribe([("#", 1), ("$share/thieves/#", 1), (f"roadside/v1/{FLEET}/#", 1)])
        expected: dict[str, set[tuple[str, bytes]]] = {name: set() for name in EVERYBODY}
        for topic, names, sender, receivers in DELIVERIES:
            address = topic.address(FLEET, **names)
            for name in EVERYBODY:
                payload = f"{topic.name} by {name}".encode()
                await clients[name].say(address, payload)
                if name == sender:
                    for receiver in receivers:
                        expected[receiver].add((address, payload))
        for name, client in clients.items():
            await client.catch_up()
            assert set(client.heard) == expected[name], name
    assert all(expected.values()), "somebody was not to hear anything, and would have passed while deaf"


async def test_the_rules_are_of_one_fleet_alone(guarded):
    async with guarded.client("recorder") as recorder, guarded.client("vehicle-1") as vehicle:
        await recorder.mqtt.subscribe("#", qos=1)
        await vehicle.say("roadside/v1/another/vehicle/vehicle-1/outcome", b"elsewhere")
        await vehicle.say("roadside/v2/guarded/vehicle/vehicle-1/outcome", b"another version")
        await vehicle.say("roadside/check/recorder", b"another's check")
        await vehicle.say(topics.OUTCOME.address(FLEET, vehicle="vehicle-1"), b"right")
        await recorder.catch_up()
        assert [payload for _, payload in recorder.heard] == [b"right"]


# What: (name, topic, names in the address, whom the envelope names, what is said; who tries; how the right one goes).
FORGERIES = {
    "a task in another's name": (topics.TASK, {"node": "edge-1", "vehicle": "vehicle-1"}, "vehicle-2", task),
    "a task by an edge": (topics.TASK, {"node": "edge-1", "vehicle": "vehicle-1"}, "edge-2", task),
    "another's result": (topics.RESULT, {"vehicle": "vehicle-1", "node": "edge-1"}, "edge-2", result),
    "a result by a vehicle": (topics.RESULT, {"vehicle": "vehicle-1", "node": "edge-1"}, "vehicle-2", result),
    "another's context": (
        topics.CONTEXT,
        {"node": "cloud-1", "edge": "edge-1"},
        "edge-2",
        lambda name: CloseContext(session=name),
    ),
    "another's question": (
        topics.INFER,
        {"node": "cloud-1", "edge": "edge-1"},
        "edge-2",
        lambda name: InferRequest(session=name, rollback=0, up_to=1, remaining_ms=100.0),
    ),
    "tokens by an edge": (
        topics.TOKEN,
        {"edge": "edge-1", "node": "cloud-1"},
        "edge-2",
        lambda name: Nack(session=name, rollback=0, reason="missing"),
    ),
    "a node state by another edge": (
        topics.NODE_STATE,
        {"node": "edge-1"},
        "edge-2",
        lambda name: NodeState(node="edge-1", role="edge", alive=True, model=name),
    ),
    "a node state by a vehicle": (
        topics.NODE_STATE,
        {"node": "edge-1"},
        "vehicle-2",
        lambda name: NodeState(node="edge-1", role="edge", alive=False, model=name),
    ),
    "policy weights by a vehicle": (topics.POLICY, {"learner": "learner-1"}, "vehicle-2", weights),
    "policy weights by a cloud": (topics.POLICY, {"learner": "learner-1"}, "cloud-1", weights),
    "an outcome by an onlooker": (topics.VEHICLE_STATE, {"vehicle": "vehicle-1"}, "watcher-1", None),
}


@pytest.mark.parametrize("what", FORGERIES)
async def test_a_perfect_forgery_never_arrives_and_the_right_message_does(guarded, what: str):
    """Right address, right envelope, right schema: only the certificate is another's."""
    topic, names, forger, make = FORGERIES[what]
    make = make or (lambda name: NodeState(node="vehicle-1", role="vehicle", alive=True, model=name))
    sender = names[topic.sender]
    receiver = next((name for key, name in names.items() if key != topic.sender), "recorder")
    async with guarded.bus(receiver) as listener, guarded.bus(sender) as right, guarded.client(forger) as wrong:
        arriving = listener.subscribe(topic, **names)
        await arriving.active.wait()
        await wrong.say(topic.address(FLEET, **names), signed(sender, make("forged")), qos=topic.qos)
        # Behind it on the same connection, so that the forgery was dealt with when this has been.
        await wrong.say(f"roadside/check/{forger}", b"done")
        others = {key: name for key, name in names.items() if key != topic.sender}
        await right.publish(topic, make(right.boot_id), **others)
        heard = ""
        async with asyncio.timeout(PATIENCE_S):
            # The broker may also have kept a state from before.
            while right.boot_id not in heard:
                heard = repr((await anext(arriving)).body)
                assert "forged" not in heard
        assert len(arriving) == 0
        assert not any(name.startswith("refused") for name in listener.counters)


async def test_a_vehicle_cannot_announce_itself_as_a_node(guarded):
    """With a broker's usual pattern rules it could: its own name is in the address. Others would send it pictures."""
    async with guarded.bus("vehicle-1") as vehicle, guarded.client("vehicle-2") as rogue, guarded.bus("edge-2") as edge:
        states = vehicle.subscribe(topics.NODE_STATE)
        await states.active.wait()
        body = NodeState(node="vehicle-2", role="edge", alive=True, places=("edge",))
        await rogue.say(topics.NODE_STATE.address(FLEET, node="vehicle-2"), signed("vehicle-2", body), retain=True)
        await edge.publish(topics.NODE_STATE, NodeState(node="edge-2", role="edge", alive=True))
        async with asyncio.timeout(PATIENCE_S):
            async for received in states:
                assert received.body.node != "vehicle-2"
                if received.body.node == "edge-2":
                    break


async def test_a_last_will_is_the_senders_own_or_nobodys(guarded):
    def will(node: str) -> aiomqtt.Will:
        body = NodeState(node=node, role="edge", alive=False, model="a will by edge-2")
        return aiomqtt.Will(topics.NODE_STATE.address(FLEET, node=node), signed(node, body, 0), qos=1)

    async with guarded.bus("vehicle-1") as vehicle:
        states = vehicle.subscribe(topics.NODE_STATE)
        await states.active.wait()
        for claimed in ("edge-1", "edge-2"):
            with contextlib.suppress(aiomqtt.MqttError):
                async with guarded.client("edge-2", will=will(claimed)) as dying:
                    opened = dying.mqtt._client.socket()
                    assert opened is not None
                    opened.shutdown(socket.SHUT_RDWR)
                    async for _ in dying.mqtt.messages:
                        pass
        async with asyncio.timeout(PATIENCE_S):
            async for received in states:
                if received.body.model == "a will by edge-2":
                    assert received.body.node == "edge-2"
                    break


async def test_who_takes_anothers_client_id_neither_evicts_it_nor_inherits_its_messages(guarded):
    async with guarded.bus("edge-1") as edge, guarded.bus("vehicle-1") as vehicle:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        async with guarded.client("vehicle-2", identifier="edge-1") as thief:
            await thief.mqtt.subscribe("#", qos=1)
            await vehicle.publish(topics.TASK, task("t-1"), node="edge-1")
            async with asyncio.timeout(PATIENCE_S):
                assert (await anext(tasks)).body.task_id == "t-1"
            await thief.catch_up()
            assert [address for address, _ in thief.heard if "/task/" in address] == []
        assert edge.connected.is_set()
        assert edge.counters["reconnects"] == 0


async def test_who_starts_again_is_not_given_what_was_meant_for_its_last_life(guarded):
    """The client id is the identity's, and a broker keeps a session by it."""
    async with guarded.bus("vehicle-1") as vehicle:
        async with guarded.bus("edge-1") as edge:
            await edge.subscribe(topics.TASK, node="edge-1").active.wait()
            # As when it is killed: it does not unsubscribe, and the broker keeps its session.
            edge._inbox.subscriptions.clear()
        await vehicle.publish(topics.TASK, task("old"), node="edge-1")
        started_again = guarded.bus("edge-1")
        tasks = started_again.subscribe(topics.TASK, node="edge-1")
        async with started_again:
            await vehicle.publish(topics.TASK, task("new"), node="edge-1")
            async with asyncio.timeout(PATIENCE_S):
                assert (await anext(tasks)).body.task_id == "new"


async def test_a_message_that_is_sent_again_by_its_own_sender_has_no_effect(guarded):
    async with guarded.bus("edge-1") as edge, guarded.client("vehicle-1") as vehicle:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        address = topics.TASK.address(FLEET, node="edge-1", vehicle="vehicle-1")
        captured = [signed("vehicle-1", task(f"t-{number}"), number) for number in range(1, 4)]
        for payload in (*captured, *captured, captured[0], signed("vehicle-1", task("t-4"), 4)):
            await vehicle.say(address, payload)
        async with asyncio.timeout(PATIENCE_S):
            seen = [(await anext(tasks)).body.task_id for _ in range(4)]
        assert seen == ["t-1", "t-2", "t-3", "t-4"]
        assert len(tasks) == 0
        assert edge.counters["refused.replayed"] == 4
