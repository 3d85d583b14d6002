"""A running fleet under everything in the corpus: it lives, counts each refusal by its reason, and answers on."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections import Counter, defaultdict
from importlib import resources

import aiomqtt
import pytest
from msgspec import structs
from roadside.bus import topics
from roadside.bus.connection import BrokerAddress
from roadside.bus.messages import (
    ContextChunk,
    ContextTokens,
    InferRequest,
    Lease,
    LeaseRequest,
    Nack,
    NodeState,
    PolicyWeights,
    PromptContext,
)
from roadside.bus.transport import Bus
from roadside.policy.features import FEATURE_SCHEMA
from roadside.qos.ledger import Ledger

from .conftest import ANSWERING, FLEET, LISTENERS, Besieged
from .corpus import (
    ARCHIVES,
    GOOD,
    HIDDEN,
    IMAGES,
    JPEG,
    LOAD,
    PROMPTS,
    REPLY,
    STRANGER,
    TASK,
    TENSORS,
    UNUSUAL_IMAGES,
    attacks_on,
    written,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

AT_ONCE = 4
ROUNDS = 8
# Of the bytes that were sent to a node.
MOST_GROWTH_SHARE = 1 / 4
# Eight megabytes to everybody prove no more than to one.
ONLY_ON_TASKS = ("larger than allowed", "4 million empty arrays in the body")


async def test_every_attack_on_every_topic(besieged: Besieged):
    """A round has a few attacks for each topic, after which everybody has counted them and answers as before."""
    attacks = [
        [each for each in attacks_on(topic) if topic is topics.TASK or each.name not in ONLY_ON_TASKS]
        for topic in topics.TOPICS
    ]
    for begin in range(0, max(map(len, attacks)), AT_ONCE):
        expected: dict[str, Counter[str]] = defaultdict(Counter)
        before = {name: besieged.counters(name) for name in ANSWERING}
        present = [attack for each in attacks for attack in each[begin : begin + AT_ONCE]]
        for attack in present:
            for name, count in (await besieged.say(attack.topic, attack.make())).items():
                expected[name][f"refused.{attack.reason}"] += count
        await besieged.check_good_answers(" and ".join(attack.id for attack in present))
        # The vehicle reports once a second, and is asked below.
        await besieged.until_counted(before, {name: expected[name] for name in ANSWERING})


async def test_the_vehicle_has_counted_every_attack(besieged: Besieged):
    before, outcomes = besieged.counters("vehicle-1"), len(besieged.outcomes)
    expected: Counter[str] = Counter()
    for topic in topics.TOPICS:
        if "vehicle-1" in LISTENERS[topic.name]:
            for attack in attacks_on(topic):
                if attack.name not in ONLY_ON_TASKS:
                    expected[f"refused.{attack.reason}"] += (await besieged.say(topic, attack.make()))["vehicle-1"]
    await besieged.until_counted({"vehicle-1": before}, {"vehicle-1": expected})
    seen = len(besieged.outcomes)
    await besieged.until(lambda: len(besieged.outcomes) > seen + 1, "the vehicle drives on")
    # Where the machine is busy, its narrator may have to step in; nothing else may happen to a task.
    assert {outcome.state for outcome in besieged.outcomes[outcomes:]} <= {"result", "fallback"}


async def test_pictures_that_cannot_be_used_are_refused_by_name(besieged: Besieged):
    """Edge and cloud take turns: both open pictures in the same way."""
    for (name, (make, reason)), node in zip(IMAGES.items(), itertools.cycle(ANSWERING), strict=False):
        key = besieged.ask(node, frames=(make(),))
        await besieged.until(lambda key=key: key in besieged.rejections, name)
        assert besieged.rejections[key].reason == reason, name
    await besieged.check_good_answers("pictures")


async def test_what_is_only_unusual_is_answered(besieged: Besieged):
    for (name, make), node in zip(UNUSUAL_IMAGES.items(), itertools.cycle(ANSWERING), strict=False):
        key = besieged.ask(node, frames=(make(),))
        await besieged.until(lambda key=key: key in besieged.answers, name)
    for (name, prompt), node in zip(PROMPTS.items(), itertools.cycle(ANSWERING), strict=False):
        key = besieged.ask(node, prompt=prompt)
        await besieged.until(lambda key=key: key in besieged.answers, name)
        # The question is the good one once it has been cleaned.
        if "inside" not in name:
            assert besieged.answers[key].text == besieged.expected[node], name
    await besieged.check_good_answers("unusual things")


async def test_a_task_that_is_sent_again_is_answered_from_memory(besieged: Besieged):
    key = besieged.ask("edge-1", task_id="replayed")
    await besieged.until(lambda: key in besieged.answers, "the first answer")
    first = besieged.answers[key]
    before = {"edge-1": besieged.counters("edge-1")}
    for _ in range(20):
        besieged.ask("edge-1", task_id="replayed")
    await besieged.until_counted(before, {"edge-1": Counter({"resent": 20})})
    # To the microsecond the time that the first one took: nothing was computed anew.
    assert besieged.answers[key].timing == first.timing


async def test_the_same_bytes_again_are_refused(besieged: Besieged):
    payload = written(structs.replace(TASK, task_id="played-again"))
    before = {name: besieged.counters(name) for name in ANSWERING}
    for _ in range(4):
        await besieged.say(topics.TASK, payload)
    await besieged.until_counted(before, {name: Counter({"refused.replayed": 3}) for name in ANSWERING})
    await besieged.check_good_answers("a replayed task")


async def test_what_only_the_broker_remembers_is_refused(besieged: Besieged):
    """A retained task would be asked again at each of the node's connections, long after its time."""
    address = topics.TASK.address(FLEET, node="edge-1", vehicle=STRANGER)
    await besieged.stranger.publish(address, written(TASK), qos=1, retain=True)
    async with Bus(url=besieged.broker.url, fleet=FLEET, name="newcomer") as bus:
        tasks = bus.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        # What comes live finds the retained task before it.
        bus.post(topics.TASK, structs.replace(TASK, task_id="live"), node="edge-1")
        async with asyncio.timeout(20):
            while (await anext(tasks)).envelope.sender != "newcomer":
                pass
        assert bus.counters["refused.retained"] == 1
    await besieged.stranger.publish(address, b"", qos=1, retain=True)
    await besieged.check_good_answers("a retained task")


