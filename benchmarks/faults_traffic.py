"""What nobody should send: messages that are none of ours, and more tasks than two edges can answer."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import aiomqtt

from ..bus import codec, topics
from ..bus.connection import BrokerAddress
from ..bus.kinds import DESCRIBE
from ..bus.messages import SCHEMA_VERSION, CloseContext, Envelope, Task
from ..bus.transport import Bus
from ..datasets.jpeg import encode_jpeg
from ..datasets.samples import make_sample
from .faults_fleet import FLEET

POISON_PER_S = 60.0
_SCENE_SEED = 4_300_000


@dataclass(frozen=True, slots=True)
class Addressees:
    """Who is to be poisoned."""

    fleet: str
    vehicles: Sequence[str]
    edges: Sequence[str]
    cloud: str


async def poison(
    url: str, addressees: Addressees, draw: random.Random, *, for_s: float, per_s: float = POISON_PER_S
) -> None:
    """Publish what cannot be read, on every address that somebody listens to, `per_s` times a second."""
    address = BrokerAddress.parse(url)
    until_s = time.monotonic() + for_s
    stranger = f"stranger-{uuid.uuid4().hex[:8]}"
    async with aiomqtt.Client(address.host, address.port, identifier=stranger) as client:
        while time.monotonic() < until_s:
            await client.publish(_inbox(addressees, draw), _poisoned(draw), qos=draw.randint(0, 1))
            await asyncio.sleep(1 / per_s)


def _inbox(addressees: Addressees, draw: random.Random) -> str:
    vehicle, edge, cloud = draw.choice(addressees.vehicles), draw.choice(addressees.edges), addressees.cloud
    topic, names = draw.choice(
        [
            (topics.TASK, {"node": edge, "vehicle": vehicle}),
            (topics.ACK, {"vehicle": vehicle, "node": edge}),
            (topics.RESULT, {"vehicle": vehicle, "node": edge}),
            (topics.NODE_STATE, {"node": edge}),
            (topics.CONTEXT, {"node": cloud, "edge": edge}),
            (topics.INFER, {"node": cloud, "edge": edge}),
            (topics.TOKEN, {"edge": edge, "node": cloud}),
            (topics.OUTCOME, {"vehicle": vehicle}),
        ]
    )
    return topic.address(addressees.fleet, **names)


def _poisoned(draw: random.Random) -> bytes:
    body = CloseContext(session=f"{draw.getrandbits(128):032x}.1")
    good = codec.encode(Envelope(SCHEMA_VERSION, "mallory", "boot", 1, 0.0, body))
    cut = draw.randrange(1, len(good))
    kind = draw.randrange(6)
    if kind == 0:
        return draw.randbytes(draw.randrange(0, 4096))
    if kind == 1:
        return good[:cut]
    if kind == 2:
        return good + draw.randbytes(3)
    if kind == 3:
        return b"\x91" * 5000  # arrays in arrays
    if kind == 4:
        return b"\xc6\xff\xff\xff\xff"  # so many bytes to come, it says
    return good[:cut] + bytes([good[cut] ^ 1 << draw.randrange(8)]) + good[cut + 1 :]


async def overload(url: str, nodes: Sequence[str], *, for_s: float, tasks_per_s: float = 30.0) -> None:
    """Ask nodes for more than they can answer, as somebody else's vehicle; tasks_per_s: of each node."""
    sample = make_sample(_SCENE_SEED)
    jpeg = encode_jpeg(sample.image, 85)
    until_s = time.monotonic() + for_s
    async with Bus(url=url, fleet=FLEET, name="vehicle-crowd") as bus:
        for number in itertools.count():
            if time.monotonic() >= until_s:
                return
            for node in nodes:
                task = Task(
                    task_id=f"crowd-{bus.boot_id}-{number}",
                    attempt=1,
                    kind=DESCRIBE.name,
                    prompt=DESCRIBE.prompt,
                    frames=(jpeg,),
                    telemetry=sample.telemetry,
                    deadline_ms=DESCRIBE.deadline_ms,
                    remaining_ms=DESCRIBE.deadline_ms,
                    qos_floor=0.0,
                    place="edge",
                    max_tokens=DESCRIBE.max_tokens,
                )
                bus.post(topics.TASK, task, perishable=True, node=node)
            await asyncio.sleep(1 / tasks_per_s)
