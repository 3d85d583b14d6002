"""One fleet of real processes for this folder: a broker, a recorder, an edge, a cloud, and a vehicle that drives.

Beside it stands a stranger, who says whatever it likes on every topic, and a good vehicle, whose tasks have to be
answered right after as they were before.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest
import pytest_asyncio
from msgspec import structs
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.connection import BrokerAddress
from roadside.bus.messages import NodeState, Outcome, Rejected, Result
from roadside.bus.transport import Bus
from roadside.fleet import Fleet
from roadside.qos.run import RunDirectory

from .corpus import STRANGER, TASK

FLEET = "hostile"
GOOD_VEHICLE = "good-vehicle"
# Told often, so that a test need not wait for what they count.
HEARTBEAT_S = 0.2
ANSWERING = ("edge-1", "cloud-1")
_READY_S = 120.0
_PATIENCE_S = 60.0
# Whose inbox a topic is, beside that of whoever listens to everybody.
LISTENERS: dict[str, tuple[str, ...]] = {
    "task": ("edge-1", "cloud-1"),
    "context": ("cloud-1",),
    "infer": ("cloud-1",),
    "token": ("edge-1",),
    "ack": ("vehicle-1",),
    "result": ("vehicle-1",),
    "node-state": ("edge-1", "vehicle-1"),
    "policy": ("vehicle-1",),
    "outcome": (),
    "frame": (),
    "vehicle-state": (),
}
# Topics with one address that everybody hears.
_ONE_ADDRESS = ("node-state", "policy", "outcome", "frame", "vehicle-state")


@dataclass
class Besieged:
    """The fleet, and what is heard of it. states: by name; answers: by task id and node; rejections: likewise."""

    fleet: Fleet
    run: RunDirectory
    broker: Broker
    bus: Bus
    stranger: aiomqtt.Client
    states: dict[str, NodeState] = field(default_factory=dict)
    answers: dict[tuple[str, str], Result] = field(default_factory=dict)
    rejections: dict[tuple[str, str], Rejected] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    expected: dict[str, str] = field(default_factory=dict)

    async def listen(self) -> None:
        subscriptions = [
            self.bus.subscribe(topics.NODE_STATE, limit=10_000),
            self.bus.subscribe(topics.VEHICLE_STATE, limit=10_000, vehicle="vehicle-1"),
            self.bus.subscribe(topics.RESULT, limit=10_000, vehicle=GOOD_VEHICLE),
            self.bus.subscribe(topics.ACK, limit=10_000, vehicle=GOOD_VEHICLE),
            self.bus.subscribe(topics.OUTCOME, limit=10_000, vehicle="vehicle-1"),
        ]
        async with asyncio.TaskGroup() as group:
            for subscription in subscriptions:
                group.create_task(self._listen(subscription))

    async def _listen(self, subscription: topics.Topic | object) -> None:
        async for received in subscription:  # pyright: ignore[reportGeneralTypeIssues]
            body, node = received.body, received.names.get("node", "")
            async with self.changed:
                match body:
                    case NodeState():
                        self.states[body.node] = body
                    case Result() if body.final:
                        self.answers[body.task_id, node] = body
                    case Rejected():
                        self.rejections[body.task_id, node] = body
                    case Outcome():
                        self.outcomes.append(body)
                self.changed.notify_all()

    async def until(self, happened: object, what: str) -> None:
        """Wait until something that was heard makes `happened()` true."""
        try:
            async with asyncio.timeout(_PATIENCE_S), self.changed:
                await self.changed.wait_for(happened)  # pyright: ignore[reportArgumentType]
        except TimeoutError:
            self.fleet.check([*ANSWERING, "vehicle-1", "recorder"])
            pytest.fail(f"{what}: not within {_PATIENCE_S:.0f} s")

    # Saying

    async def say(self, topic: topics.Topic, payload: bytes, *, retain: bool = False) -> Counter[str]:
        """As the stranger, to everybody who has an inbox of this topic; returns how many messages each one hears."""
        heard: Counter[str] = Counter(LISTENERS[topic.name])
        receivers = [STRANGER] if topic.name in _ONE_ADDRESS else list(heard)
        for receiver in receivers:
            names = {name: STRANGER if name == topic.sender else receiver for name in topic.placeholders}
            await self.stranger.publish(topic.address(FLEET, **names), payload, qos=1, retain=retain)
        return heard

    def counters(self, name: str) -> Counter[str]:
        return Counter(self.states[name].counters)

    async def until_counted(self, before: dict[str, Counter[str]], expected: dict[str, Counter[str]]) -> None:
        """Wait until every node has counted what was expected of it."""
        for name, reasons in expected.items():
            await self.until(
                lambda name=name, reasons=reasons: all(
                    self.counters(name)[reason] - before[name][reason] >= count for reason, count in reasons.items()
                ),
                f"{name} counts {dict(reasons)}; it had {dict(before[name])} and has {dict(self.counters(name))}",
            )

    # Asking

    def ask(self, node: str, **changes: object) -> tuple[str, str]:
        """As the good vehicle. Returns the key of the answer that will come."""
        place = "edge" if node.startswith("edge") else "cloud"
        task = structs.replace(TASK, **{"task_id": f"good-{next(self.numbers)}", "place": place, **changes})
        self.bus.post(topics.TASK, task, node=node)
        return task.task_id, node

    async def check_good_answers(self, after: str) -> None:
        """Every node answers a good task as it did before anything was done to it."""
        keys = [self.ask(node) for node in ANSWERING]
        await self.until(lambda: all(key in self.answers for key in keys), f"a good answer after {after}")
        for key in keys:
            answer = self.answers[key]
            assert answer.text == self.expected.setdefault(key[1], answer.text), f"after {after}"
        self.fleet.check([*ANSWERING, "vehicle-1", "recorder"])


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def besieged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Besieged]:
    folder: Path = tmp_path_factory.mktemp("besieged")
    run = RunDirectory.create(folder / "run", configuration={}, seed=0, argv=["pytest"])
    async with Broker() as broker, Fleet(run, broker.url) as fleet:
        await fleet.start("recorder", "record", str(run.path), "--fleet", FLEET)
        for name in ANSWERING:
            file = folder / f"{name}.toml"
            file.write_text(f'name = "{name}"\nfleet = "{FLEET}"\nheartbeat_s = {HEARTBEAT_S}\n')
            await fleet.start(name, name.split("-")[0], "--config", str(file))
        await fleet.ready(["recorder", *ANSWERING], timeout_s=_READY_S)
        await fleet.start(
            *("vehicle-1", "vehicle", "--name", "vehicle-1", "--fleet", FLEET, "--policy", "ddpg"),
            *("--journal", str(run.journal_path("vehicle-1")), "--rate-hz", "0.7", "--duration", "3600"),
        )
        await fleet.ready(["vehicle-1"], timeout_s=_READY_S)
        address = BrokerAddress.parse(broker.url)
        async with (
            Bus(url=broker.url, fleet=FLEET, name=GOOD_VEHICLE) as bus,
            aiomqtt.Client(
                address.host, address.port, username=address.username, password=address.password
            ) as stranger,
        ):
            besieged = Besieged(fleet, run, broker, bus, stranger)
            listening = asyncio.create_task(besieged.listen())
            await besieged.until(
                lambda: besieged.outcomes and {*ANSWERING, "vehicle-1"} <= besieged.states.keys(), "the fleet drives"
            )
            await besieged.check_good_answers("nothing at all")
            yield besieged
            listening.cancel()