async def test_a_last_will_in_anothers_name_kills_nobody(besieged: Besieged):
    """Whose name stands in the address is who may speak there; that nobody can forge it is the broker's access list."""
    address = BrokerAddress.parse(besieged.broker.url)
    will = aiomqtt.Will(
        topics.NODE_STATE.address(FLEET, node="edge-1"),
        written(NodeState(node="edge-1", role="edge", alive=False)),
        qos=1,
    )
    before = besieged.counters("vehicle-1")
    dying = aiomqtt.Client(
        address.host, address.port, username=address.username, password=address.password, will=will, identifier="dying"
    )
    await dying.__aenter__()
    # Closed without a word, which is what a will is for.
    dying._client._sock_close()
    await besieged.until_counted({"vehicle-1": before}, {"vehicle-1": Counter({"refused.sender": 1})})
    assert besieged.states["edge-1"].alive


async def test_sessions_of_others_and_impossible_contexts(besieged: Besieged):
    """The stranger as an edge with a lease of its own: what it sends costs its own sessions, and nobody else's."""
    cloud = besieged.states["cloud-1"]
    cut = json.loads((resources.files("roadside.models") / "bundled" / "exits.json").read_text())["layers"][0]
    async with Bus(url=besieged.broker.url, fleet=FLEET, name=STRANGER) as bus:
        tokens = bus.subscribe(topics.TOKEN, edge=STRANGER)
        await tokens.active.wait()
        for reason, wrong in (("model", {"model_hash": "x"}), ("hidden-size", {"hidden_size": 2**40})):
            request = {"model_hash": cloud.model_hash, "first_exit_layer": cut, "hidden_size": 192, **wrong}
            bus.post(topics.CONTEXT, LeaseRequest(**request), node="cloud-1", edge=STRANGER)
            refused = (await asyncio.wait_for(anext(tokens), 20)).body
            assert refused.reason == reason
        request = LeaseRequest(model_hash=cloud.model_hash, first_exit_layer=cut, hidden_size=192)
        bus.post(topics.CONTEXT, request, node="cloud-1", edge=STRANGER)
        lease = (await asyncio.wait_for(anext(tokens), 20)).body
        assert isinstance(lease, Lease)

        before, expected = besieged.counters("cloud-1"), Counter[str]()

        def chunk(number: int, *, count: str, **changes: object) -> None:
            fields = {"session": f"{lease.lease}.{number}", "rollback": 0, "position": 0, "hidden": HIDDEN, **changes}
            bus.post(topics.CONTEXT, ContextChunk(**fields), node="cloud-1", edge=STRANGER)
            expected[count] += 1

        for guess in ("guessed.1", f"{lease.lease}.-1", f"{lease.lease}.01", f"{lease.lease[:-1]}.1", lease.lease):
            chunk(0, session=guess, count="chunks.refused.session")
        for payload, reason in TENSORS.values():
            if payload.dtype != "object":  # which a typed decoder refuses
                chunk(1, hidden=payload, count=f"chunks.refused.{reason}")
        chunk(2, position=2**31, count="given_up.too-large")
        chunk(3, position=2**53, count="given_up.too-large")
        chunk(4, count="chunks.new")
        chunk(4, count="chunks.duplicate")
        other = HIDDEN.__class__("float16", HIDDEN.shape, memoryview(b"\0\x3c" * 384))
        chunk(4, hidden=other, count="given_up.conflict")
        chunk(5, rollback=2**53, kept=2**53, count="chunks.new")
        largest = HIDDEN.__class__("float16", HIDDEN.shape, memoryview(b"\xff\x7b" * 384))
        chunk(6, hidden=largest, count="chunks.new")
        bus.post(
            topics.CONTEXT,
            ContextTokens(session=f"{lease.lease}.7", rollback=0, position=0, tokens=(2**24,)),
            node="cloud-1",
            edge=STRANGER,
        )
        expected["chunks.refused.token"] += 1
        bus.post(
            topics.CONTEXT,
            PromptContext(
                session=f"{lease.lease}.8",
                rollback=0,
                positions=40,
                prompt="what ?",
                frames=(JPEG[:500],),
                telemetry={},
            ),
            node="cloud-1",
            edge=STRANGER,
        )
        expected["prompts.refused"] += 1
        nacked: set[str] = set()
        for number, up_to in ((6, 2), (9, 2**20), (4, 2), (10, 2)):
            asked = InferRequest(session=f"{lease.lease}.{number}", rollback=0, up_to=up_to, remaining_ms=500.0)
            bus.post(topics.INFER, asked, node="cloud-1", edge=STRANGER)
        bus.post(
            topics.INFER,
            InferRequest(session="guessed.1", rollback=0, up_to=5, remaining_ms=500.0),
            node="cloud-1",
            edge=STRANGER,
        )
        async with asyncio.timeout(20):
            while not {"unknown-session", "too-large", "conflict", "missing"} <= nacked:
                body = (await anext(tokens)).body
                if isinstance(body, Nack):
                    nacked.add(body.reason)
        await besieged.until_counted({"cloud-1": before}, {"cloud-1": expected})
    await besieged.check_good_answers("contexts")


