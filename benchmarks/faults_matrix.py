"""The faults that a fleet is put through: wait for a step of a task's way, break something, mend it.

What is drawn (whom it hits, at which step, for how long) comes from the scene's random numbers alone, so that a seed
says all of it; at which moment the step comes is the fleet's own business.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from ..bus.link import Direction
from ..bus.mqtt_packets import Packet
from ..qos.history import Event
from .faults_fleet import CLOUD, CONTEXT_TTL_S, EDGES, FLEET, NODES, RECORDER, VEHICLES, FaultFleet
from .faults_traffic import Addressees, overload, poison

_STEP_TIMEOUT_S = 4.0
_LONGEST_DEADLINE_S = 4.0
_SKEWS_S = (-600.0, 600.0)
_PLACING = ("task.created", "task.placed", "task.sent", "task.acknowledged", "answer.received", "provisional.shown")
_AT_EDGE = ("task.received", "task.admitted", "computing.began", "answer.published")


@dataclass(slots=True)
class Scene:
    """One fault under way. Times: seconds of the monotonic clock.

    broken_s, mended_s: when it began, and when whatever was broken was whole again, or as whole as it will be.
    target, step: whom it hits, and where that stood. recovers: an event that says that the fleet, or the one that was
    hit, does again what it did before.
    """

    fleet: FaultFleet
    draw: random.Random
    broken_s: float = 0.0
    mended_s: float = 0.0
    target: str = ""
    step: str = ""
    recovers: Callable[[Event], bool] = field(default=lambda event: False)

    def breaks(self, target: str, step: str = "") -> None:
        self.target, self.step = target, step or self.step
        self.broken_s = self.mended_s = time.monotonic()

    def mends(self) -> None:
        self.mended_s = time.monotonic()

    def hold_s(self, least: float, most: float) -> float:
        return self.draw.uniform(least, most)

    async def at(self, process: str, step: str) -> None:
        """Wait for a step of somebody's; go on without it where it does not come."""
        await self.fleet.back(process)
        now_s = time.monotonic()
        event = await self.fleet.until(
            lambda each: each.process == process and each.name == step, since_s=now_s, timeout_s=_STEP_TIMEOUT_S
        )
        self.step = f"{process} {step}" if event is not None else "none came"

    async def still_at(self, process: str, step: str) -> bool:
        """Have a process stand still at a step, exactly there."""
        await self.fleet.back(process)
        stands = await self.fleet.stand_still_at(process, step, timeout_s=_STEP_TIMEOUT_S)
        if not stands:
            self.fleet.stop(process)
        self.breaks(process, f"{process} {step}" if stands else "none came")
        return stands


Inject = Callable[[Scene], Awaitable[None]]


async def _broker_killed(scene: Scene) -> None:
    await _at_any_step(scene)
    scene.breaks("broker")
    await scene.fleet.kill_broker()
    await asyncio.sleep(scene.hold_s(0.1, 1.0))
    await scene.fleet.broker.start()
    scene.mends()


async def _broker_restarted(scene: Scene) -> None:
    await _at_any_step(scene)
    scene.breaks("broker")
    await scene.fleet.broker.stop()
    await scene.fleet.broker.start()
    scene.mends()


async def _edge_killed(scene: Scene) -> None:
    edge = scene.draw.choice(EDGES)
    await scene.fleet.back(*EDGES)  # one has to go on
    # Uploaded and not asked yet; in the middle of an answer; before and after its ACK.
    await scene.still_at(edge, scene.draw.choice(("context.sent", "token.wanted", *_AT_EDGE)))
    await scene.fleet.kill(edge)
    scene.mends()
    scene.fleet.come_back(edge)
    await asyncio.sleep(CONTEXT_TTL_S)


async def _cloud_killed(scene: Scene) -> None:
    await scene.still_at(CLOUD, scene.draw.choice(("context.opened", "context.stored", "token.asked", "token.said")))
    await scene.fleet.kill(CLOUD)
    scene.mends()
    scene.recovers = _goes_on_alone
    scene.fleet.come_back(CLOUD)


async def _edge_cloud_cut(scene: Scene) -> None:
    await scene.at(CLOUD, "token.asked")
    scene.breaks(CLOUD)
    scene.recovers = _goes_on_alone
    scene.fleet.links[CLOUD].cut()
    await asyncio.sleep(scene.hold_s(0.6, 1.5))
    scene.fleet.links[CLOUD].heal()


async def _edge_cloud_black_hole(scene: Scene) -> None:
    await scene.at(CLOUD, "token.asked")
    scene.breaks(CLOUD)
    scene.recovers = _goes_on_alone
    scene.fleet.links[CLOUD].black_hole()
    await asyncio.sleep(scene.hold_s(0.8, 2.0))
    scene.fleet.links[CLOUD].heal()


