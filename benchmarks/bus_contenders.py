"""The two that `roadside bench bus` compares: roadside's bus, and aiomqtt as its documentation uses it.

Each has a near end, which sends numbered messages and hears replies, and a far end in a process of its own, which
answers every message with a small reply that says when it arrived. The clock is the machine's monotonic one, which
both processes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Literal, Protocol

import aiomqtt

from ..bus import topics
from ..bus.connection import BrokerAddress
from ..bus.messages import ContextChunk, Frame, Load, Message, Result, Task, Timing, TokenReply
from ..bus.tensors import TensorPayload
from ..bus.transport import Bus

NEAR, FAR = "near", "far"
HIDDEN_SIZE = 256

_UP, _DOWN = "bench/up", "bench/down"
_IDLE = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})
_NODELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
# About what roadside's two replies take on the wire.
_REPLY_BYTES = {0: 200, 1: 450}

# number of the message, and when it arrived at the far end in nanoseconds
OnReply = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Case:
    """What goes up, and at which quality of service; the reply comes down at the same."""

    topic: Literal["frame", "task", "context"]
    payload_bytes: int
    qos: Literal[0, 1]


CASES = (Case("frame", 150_000, 0), Case("task", 8_192, 1), Case("context", 8_192, 0))


class NearEnd(Protocol):
    name: str

    async def send(self, case: Case, number: int) -> None:
        """Returns when the message is handed over: to the broker at QoS 1, to the socket at QoS 0."""
        ...


@contextlib.asynccontextmanager
async def roadside_near(url: str, fleet: str, on_reply: OnReply) -> AsyncIterator[NearEnd]:
    async with Bus(url=url, fleet=fleet, name=NEAR) as bus:
        results = bus.subscribe(topics.RESULT, vehicle=NEAR)
        tokens = bus.subscribe(topics.TOKEN, edge=NEAR)
        await results.active.wait()
        await tokens.active.wait()

        async def hear_results() -> None:
            async for received in results:
                on_reply(_number(received.body.task_id), int(received.body.text))

        async def hear_tokens() -> None:
            async for received in tokens:
                on_reply(_number(received.body.session), received.body.up_to)

        async with _running(hear_results(), hear_tokens()):
            yield _RoadsideNear(bus)


class _RoadsideNear:
    name = "roadside"

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._payloads = {case: os.urandom(case.payload_bytes) for case in CASES}

    async def send(self, case: Case, number: int) -> None:
        identity, payload = f"m{number}", self._payloads[case]
        if case.topic == "frame":
            frame = Frame(clip="bench", moment_s=0.0, jpeg=payload, telemetry={"Vehicle.Speed": 48.5}, task_id=identity)
            await self._bus.publish(topics.FRAME, frame)
        elif case.topic == "task":
            await self._bus.publish(topics.TASK, _task(identity, payload), node=FAR)
        else:
            hidden = TensorPayload("float16", (len(payload) // 2 // HIDDEN_SIZE, HIDDEN_SIZE), memoryview(payload))
            await self._bus.publish(topics.CONTEXT, ContextChunk(identity, 0, 0, hidden), node=FAR)


async def roadside_far(url: str, fleet: str, on_ready: Callable[[], None]) -> None:
    """Answers until cancelled."""
    async with Bus(url=url, fleet=fleet, name=FAR) as bus:
        frames = bus.subscribe(topics.FRAME, vehicle=NEAR)
        tasks = bus.subscribe(topics.TASK, node=FAR)
        contexts = bus.subscribe(topics.CONTEXT, node=FAR)

        async def answer_frames() -> None:
            async for received in frames:
                arrived_ns = time.monotonic_ns()
                bus.post(topics.TOKEN, _token(received.body.task_id, arrived_ns), edge=NEAR)

        async def answer_tasks() -> None:
            async for received in tasks:
                arrived_ns = time.monotonic_ns()
                bus.post(topics.RESULT, _result(received.body.task_id, arrived_ns), vehicle=NEAR)

        async def answer_contexts() -> None:
            async for received in contexts:
                arrived_ns = time.monotonic_ns()
                bus.post(topics.TOKEN, _token(received.body.session, arrived_ns), edge=NEAR)

        for subscription in (frames, tasks, contexts):
            await subscription.active.wait()
        on_ready()
        await asyncio.gather(answer_frames(), answer_tasks(), answer_contexts())


@contextlib.asynccontextmanager
async def bare_near(url: str, on_reply: OnReply) -> AsyncIterator[NearEnd]:
    async with _bare_client(url) as client:
        await client.subscribe(_DOWN, qos=1)

        async def hear() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                on_reply(int.from_bytes(message.payload[:8]), int.from_bytes(message.payload[8:16]))

        async with _running(hear()):
            yield _BareNear(client)


class _BareNear:
    name = "bare"

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._payloads = {case: os.urandom(case.payload_bytes - 8) for case in CASES}

    async def send(self, case: Case, number: int) -> None:
        await self._client.publish(_UP, number.to_bytes(8) + self._payloads[case], qos=case.qos)


async def bare_far(url: str, on_ready: Callable[[], None]) -> None:
    """Answers until cancelled."""
    async with _bare_client(url) as client, asyncio.TaskGroup() as replies:
        await client.subscribe(_UP, qos=1)
        on_ready()
        async for message in client.messages:
            arrived_ns = time.monotonic_ns()
            assert isinstance(message.payload, bytes)
            reply = message.payload[:8] + arrived_ns.to_bytes(8)
            # Not awaited here: the next message need not wait for the broker's acknowledgement of this reply.
            replies.create_task(client.publish(_DOWN, reply.ljust(_REPLY_BYTES[message.qos], b"\0"), qos=message.qos))


def _bare_client(url: str) -> aiomqtt.Client:
    address = BrokerAddress.parse(url)
    client = aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        protocol=aiomqtt.ProtocolVersion.V311,
        socket_options=_NODELAY,
    )
    # Its warnings about many calls at a time would be part of what is measured.
    client.pending_calls_threshold = 1000
    return client


@contextlib.asynccontextmanager
async def _running(*coroutines: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _number(identity: str) -> int:
    return int(identity.removeprefix("m"))


def _task(identity: str, frame: bytes) -> Task:
    return Task(
        task_id=identity,
        attempt=1,
        kind="hazard",
        prompt="what must the driver react to ?",
        frames=(frame,),
        telemetry={"Vehicle.Speed": 48.5},
        deadline_ms=700.0,
        remaining_ms=650.0,
        qos_floor=0.5,
        place="cloud",
    )


def _token(identity: str | None, arrived_ns: int) -> TokenReply:
    assert identity is not None
    return TokenReply(
        session=identity,
        rollback=0,
        up_to=arrived_ns,
        tokens=(0,),
        n_accepted=0,
        confidences=(0.9,),
        queue_ms=0.0,
        compute_ms=0.0,
        energy_j=0.0,
    )


def _result(identity: str, arrived_ns: int) -> Message:
    return Result(
        task_id=identity,
        attempt=1,
        final=True,
        text=str(arrived_ns),
        place="cloud",
        mode="standalone",
        model="none",
        made_by=("full",),
        confidence=0.9,
        timing=Timing(),
        energy_j=0.0,
        energy_method="modelled",
        load=_IDLE,
    )