async def test_right_messages_that_nobody_asked_for(besieged: Besieged):
    """Answers to tasks that were never given, tokens of sessions that do not exist, weights of whoever comes along."""
    before = {name: besieged.counters(name) for name in ("edge-1", "vehicle-1")}
    for body in GOOD["ack"] + GOOD["result"]:
        await besieged.say(topics.ACK if body in GOOD["ack"] else topics.RESULT, written(body))
    await besieged.say(topics.TOKEN, written(REPLY))
    await besieged.say(topics.NODE_STATE, written(NodeState(node="edge-1", role="edge", alive=False)))
    await besieged.say(topics.NODE_STATE, written(NodeState(node=STRANGER, role="cloud", alive=True, places=("edge",))))
    archives = [make() for name, make in ARCHIVES.items() if "100 MB" not in name]
    for number, archive in enumerate(archives):
        weights = PolicyWeights(
            policy="ddpg", version=number, feature_schema=FEATURE_SCHEMA, weights=archive, trained_tasks=1
        )
        await besieged.say(topics.POLICY, written(weights))
    expected = {
        "edge-1": Counter({"unexpected": 1}),
        "vehicle-1": Counter({"ignored.unknown task": 2, "ignored.foreign state": 2}),
    }
    await besieged.until_counted(before, expected)

    def weights_refused(counters: Counter[str]) -> int:
        return sum(count for name, count in counters.items() if name.startswith("weights_refused"))

    refused_before = weights_refused(before["vehicle-1"])
    await besieged.until(
        lambda: weights_refused(besieged.counters("vehicle-1")) - refused_before == len(archives),
        "every archive is refused",
    )
    await besieged.check_good_answers("right messages")