async def _black_hole(scene: Scene) -> None:
    name = scene.draw.choice((*VEHICLES, *EDGES))
    await scene.at(name, scene.draw.choice(_PLACING if name in VEHICLES else _AT_EDGE))
    scene.breaks(name)
    scene.fleet.links[name].black_hole()
    await asyncio.sleep(scene.hold_s(0.3, 2.5))
    scene.fleet.links[name].heal()
    scene.mends()


async def _reset(scene: Scene) -> None:
    name = scene.draw.choice((*VEHICLES, *NODES, RECORDER))
    await _at_any_step(scene)
    scene.breaks(name)
    for _ in range(scene.draw.randint(1, 3)):
        scene.fleet.links[name].reset()
        await asyncio.sleep(scene.hold_s(0.0, 0.4))
    scene.mends()


async def _vehicle_reconnects(scene: Scene) -> None:
    vehicle = scene.draw.choice(VEHICLES)
    await scene.at(vehicle, scene.draw.choice(_PLACING))
    scene.breaks(vehicle)
    scene.fleet.links[vehicle].cut()
    # Longer than some tasks have, so that the broker keeps answers that nobody may see any more.
    await asyncio.sleep(scene.hold_s(0.3, 2.5))
    scene.fleet.links[vehicle].heal()
    scene.mends()
    scene.recovers = _answered_vehicle(scene)


async def _slow_consumer(scene: Scene) -> None:
    name = scene.draw.choice((*VEHICLES, *EDGES, RECORDER))
    scene.breaks(name)
    scene.fleet.links[name].hold("downlink")
    await asyncio.sleep(scene.hold_s(0.5, 2.0))
    scene.fleet.links[name].heal()
    scene.mends()


async def _duplicate(scene: Scene) -> None:
    def twice(name: str, direction: Direction, packet: Packet) -> Iterable[bytes]:
        del name, direction
        again = packet.topic and scene.draw.random() < 0.3
        return [packet.raw, packet.raw] if again else [packet.raw]

    await _tampered(scene, twice)


async def _reorder(scene: Scene) -> None:
    held: dict[tuple[str, Direction], bytes] = {}

    def overtaken(name: str, direction: Direction, packet: Packet) -> Iterable[bytes]:
        waiting = held.pop((name, direction), None)
        if waiting is not None:
            return [packet.raw, waiting]
        if packet.topic and scene.draw.random() < 0.3:
            # Until the next one of the same way; what never follows counts as lost.
            held[name, direction] = packet.raw
            return []
        return [packet.raw]

    await _tampered(scene, overtaken)


async def _missing_chunk(scene: Scene) -> None:
    def lost(name: str, direction: Direction, packet: Packet) -> Iterable[bytes]:
        is_chunk = "/context/" in packet.topic and name in EDGES and direction == "uplink"
        return [] if is_chunk and scene.draw.random() < 0.3 else [packet.raw]

    await _tampered(scene, lost)


async def _tampered(scene: Scene, tamperer: Callable[[str, Direction, Packet], Iterable[bytes]]) -> None:
    scene.breaks("all links")
    scene.fleet.tamperer = tamperer
    await asyncio.sleep(scene.hold_s(1.0, 2.0))
    scene.fleet.tamperer = None
    scene.mends()


async def _clock_skew(scene: Scene) -> None:
    """From here on: the process keeps its wrong clock, so that later faults meet it as well."""
    name = scene.draw.choice((*VEHICLES, *NODES))
    skew_s = scene.draw.choice(_SKEWS_S)
    await scene.fleet.back(name, *EDGES)
    scene.breaks(name, f"wall clock {skew_s:+.0f} s")
    await scene.fleet.end(name)
    scene.fleet.come_back(name, skew_s=skew_s)
    await scene.fleet.back(name)
    scene.mends()
    await asyncio.sleep(0.5)


async def _poison(scene: Scene) -> None:
    await asyncio.sleep(1.0)  # what went well before, to compare with
    scene.breaks("everybody")
    everybody = Addressees(FLEET, VEHICLES, EDGES, CLOUD)
    await poison(scene.fleet.broker.url, everybody, scene.draw, for_s=scene.hold_s(1.0, 1.5))
    scene.mends()


async def _stopped(scene: Scene, name: str, steps: tuple[str, ...], most_s: float) -> None:
    await scene.still_at(name, scene.draw.choice(steps))
    await asyncio.sleep(scene.hold_s(0.2, most_s))
    scene.fleet.go_on(name)
    scene.mends()


async def _edge_stopped(scene: Scene) -> None:
    await _stopped(scene, scene.draw.choice(EDGES), ("token.wanted", *_AT_EDGE), 3.0)


