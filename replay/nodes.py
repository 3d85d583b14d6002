"""Edges and clouds answer their recorded tasks again: the real nodes, in this process, over a broker of their own.

In the order in which the tasks arrived, one at a time, and with all the time that an answer takes: how long that is on
this machine says nothing of theirs. What is compared is every answer's words, and who said them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import structs

from ..bus import topics
from ..bus.broker import Broker
from ..bus.errors import FleetError, MessageRefused, RunError
from ..bus.inbox import read
from ..bus.message_log import Heard, LoggedLife, Said
from ..bus.messages import NodeState, Rejected, Result, Task
from ..bus.transport import Bus, Received, Subscription
from ..cloud_node import node as cloud_node
from ..cloud_node.configuration import CloudConfiguration
from ..edge_node import node as edge_node
from ..edge_node.configuration import EdgeConfiguration
from ..models.serving import NodeConfiguration
from .comparison import Difference, ProcessReplay

_FLEET = "replay"
_ALL_THE_TIME_MS = 600_000.0
_LONGEST_WAIT_S = 300.0
# Long enough for any machine, and for a token to be lost on none.
_CLOUD_TIMEOUT_MS = 60_000.0

_Key = tuple[str, str, int]


@dataclass(slots=True)
class _Recorded:
    """What a node was asked, in order, and what it answered. Keys: vehicle, task id, attempt."""

    tasks: list[tuple[float, str, Task]] = field(default_factory=list)
    answers: dict[_Key, Result] = field(default_factory=dict)


async def replay_nodes(lives: Mapping[str, list[LoggedLife]], only: str | None = None) -> list[ProcessReplay]:
    """lives: of the run's edges and clouds. only: the one to replay; others may still be needed for its answers.

    Raises RunError where a recording cannot be read, and whatever keeps a node from starting (ModelError, ...).
    """
    recorded = {name: _recorded(of_node) for name, of_node in lives.items()}
    results = {name: ProcessReplay(name, lives[name][-1].begun.role) for name in lives if only in (None, name)}
    asked = sorted(
        ((at_s, name, vehicle, task) for name in results for at_s, vehicle, task in recorded[name].tasks),
        key=lambda each: each[0],
    )
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Broker())
        asker = await stack.enter_async_context(_asking(broker.url, {vehicle for _, _, vehicle, _ in asked}))
        nodes: dict[str, asyncio.Task[None]] = {}
        for name, of_node in lives.items():
            nodes[name] = await stack.enter_async_context(_running(name, of_node[-1], broker.url))
            # One after the other: two threads that import the same library at once see halves of it.
            await asker.until_offered(name, set(), nodes[name])
        for name, running in nodes.items():
            places = {task.place for _, at, _, task in asked if at == name}
            has_cloud = any(of_node[-1].begun.role == "cloud" for of_node in lives.values())
            await asker.until_offered(name, places if has_cloud else places - {"edge+cloud"}, running)
        for _, name, vehicle, task in asked:
            expected = recorded[name].answers.get((vehicle, task.task_id, task.attempt))
            if (why := _says_nothing(task, expected)) is not None:
                results[name].left_out[why] += 1
                continue
            assert expected is not None, "else it would say nothing"
            _compare(expected, await asker.answer(name, vehicle, task, nodes[name]), results[name])
    return list(results.values())


def _recorded(lives: list[LoggedLife]) -> _Recorded:
    recorded = _Recorded()
    seen: set[_Key] = set()
    for record in (record for life in lives for record in life.records):
        try:
            received = read(record.address, record.payload) if isinstance(record, Heard | Said) else None
        except MessageRefused:
            continue  # as it was then
        if received is None:
            continue
        body, vehicle = received.body, received.names["vehicle"]
        key = vehicle, body.task_id, body.attempt
        if isinstance(body, Task) and key not in seen:
            seen.add(key)
            recorded.tasks.append((record.at_s, vehicle, body))
        elif isinstance(body, Result) and body.final:
            recorded.answers.setdefault(key, body)
    return recorded


def _says_nothing(task: Task, answer: Result | None) -> str | None:
    """Why an answer is not to be had again for certain; None where it is."""
    if answer is None:
        return "was not answered"
    if answer.place != task.place:
        return f"was answered at {answer.place} instead of {task.place}"
    if answer.context is not None and answer.context.ended_alone:
        return "was ended without the cloud, which was silent"
    return None


def _compare(expected: Result, got: Result | Rejected, result: ProcessReplay) -> None:
    if isinstance(got, Rejected):
        result.compared += 1
        result.differences.append(Difference(expected.task_id, "answer", _shown(expected), f"refused: {got.reason}"))
    elif got.mode != expected.mode:
        result.left_out[f"was decoded by {expected.mode}, for reasons of time, and now by {got.mode}"] += 1
    else:
        result.compared += 1
        if (got.text, got.made_by, got.place) != (expected.text, expected.made_by, expected.place):
            note = f"confidence {expected.confidence:.4f} then, {got.confidence:.4f} now"
            result.differences.append(Difference(expected.task_id, "answer", _shown(expected), _shown(got), note))


def _shown(answer: Result) -> str:
    return f'"{answer.text}" ({answer.place}: {" ".join(answer.made_by)})'


@asynccontextmanager
async def _running(name: str, life: LoggedLife, broker_url: str) -> AsyncIterator[asyncio.Task[None]]:
    """A node as it was configured, until the block is left."""
    run, configuration = _node(name, life, broker_url)
    stop = asyncio.Event()
    running = asyncio.create_task(run(configuration, stop))
    try:
        yield running
    finally:
        stop.set()
        await running


def _node(
    name: str, life: LoggedLife, broker_url: str
) -> tuple[Callable[[Any, asyncio.Event], Coroutine[Any, Any, None]], NodeConfiguration]:
    kind = EdgeConfiguration if life.begun.role == "edge" else CloudConfiguration
    try:
        configuration = msgspec.convert(json.loads(life.begun.configuration), kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise RunError(
            f"{name} was recorded with other settings than this roadside has ({error}): record anew"
        ) from None
    configuration = structs.replace(configuration, broker=broker_url, fleet=_FLEET, stream_interval_ms=None)
    if isinstance(configuration, EdgeConfiguration):
        return edge_node.run, structs.replace(configuration, cloud_timeout_ms=_CLOUD_TIMEOUT_MS)
    if configuration.backend == "openai":
        raise RunError(f"{name} asked a server elsewhere, which is not replayed: replay the others (--node)")
    return cloud_node.run, configuration


class _Asker:
    """Asks in the vehicles' names. buses: theirs; heard: their newest answers; states: the nodes' newest."""

    def __init__(self, buses: dict[str, Bus]) -> None:
        self._buses = buses
        self._states: dict[str, NodeState] = {}
        self._heard: dict[_Key, Result | Rejected] = {}
        self._changed = asyncio.Condition()

    async def listen(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, bus in self._buses.items():
                for topic in (topics.RESULT, topics.ACK):
                    group.create_task(self._listen(bus.subscribe(topic, vehicle=name)))
            group.create_task(self._listen(next(iter(self._buses.values())).subscribe(topics.NODE_STATE)))

    async def _listen(self, subscription: Subscription) -> None:
        async for received in subscription:
            async with self._changed:
                self._keep(received)
                self._changed.notify_all()

    def _keep(self, received: Received) -> None:
        body = received.body
        if isinstance(body, NodeState):
            self._states[body.node] = body
        elif isinstance(body, Rejected) or (isinstance(body, Result) and body.final):
            self._heard[received.names["vehicle"], body.task_id, body.attempt] = body

    async def until_offered(self, node: str, places: set[str], running: asyncio.Task[None]) -> None:
        """Wait until a node announces these places. Raises what ended it, and FleetError where it takes too long."""

        def offered() -> bool:
            return node in self._states and places <= set(self._states[node].places)

        await self._until(offered, running, f"{node} to offer {', '.join(sorted(places)) or 'anything'}")

    async def answer(self, node: str, vehicle: str, task: Task, running: asyncio.Task[None]) -> Result | Rejected:
        """The node's final word. Raises as `until_offered`."""
        key = vehicle, task.task_id, task.attempt
        unhurried = structs.replace(task, deadline_ms=_ALL_THE_TIME_MS, remaining_ms=_ALL_THE_TIME_MS)
        self._heard.pop(key, None)
        self._buses[vehicle].post(topics.TASK, unhurried, node=node)
        await self._until(lambda: key in self._heard, running, f"{node} to answer {task.task_id}")
        return self._heard[key]

    async def _until(self, happened: Callable[[], bool], running: asyncio.Task[None], what: str) -> None:
        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(happened)

        waiting = asyncio.create_task(wait())
        await asyncio.wait({waiting, running}, timeout=_LONGEST_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return
        waiting.cancel()
        if running.done():
            await running
        raise FleetError(f"waited in vain for {what}; replay again, and on a machine that has time for it")


@asynccontextmanager
async def _asking(broker_url: str, vehicles: set[str]) -> AsyncIterator[_Asker]:
    async with AsyncExitStack() as stack:
        buses = {
            name: await stack.enter_async_context(Bus(url=broker_url, fleet=_FLEET, name=name))
            for name in sorted(vehicles) or ["nobody"]
        }
        asker = _Asker(buses)
        listening = asyncio.create_task(asker.listen())
        try:
            yield asker
        finally:
            listening.cancel()
