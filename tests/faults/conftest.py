"""Real processes, a real broker, and SIGKILL at named steps.

Loading a node's model takes seconds, so nodes outlive a test: each test says which it needs, and only what is not
running is started. Each test has a run, a recorder and vehicles of its own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.kinds import DESCRIBE
from roadside.bus.messages import Accepted, Outcome, Result, Task
from roadside.bus.transport import Bus, Received
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.samples import make_sample
from roadside.fleet import Fleet
from roadside.qos.ledger import Ledger, RecordedOutcome
from roadside.qos.report import summarise
from roadside.qos.run import RunDirectory

FLEET = "faults"
NODES = {"edge-1": "edge", "edge-2": "edge", "cloud-1": "cloud"}
_READY_S = 120.0


def assert_contract(run: RunDirectory) -> dict[str, int]:
    """Finish the run and hold what is promised of every task, whatever was killed; returns the counts."""
    run.finish()
    tasks = summarise(run)["tasks"]
    assert tasks["created"] > 0, "a drive without tasks shows nothing"
    assert tasks["created"] == tasks["result"] + tasks["fallback"] + tasks["expired"] + tasks["rejected"]
    assert tasks["lost"] == tasks["duplicate_visible"] == tasks["stale_shown"] == 0
    return tasks


@dataclass
class Nodes:
    """The broker and the processes that outlive a test."""

    broker: Broker
    fleet: Fleet
    alive: set[str] = field(default_factory=set)

    async def need(self, *names: str) -> None:
        """Start those of the nodes that are not running."""
        missing = set(names) - self.alive
        for name in missing:
            await self.fleet.start(name, NODES[name], "--name", name, "--fleet", FLEET)
        await self.fleet.ready(missing, timeout_s=_READY_S)
        self.alive |= missing

    async def kill(self, name: str) -> None:
        self.fleet.signal(name, signal.SIGKILL)
        await self.fleet.wait(name)
        self.alive.discard(name)


@dataclass
class Faults:
    """One test's run. acks, results, outcomes: what was said to and by its vehicles, in order, with the sender."""

    run: RunDirectory
    nodes: Nodes
    fleet: Fleet
    bus: Bus
    acks: list[tuple[str, Accepted]] = field(default_factory=list)
    results: list[tuple[str, Result]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def drive(self, name: str = "vehicle-1", *flags: str, rate_hz: float = 6.0, duration_s: float = 4.0) -> None:
        """Start a vehicle; a second time under the same name it goes on in the same journal."""
        await self.fleet.start(
            *(name, "vehicle", "--name", name, "--fleet", FLEET),
            *("--journal", str(self.run.journal_path(name)), "--rate-hz", str(rate_hz)),
            *("--duration", str(duration_s), *flags),
        )

    async def until(self, happened: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
        """Wait until something that was heard makes it true."""
        async with asyncio.timeout(timeout_s), self.heard:
            await self.heard.wait_for(happened)

    async def finish(self) -> dict[str, int]:
        """Let the recorder write what it has heard, and check the contract."""
        await self.fleet.stop(["recorder"])
        return assert_contract(self.run)

    def recorded(self) -> list[RecordedOutcome]:
        with Ledger.open(self.run) as ledger:
            return ledger.outcomes()

    async def listen(self) -> None:
        async with asyncio.TaskGroup() as group:
            for topic in (topics.ACK, topics.RESULT, topics.OUTCOME):
                group.create_task(self._listen(topic))

    async def _listen(self, topic: topics.Topic) -> None:
        async for received in self.bus.subscribe(topic):
            if received.names["vehicle"] != self.bus.name:
                async with self.heard:
                    self._keep(received)
                    self.heard.notify_all()

    def _keep(self, received: Received) -> None:
        match received.body:
            case Accepted():
                self.acks.append((received.names["node"], received.body))
            case Result():
                self.results.append((received.names["node"], received.body))
            case Outcome():
                self.outcomes.append(received.body)

    async def occupy(self, *nodes: str, tasks: int = 6) -> None:
        """Keep nodes busy with somebody else's tasks until cancelled, so that those of a vehicle have to queue."""
        sample = make_sample(4_300_000)
        jpeg = encode_jpeg(sample.image, 85)
        results = self.bus.subscribe(topics.RESULT, vehicle=self.bus.name)
        await results.active.wait()
        sent = 0

        def send(node: str) -> None:
            nonlocal sent
            sent += 1
            task = Task(
                task_id=f"filler-{sent}",
                attempt=1,
                kind=DESCRIBE.name,
                prompt=DESCRIBE.prompt,
                frames=(jpeg,),
                telemetry=sample.telemetry,
                deadline_ms=60_000.0,
                remaining_ms=60_000.0,
                qos_floor=0.0,
                place="edge",
                max_tokens=DESCRIBE.max_tokens,
            )
            self.bus.post(topics.TASK, task, perishable=True, node=node)

        for _ in range(tasks):
            for node in nodes:
                send(node)
        async for received in results:
            if received.body.final:
                send(received.names["node"])


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    logs = RunDirectory.create(tmp_path_factory.mktemp("nodes") / "run", configuration={}, seed=0, argv=["pytest"])
    async with Broker() as broker, Fleet(logs, broker.url) as fleet:
        yield Nodes(broker, fleet)


@pytest_asyncio.fixture(loop_scope="session")
async def faults(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Faults]:
    run = RunDirectory.create(tmp_path / "run", configuration={}, seed=0, argv=["pytest"])
    async with (
        Fleet(run, nodes.broker.url) as fleet,
        Bus(url=nodes.broker.url, fleet=FLEET, name="filler-1") as bus,
    ):
        await fleet.start("recorder", "record", str(run.path), "--fleet", FLEET)
        await fleet.ready(["recorder"], timeout_s=_READY_S)
        faults = Faults(run, nodes, fleet, bus)
        listening = asyncio.create_task(faults.listen())
        yield faults
        listening.cancel()


@pytest_asyncio.fixture(loop_scope="session")
async def occupied(faults: Faults) -> AsyncIterator[Callable[..., Awaitable[Callable[[], bool]]]]:
    """`free = await occupied("edge-1", ...)`: keeps these nodes busy until `free()` or the end of the test."""
    occupying: list[asyncio.Task[None]] = []

    async def occupy(*names: str) -> Callable[[], bool]:
        occupying.append(asyncio.create_task(faults.occupy(*names)))
        return occupying[-1].cancel

    yield occupy
    for task in occupying:
        task.cancel()
