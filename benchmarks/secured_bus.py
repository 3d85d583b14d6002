"""What mutual TLS costs: the same messages through a secured broker and through an open one, in the same run.

`roadside bench tls` has both ends in this process, a vehicle that asks and an edge that answers, and two mosquittos
beside it. The two ways take turns in short blocks, each going first as often as the other, so that what else happens
on the machine hits both alike. What an access list costs the broker is in the secured way's figures.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from ..bus import topics
from ..bus.access_rules import IdentityRole
from ..bus.broker import Broker, find_mosquitto
from ..bus.connection import Endpoint, connected, new_client
from ..bus.errors import ConfigurationError
from ..bus.messages import Load, Result, Task, Timing
from ..bus.secured_fleet import SecuredFleet
from ..bus.transport import Bus
from ..qos.run import this_machine

_FLEET = "bench"
_VEHICLE, _EDGE, _ONLOOKER = "vehicle-1", "edge-1", "watcher-1"
_MEMBERS: dict[str, IdentityRole] = {_VEHICLE: "vehicle", _EDGE: "edge", _ONLOOKER: "watcher"}
_PAYLOADS_BYTES = (8_192, 150_000)
_BLOCKS = 20
_QUICK_BLOCKS = 2
_EXCHANGES_PER_BLOCK = 20
_CONNECTIONS_PER_BLOCK = 2
_BURST = 100
_WINDOW = 8
_PATIENCE_S = 30.0
_IDLE = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})


@dataclass(slots=True)
class _Samples:
    """Of one way with one payload. Processor times are of a burst's messages, replies included."""

    round_trip_ms: list[float] = field(default_factory=list)
    burst_s: list[float] = field(default_factory=list)
    ends_cpu_s: float = 0.0
    broker_cpu_s: float = 0.0


def measure_secured_bus(*, quick: bool = False) -> dict[str, Any]:
    """The bench's JSON object; about a minute, a few seconds where quick. ConfigurationError without mosquitto."""
    if find_mosquitto() is None:
        raise ConfigurationError("only mosquitto can be secured: install it (`apt-get install mosquitto`)")
    blocks = _QUICK_BLOCKS if quick else _BLOCKS
    with tempfile.TemporaryDirectory(prefix="roadside-bench-") as folder:
        ways, samples = asyncio.run(_measure(Path(folder) / "secured", blocks))
    rows = [_row(name, size, measured) for (name, size), measured in samples.items()]
    connections = [{"name": way.name, "connect_ms_p50": statistics.median(way.connect_ms)} for way in ways]
    ratios = {"connect": connections[1]["connect_ms_p50"] / connections[0]["connect_ms_p50"]}
    for size in _PAYLOADS_BYTES:
        plain, secured = (row for row in rows if row["payload_bytes"] == size)
        for key in ("round_trip_ms_p50", "messages_per_s", "ends_cpu_ms_per_message", "broker_cpu_ms_per_message"):
            # A broker's processor time is told in steps of 10 ms, of which a quick run may not fill one.
            if plain[key]:
                ratios[f"{size}_{key}"] = secured[key] / plain[key]
    return {
        "bench": "tls",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {
            "quick": quick,
            "blocks": blocks,
            "exchanges": blocks * _EXCHANGES_PER_BLOCK,
            "burst": _BURST,
            "publishes_under_way": _WINDOW,
            "processes": "both ends in one, each broker (mosquitto) in one of its own",
            "exchange": "a task with one frame of the payload's size, QoS 1, answered by a result, QoS 1",
            "connect": "TCP, TLS 1.3 with both certificates (EC P-256), MQTT, and goodbye",
            "ratios": "mutual TLS over plain: below 1 is better, but for messages per second",
            "load_average_1m": os.getloadavg()[0],
        },
        "rows": rows,
        "connections": connections,
        "ratios": ratios,
    }


def _row(name: str, size: int, measured: _Samples) -> dict[str, Any]:
    messages = _BURST * len(measured.burst_s)
    return {
        "name": name,
        "payload_bytes": size,
        "round_trip_ms_p50": statistics.median(measured.round_trip_ms),
        "messages_per_s": _BURST / statistics.median(measured.burst_s),
        "ends_cpu_ms_per_message": measured.ends_cpu_s * 1000 / messages,
        "broker_cpu_ms_per_message": measured.broker_cpu_s * 1000 / messages,
    }