async def _cloud_stopped(scene: Scene) -> None:
    await _stopped(scene, CLOUD, ("context.stored", "token.asked", "token.said"), 2.0)
    scene.mended_s = scene.broken_s
    scene.recovers = _goes_on_alone


async def _vehicle_stopped(scene: Scene) -> None:
    await _stopped(scene, scene.draw.choice(VEHICLES), _PLACING, 3.0)
    scene.recovers = _answered_vehicle(scene)


async def _vehicle_killed(scene: Scene) -> None:
    vehicle = scene.draw.choice(VEHICLES)
    await scene.still_at(vehicle, scene.draw.choice((*_PLACING, "task.ended")))
    await scene.fleet.kill(vehicle)
    scene.fleet.come_back(vehicle)
    await scene.fleet.back(vehicle)
    scene.mends()
    scene.recovers = _answered_vehicle(scene)


async def _journal_disk_full(scene: Scene) -> None:
    fleet, vehicle = scene.fleet, scene.draw.choice(VEHICLES)
    assert fleet.disk is not None
    # Both keep their journals on it.
    scene.breaks(vehicle)
    for _ in range(10):
        fleet.disk.fill(fleet.run.journal_path(vehicle))
        refused = await fleet.until(
            lambda event: event.name == "narrated.only", since_s=scene.broken_s, timeout_s=scene.hold_s(0.5, 1.0)
        )
        if refused is not None:
            scene.step = f"{refused.process} {refused.name}"
            break
    fleet.disk.free()
    scene.mends()


async def _past_deadline(scene: Scene) -> None:
    """An edge stands still over the deadline of what it computes and of what waits there."""
    await scene.still_at(scene.draw.choice(EDGES), "computing.began")
    await asyncio.sleep(_LONGEST_DEADLINE_S + 0.2)
    scene.fleet.go_on(scene.target)
    scene.mends()


async def _two_answers(scene: Scene) -> None:
    """What an edge says is held back until its tasks were asked of the other as well; then both answer."""
    edge = scene.draw.choice(EDGES)
    await scene.fleet.back(*EDGES)
    await scene.at(edge, "task.admitted")
    scene.breaks(edge)
    scene.fleet.links[edge].hold("uplink")
    await scene.fleet.until(
        lambda event: event.name == "task.placed" and event.fields["attempt"] > 1,
        since_s=scene.broken_s,
        timeout_s=scene.hold_s(1.5, 2.5),
    )
    scene.fleet.links[edge].heal()
    scene.mends()


async def _overload(scene: Scene) -> None:
    scene.breaks("edges")
    await overload(scene.fleet.broker.url, EDGES, for_s=scene.hold_s(1.0, 2.0))
    scene.mends()


async def _at_any_step(scene: Scene) -> None:
    process, step = scene.draw.choice(
        [(VEHICLES[0], "task.sent"), (VEHICLES[1], "task.acknowledged"), (CLOUD, "context.stored")]
        + [(edge, step) for edge in EDGES for step in ("computing.began", "answer.published")]
    )
    await scene.at(process, step)


def _goes_on_alone(event: Event) -> bool:
    return event.name == "cloud.gone"


def _answered_vehicle(scene: Scene) -> Callable[[Event], bool]:
    return lambda event: event.process == scene.target and event.name == "task.ended" and is_answer_of_a_node(event)


def is_answer_of_a_node(event: Event) -> bool:
    return event.name == "task.ended" and event.fields["state"] == "result" and event.fields["node"] != event.process


FAULTS: dict[str, Inject] = {
    "broker-killed": _broker_killed,
    "broker-restarted": _broker_restarted,
    "edge-killed": _edge_killed,
    "cloud-killed": _cloud_killed,
    "edge-cloud-cut": _edge_cloud_cut,
    "edge-cloud-black-hole": _edge_cloud_black_hole,
    "black-hole": _black_hole,
    "reset": _reset,
    "vehicle-reconnects": _vehicle_reconnects,
    "slow-consumer": _slow_consumer,
    "duplicate": _duplicate,
    "reorder": _reorder,
    "missing-chunk": _missing_chunk,
    "clock-skew": _clock_skew,
    "poison": _poison,
    "edge-stopped": _edge_stopped,
    "cloud-stopped": _cloud_stopped,
    "vehicle-stopped": _vehicle_stopped,
    "vehicle-killed": _vehicle_killed,
    "journal-disk-full": _journal_disk_full,
    "past-deadline": _past_deadline,
    "two-answers": _two_answers,
    "overload-2x": _overload,
}


def fault_of(seed: int, faults: tuple[str, ...]) -> str:
    """Consecutive seeds go through all the faults, in an order that is drawn anew for each round."""
    round_number, index = divmod(seed, len(faults))
    return random.Random(f"round {round_number}").sample(faults, len(faults))[index]
