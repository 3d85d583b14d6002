"""A fleet that only talks: every member a connection of its own, no model, no camera, no decision.

What it says has the shape and size of what a real one says, at rates that this machine's models could not reach: it is
the load of `roadside bench ui`, and stands in for a fleet in the live page's tests.

    python -P -m roadside.benchmarks.synthetic_fleet BROKER FLEET VEHICLES RATE_HZ
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw

from ..bus import topics
from ..bus.errors import OutboxFull
from ..bus.kinds import KINDS, TaskKind
from ..bus.messages import (
    Accepted,
    Candidate,
    Decision,
    Frame,
    Load,
    Message,
    NodeState,
    Outcome,
    Result,
    TaskState,
    Timing,
    Truth,
)
from ..bus.parent import end_with_parent
from ..bus.places import Place
from ..bus.topics import Topic
from ..bus.transport import Bus
from ..datasets.jpeg import encode_jpeg
from ..policy.features import FEATURES

_FRAME_EVERY = 4  # tasks of a vehicle
_STATE_EVERY_S = 1.0
_FALLBACK_SHARE = 0.03
_RIGHT_SHARE = 0.9
_PICTURE_PX = (640, 360)
_PICTURES = 13  # different ones
_ANSWERS = (
    ("the car slows down", "because the light ahead is red ."),
    ("the car stops", "since a pedestrian crosses the road ."),
    ("the car keeps its speed", "as the road ahead is clear ."),
    ("the car moves to the left lane", "because a truck stands on the right ."),
)


@dataclass(frozen=True, slots=True)
class SyntheticFleet:
    """rate_hz: mean tasks per second of each vehicle. words: instead of the usual answers."""

    vehicles: int = 4
    edges: int = 4
    clouds: int = 2
    rate_hz: float = 2.0
    seed: int = 0
    words: tuple[tuple[str, str], ...] = _ANSWERS

    @asynccontextmanager
    async def talking(self, broker: str, fleet: str) -> AsyncIterator[None]:
        """Talk until the block ends."""
        async with AsyncExitStack() as stack:

            async def joined(name: str) -> Bus:
                return await stack.enter_async_context(Bus(url=broker, fleet=fleet, name=name))

            async def all_joined(role: str, count: int) -> list[Bus]:
                return await asyncio.gather(*(joined(f"{role}-{number}") for number in range(1, count + 1)))

            nodes = [_Node(bus, "edge") for bus in await all_joined("edge", self.edges)]
            nodes += [_Node(bus, "cloud") for bus in await all_joined("cloud", self.clouds)]
            vehicles = [
                _Vehicle(self, bus, nodes, random.Random(f"{self.seed}/{bus.name}"))
                for bus in await all_joined("vehicle", self.vehicles)
            ]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(member.talk()) for member in (*nodes, *vehicles)]
                yield
                for task in tasks:
                    task.cancel()


class _Node:
    def __init__(self, bus: Bus, tier: Place) -> None:
        self.bus = bus
        self.tier: Place = tier
        self.load = Load(queued=0, running=1, slots=1, wait_ms=12.0, service_ms={tier: {"explain": 40.0}})
        self._answers = 0

    async def talk(self) -> None:
        started_s = time.monotonic()
        while True:
            state = NodeState(
                node=self.bus.name,
                role="edge" if self.tier == "edge" else "cloud",
                alive=True,
                places=(self.tier,),
                model="synthetic",
                load=self.load,
                uptime_s=time.monotonic() - started_s,
                event_loop_lag_ms=3.0,
                memory_bytes=430_000_000,
                counters={"answers_sent": self._answers, "published": 2 * self._answers},
            )
            _say(self.bus, topics.NODE_STATE, state)
            await asyncio.sleep(_STATE_EVERY_S / 2)

    def take(self, vehicle: str, task_id: str) -> None:
        _say(self.bus, topics.ACK, Accepted(task_id=task_id, attempt=1, load=self.load), vehicle=vehicle)

    def answer(self, vehicle: str, task_id: str, text: str, made_by: tuple[str, ...], *, final: bool) -> None:
        self._answers += final
        _say(
            self.bus,
            topics.RESULT,
            Result(
                task_id=task_id,
                attempt=1,
                final=final,
                text=text,
                place=self.tier,
                mode="full",
                model="synthetic",
                made_by=made_by,
                confidence=0.9,
                timing=Timing(queue_ms=8.0, inference_ms=35.0),
                energy_j=1.2,
                energy_method="modelled",
                load=self.load,
            ),
            vehicle=vehicle,
        )


class _Vehicle:
    def __init__(self, fleet: SyntheticFleet, bus: Bus, nodes: list[_Node], rng: random.Random) -> None:
        self._fleet = fleet
        self._bus = bus
        self._nodes = nodes
        self._rng = rng
        self._tasks = 0

    async def talk(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_state())
            while True:
                await asyncio.sleep(self._rng.expovariate(self._fleet.rate_hz))
                self._tasks += 1
                if self._tasks % _FRAME_EVERY == 1:
                    _say(self._bus, topics.FRAME, self._frame())
                group.create_task(self._ask(f"{self._bus.name}-{self._bus.boot_id[:6]}-{self._tasks:06d}"))

    async def _tell_state(self) -> None:
        while True:
            state = NodeState(node=self._bus.name, role="vehicle", alive=True, places=("vehicle",), model="narrator")
            _say(self._bus, topics.VEHICLE_STATE, state)
            await asyncio.sleep(_STATE_EVERY_S)

    async def _ask(self, task_id: str) -> None:
        """One task: taken, answered for now, answered, ended."""
        created_at_s, created_s = time.time(), time.monotonic()
        kind = self._rng.choice(list(KINDS.values()))
        node = self._rng.choice(self._nodes)
        action, reason = self._rng.choice(self._fleet.words)
        text = f"{action} {reason}"
        tokens = len(text.split()) + 1
        made_by = tuple(self._rng.choice(("exit1", "exit2", "full")) for _ in range(tokens))
        node.take(self._bus.name, task_id)
        await asyncio.sleep(0.03)
        fell_back = self._rng.random() < _FALLBACK_SHARE
        if not fell_back:
            node.answer(self._bus.name, task_id, text, made_by, final=False)
            await asyncio.sleep(0.05)
            node.answer(self._bus.name, task_id, text, made_by, final=True)
        latency_ms = (time.monotonic() - created_s) * 1000
        _say(
            self._bus,
            topics.OUTCOME,
            self._outcome(task_id, kind, node, text, made_by, created_at_s, latency_ms, fell_back=fell_back),
        )

    def _outcome(
        self,
        task_id: str,
        kind: TaskKind,
        node: _Node,
        text: str,
        made_by: tuple[str, ...],
        created_at_s: float,
        latency_ms: float,
        *,
        fell_back: bool,
    ) -> Outcome:
        right = self._rng.random() < _RIGHT_SHARE
        action, _, reason = text.partition(" because ")
        state: TaskState = "fallback" if fell_back else "result"
        return Outcome(
            task_id=task_id,
            kind=kind.name,
            state=state,
            reason="no answer in time" if fell_back else "",
            text=text,
            created_at_s=created_at_s,
            deadline_ms=kind.deadline_ms,
            requested=node.tier,
            place="vehicle" if fell_back else node.tier,
            node=self._bus.name if fell_back else node.bus.name,
            mode="narrator" if fell_back else "full",
            accepted=True,
            attempts=1,
            latency_ms=kind.deadline_ms - 25 if fell_back else latency_ms,
            first_answer_ms=kind.deadline_ms - 25 if fell_back else latency_ms / 2,
            network_ms=self._rng.uniform(3, 25),
            timing=Timing(queue_ms=self._rng.uniform(0, 20), inference_ms=self._rng.uniform(25, 45)),
            energy_j=self._rng.uniform(0.8, 2.5),
            energy_method="modelled",
            clip="synthetic",
            moment_s=self._tasks / 2,
            decision=self._decision(node),
            made_by=() if fell_back else made_by,
            truth=Truth(action, reason, right, right),
        )

    def _decision(self, node: _Node) -> Decision:
        candidates = [self._candidate(self._bus.name, "vehicle", "below the quality floor")]
        candidates += [self._candidate(each.bus.name, each.tier, "") for each in self._nodes]
        return Decision(
            policy="synthetic",
            chosen=1 + self._nodes.index(node),
            propensity=1.0,
            reason="drawn",
            candidates=tuple(candidates),
        )

    def _candidate(self, node: str, place: Place, masked: str) -> Candidate:
        return Candidate(
            node=node,
            place=place,
            score=self._rng.uniform(-0.2, 0.8),
            latency_ms=self._rng.uniform(40, 120),
            energy_j=self._rng.uniform(0.5, 2.5),
            quality=self._rng.uniform(0.6, 0.99),
            masked=masked,
            features=tuple(self._rng.uniform(0, 1) for _ in FEATURES),
        )

    def _frame(self) -> Frame:
        speed_kmh = 40 + 10 * (self._tasks % 3)
        return Frame(
            clip="synthetic",
            moment_s=self._tasks / 2,
            jpeg=_picture(self._tasks % _PICTURES),
            telemetry={"Vehicle.Speed": float(speed_kmh)},
        )


def _say(bus: Bus, topic: Topic, body: Message, vehicle: str | None = None) -> None:
    """Say it, unless a thousand messages wait already: a machine that is too busy hears less, and the fleet goes on."""
    with contextlib.suppress(OutboxFull):
        if vehicle is None:
            bus.post(topic, body)
        else:
            bus.post(topic, body, vehicle=vehicle)


@cache
def _picture(number: int) -> bytes:
    """A JPEG of a road and a car on it, the farther to the right the higher its number."""
    width, height = _PICTURE_PX
    picture = Image.effect_noise(_PICTURE_PX, 12).convert("RGB")
    drawing = ImageDraw.Draw(picture)
    drawing.rectangle((0, height // 2, width, height), fill=(70, 72, 75))
    left = width * number // _PICTURES
    drawing.rectangle((left, height // 2 + 20, left + 90, height // 2 + 70), fill=(190, 40, 40))
    return encode_jpeg(picture, 80)


async def _talk(broker: str, fleet: str, vehicles: int, rate_hz: float) -> None:
    stop = asyncio.Event()
    end_with_parent(stop.set)
    async with SyntheticFleet(vehicles=vehicles, rate_hz=rate_hz).talking(broker, fleet):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_talk(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
