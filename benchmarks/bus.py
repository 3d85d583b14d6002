"""What the bus costs beside bare aiomqtt: the same payloads through the same broker, in the same run.

`roadside bench bus` starts a broker and a process with the far ends of both contenders, and measures from this one.
The two take turns in short blocks, each going first as often as the other, so that what else happens on the machine
hits both alike.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..bus.broker import Broker
from ..bus.defaults import BROKER_VARIABLE
from ..bus.errors import BusError
from ..qos.run import this_machine
from .bus_contenders import CASES, Case, NearEnd, bare_near, roadside_near
from .bus_far import READY

_FLEET = "bench"
_BLOCKS = 20
_QUICK_BLOCKS = 2
_EXCHANGES_PER_BLOCK = 20
_PAUSE_S = 0.005
# As fast as they go, with so many publishes under way.
_BURST = 200
_WINDOW = 8
_PATIENCE_S = 20.0


@dataclass(slots=True)
class _Samples:
    """What was measured of one contender in one case."""

    one_way_ms: list[float] = field(default_factory=list)
    round_trip_ms: list[float] = field(default_factory=list)
    burst_s: list[float] = field(default_factory=list)


def measure_bus(*, quick: bool = False) -> dict[str, Any]:
    """The bench's JSON object; takes about half a minute, a few seconds where quick."""
    blocks = _QUICK_BLOCKS if quick else _BLOCKS
    kind, samples = asyncio.run(_measure(blocks))
    rows = [
        {
            "name": name,
            "broker": kind,
            "payload_bytes": case.payload_bytes,
            "qos": case.qos,
            "one_way_ms_p50": statistics.median(measured.one_way_ms),
            "messages_per_s": _BURST / statistics.median(measured.burst_s),
            "round_trip_ms_p50": statistics.median(measured.round_trip_ms),
        }
        for (name, case), measured in samples.items()
    ]
    return {
        "bench": "bus",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {
            "quick": quick,
            "blocks": blocks,
            "exchanges": blocks * _EXCHANGES_PER_BLOCK,
            "pause_ms": _PAUSE_S * 1000,
            "burst": _BURST,
            "publishes_under_way": _WINDOW,
            "processes": "near end, far end and broker, one each; both contenders in the same ones, in turns",
            "reply": "every message is answered by a small one at the same QoS that says when it arrived",
            "bare": "aiomqtt with TCP_NODELAY, payloads as bytes, nothing encoded or checked",
            "load_average_1m": os.getloadavg()[0],
        },
        "rows": rows,
        "ratios": {f"{case.topic}_{key}": ratio for case in CASES for key, ratio in _ratios(samples, case).items()},
    }


def _ratios(samples: dict[tuple[str, Case], _Samples], case: Case) -> dict[str, float]:
    """Ours over bare: below 1 is better for times, above 1 for throughput."""
    ours, bare = samples["roadside", case], samples["bare", case]
    return {
        "one_way": statistics.median(ours.one_way_ms) / statistics.median(bare.one_way_ms),
        "throughput": statistics.median(bare.burst_s) / statistics.median(ours.burst_s),
        "round_trip": statistics.median(ours.round_trip_ms) / statistics.median(bare.round_trip_ms),
    }


async def _measure(blocks: int) -> tuple[str, dict[tuple[str, Case], _Samples]]:
    async with Broker() as broker, _far_ends(broker.url), AsyncExitStack() as stack:
        exchange = _Exchange()
        ends = [
            await stack.enter_async_context(roadside_near(broker.url, _FLEET, exchange.replied)),
            await stack.enter_async_context(bare_near(broker.url, exchange.replied)),
        ]
        samples = {(end.name, case): _Samples() for case in CASES for end in ends}
        for case, end in itertools.product(CASES, ends):
            # Warms up caches, buffers and connections, and is forgotten.
            await exchange.one_by_one(end, case, _Samples())
        for block, case in itertools.product(range(blocks), CASES):
            in_turn = ends if block % 2 == 0 else ends[::-1]
            for end in in_turn:
                await exchange.one_by_one(end, case, samples[end.name, case])
            for end in in_turn:
                await exchange.burst(end, case, samples[end.name, case])
        return broker.kind, samples


class _Exchange:
    """Sends messages and waits for their replies."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        # By the message's number: its arrival at the far end and the reply's arrival here, in nanoseconds.
        self._awaited: dict[int, asyncio.Future[tuple[int, int]]] = {}

    def replied(self, number: int, arrived_ns: int) -> None:
        # QoS 1 may deliver twice; the first counts.
        if (answer := self._awaited.pop(number, None)) is not None:
            answer.set_result((arrived_ns, time.monotonic_ns()))

    async def one_by_one(self, end: NearEnd, case: Case, samples: _Samples) -> None:
        """Each message has the machine to itself."""
        for _ in range(_EXCHANGES_PER_BLOCK):
            sent_ns = time.monotonic_ns()
            arrived_ns, replied_ns = await self._answer(end, case)
            samples.one_way_ms.append((arrived_ns - sent_ns) / 1e6)
            samples.round_trip_ms.append((replied_ns - sent_ns) / 1e6)
            await asyncio.sleep(_PAUSE_S)

    async def burst(self, end: NearEnd, case: Case, samples: _Samples) -> None:
        """From the first message's sending to the last one's arrival."""
        window = asyncio.Semaphore(_WINDOW)

        async def one() -> int:
            arrived_ns, _ = await self._answer(end, case, window)
            return arrived_ns

        began_ns = time.monotonic_ns()
        arrivals_ns = await asyncio.gather(*(one() for _ in range(_BURST)))
        samples.burst_s.append((max(arrivals_ns) - began_ns) / 1e9)

    async def _answer(self, end: NearEnd, case: Case, window: asyncio.Semaphore | None = None) -> tuple[int, int]:
        number = next(self._numbers)
        answer = self._awaited[number] = asyncio.get_running_loop().create_future()
        async with window or nullcontext():
            await end.send(case, number)
        try:
            return await asyncio.wait_for(answer, _PATIENCE_S)
        except TimeoutError:
            raise BusError(
                f"{end.name} got no reply to a {case.topic} within {_PATIENCE_S:.0f} s: is the machine overloaded?"
            ) from None


@asynccontextmanager
async def _far_ends(url: str) -> AsyncIterator[None]:
    """The process with the far ends; whatever it has to say goes to stderr."""
    far = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "roadside.benchmarks.bus_far", _FLEET),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {BROKER_VARIABLE: url},
        start_new_session=True,
    )
    assert far.stdin is not None
    assert far.stdout is not None
    try:
        if (await far.stdout.readline()).decode().strip() != READY:
            raise BusError("the far end of the bench did not start: see what it said above")
        yield
    finally:
        far.stdin.close()
        await far.wait()