async def test_a_flood_of_connections_keeps_nobody_out(besieged: Besieged):
    """Some say nothing, some connect and go away at once; tasks are answered all the while."""
    address = BrokerAddress.parse(besieged.broker.url)
    silent = [socket.create_connection((address.host, address.port)) for _ in range(200)]
    try:
        for _ in range(40):
            with socket.create_connection((address.host, address.port)) as half:
                half.sendall(b"\x10\xff\xff\xff\x7f")  # a CONNECT of 256 MB is announced
        await besieged.check_good_answers("a flood of connections")
    finally:
        for each in silent:
            each.close()


async def test_a_flood_of_announcements_does_not_crowd_out_the_fleet(besieged: Besieged):
    seen = len(besieged.outcomes)
    for number in range(300):
        name = f"phantom-{number}"
        state = NodeState(node=name, role="edge", alive=number % 2 == 0, places=("edge",), load=LOAD)
        await besieged.stranger.publish(topics.NODE_STATE.address(FLEET, node=name), written(state, name), qos=1)
    await besieged.until(lambda: len(besieged.outcomes) > seen + 3, "the vehicle drives on")
    newest = besieged.outcomes[-1]
    assert newest.decision is not None
    assert len(newest.decision.candidates) < 300
    await besieged.check_good_answers("a flood of announcements")


def refused(counters: Counter[str]) -> int:
    return sum(count for name, count in counters.items() if name.startswith("refused."))


async def test_memory_in_the_end(besieged: Besieged):
    """Run after the others: what was refused has left nothing behind but what an allocator keeps for next time."""
    payloads = [attack.make() for attack in attacks_on(topics.TASK) if attack.name not in ONLY_ON_TASKS]
    first: dict[str, int] = {}
    for number in range(ROUNDS):
        before = {name: besieged.counters(name) for name in ANSWERING}
        for payload in payloads:
            await besieged.say(topics.TASK, payload)
        for name in ANSWERING:
            await besieged.until(
                lambda name=name, before=before: (
                    refused(besieged.counters(name)) - refused(before[name]) >= len(payloads)
                ),
                f"{name} counts all of them",
            )
        if number == 0:
            # Large messages that come all at once need large buffers, once.
            first = {name: besieged.states[name].memory_bytes for name in ANSWERING}
    await besieged.check_good_answers("everything")
    sent_bytes = (ROUNDS - 1) * sum(map(len, payloads))
    for name, bytes_before in first.items():
        assert besieged.states[name].memory_bytes - bytes_before < sent_bytes * MOST_GROWTH_SHARE, name

    await besieged.fleet.stop(["vehicle-1"])
    await besieged.fleet.stop(["recorder"])
    with Ledger.open(besieged.run) as ledger:
        told = {one.outcome.task_id for one in ledger.outcomes()}
    assert {outcome.task_id for outcome in besieged.outcomes} <= told
    assert besieged.fleet.exit_status("recorder") == 0