async def _measure(folder: Path, blocks: int) -> tuple[list[_Way], dict[tuple[str, int], _Samples]]:
    SecuredFleet.create(folder, fleet=_FLEET, members=list(_MEMBERS.items()), days=1)
    async with AsyncExitStack() as stack:
        ways: list[_Way] = []
        for name, tls in (("plain", None), ("mutual-tls", folder)):
            broker = await stack.enter_async_context(Broker(prefer="mosquitto", tls=tls))
            ways.append(await stack.enter_async_context(_Way(name, broker, tls)))
        samples = {(way.name, size): _Samples() for size in _PAYLOADS_BYTES for way in ways}
        for way, size in itertools.product(ways, _PAYLOADS_BYTES):
            # Warms up caches, buffers and connections, and is forgotten.
            await way.one_by_one(size, _Samples())
        for block in range(blocks):
            in_turn = ways if block % 2 == 0 else ways[::-1]
            for way in in_turn:
                await way.connect_again()
            for size, way in itertools.product(_PAYLOADS_BYTES, in_turn):
                await way.one_by_one(size, samples[way.name, size])
            for size, way in itertools.product(_PAYLOADS_BYTES, in_turn):
                await way.burst(size, samples[way.name, size])
        return ways, samples


class _Way:
    """A vehicle and an edge on one broker."""

    def __init__(self, name: str, broker: Broker, tls: Path | None) -> None:
        self.name = name
        self.connect_ms: list[float] = []
        self._broker_process = psutil.Process(broker.pid)
        self._url, self._tls = broker.url, tls
        self._vehicle = Bus(url=broker.url, fleet=_FLEET, name=_VEHICLE, tls=tls)
        self._edge = Bus(url=broker.url, fleet=_FLEET, name=_EDGE, tls=tls)
        self._tasks = self._edge.subscribe(topics.TASK, node=_EDGE)
        self._results = self._vehicle.subscribe(topics.RESULT, vehicle=_VEHICLE)
        self._numbers = itertools.count(1)
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> _Way:
        await self._stack.enter_async_context(self._vehicle)
        await self._stack.enter_async_context(self._edge)
        for work in (self._answer(), self._hear()):
            self._stack.callback(asyncio.create_task(work).cancel)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    async def connect_again(self) -> None:
        """Connections that last for a moment: as somebody else, or one of the ends would lose its own."""
        for _ in range(_CONNECTIONS_PER_BLOCK):
            began_s = time.perf_counter()
            client = new_client(
                Endpoint.parse(self._url, self._tls, _ONLOOKER),
                identifier=_ONLOOKER,
                on_message=lambda message: None,
                keepalive_s=10,
                timeout_s=_PATIENCE_S,
                in_flight_limit=1,
                clean_session=True,
            )
            async with connected(client):
                pass
            self.connect_ms.append((time.perf_counter() - began_s) * 1000)

    async def one_by_one(self, size: int, samples: _Samples) -> None:
        """Each exchange has the machine to itself."""
        for _ in range(_EXCHANGES_PER_BLOCK):
            began_s = time.perf_counter()
            await self._exchange(size)
            samples.round_trip_ms.append((time.perf_counter() - began_s) * 1000)

    async def burst(self, size: int, samples: _Samples) -> None:
        window = asyncio.Semaphore(_WINDOW)

        async def one() -> None:
            async with window:
                await self._exchange(size)

        ends_s, broker_s, began_s = time.process_time(), self._broker_cpu_s(), time.perf_counter()
        await asyncio.gather(*(one() for _ in range(_BURST)))
        samples.burst_s.append(time.perf_counter() - began_s)
        samples.ends_cpu_s += time.process_time() - ends_s
        samples.broker_cpu_s += self._broker_cpu_s() - broker_s

    def _broker_cpu_s(self) -> float:
        times = self._broker_process.cpu_times()
        return times.user + times.system

    async def _exchange(self, size: int) -> None:
        task_id = f"t-{next(self._numbers)}"
        answered = self._awaited[task_id] = asyncio.get_running_loop().create_future()
        self._vehicle.post(topics.TASK, _task(task_id, size), node=_EDGE)
        await asyncio.wait_for(answered, _PATIENCE_S)

    async def _answer(self) -> None:
        async for received in self._tasks:
            self._edge.post(topics.RESULT, _result(received.body.task_id), vehicle=_VEHICLE)

    async def _hear(self) -> None:
        async for received in self._results:
            self._awaited.pop(received.body.task_id).set_result(None)


def _task(task_id: str, frame_bytes: int) -> Task:
    return Task(
        task_id=task_id,
        attempt=1,
        kind="hazard",
        prompt="what must the driver react to ?",
        frames=(os.urandom(frame_bytes),),
        telemetry={"Vehicle.Speed": 48.5},
        deadline_ms=700.0,
        remaining_ms=650.0,
        qos_floor=0.5,
        place="edge",
    )


def _result(task_id: str) -> Result:
    return Result(
        task_id=task_id,
        attempt=1,
        final=True,
        text="the car brakes because the light turns red .",
        place="edge",
        mode="standalone",
        model="bench",
        made_by=(),
        confidence=0.9,
        timing=Timing(),
        energy_j=0.0,
        energy_method="modelled",
        load=_IDLE,
    )
