"""A bus on a live broker, of both kinds, behind a link that is slow, cut, reset or choppy."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.link import LinkShape
from roadside.bus.messages import NodeState, Task
from roadside.bus.shaping_proxy import ShapingProxy
from roadside.bus.transport import Bus

# Nothing here waits by the clock, except where what is waited for must not come; this only ends a test that would hang.
PATIENCE_S = 25.0
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)


def task(number: int, frame: bytes = b"\xff\xd8\xff\xd9") -> Task:
    return Task(
        task_id=f"t-{number}",
        attempt=1,
        kind="hazard",
        prompt="what must the driver react to ?",
        frames=(frame,),
        telemetry={"Vehicle.Speed": 48.5},
        deadline_ms=700.0,
        remaining_ms=650.0,
        qos_floor=0.5,
        place="edge",
    )


async def until(condition: Callable[[], object]) -> None:
    """Give the event loop time until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - conditions of every kind, few of which have an event
            await asyncio.sleep(0.01)


async def test_publishing_over_a_link_takes_its_round_trip_and_its_rate(broker: Broker, fleet: str):
    shape = LinkShape(uplink=8e6, downlink=8e6, round_trip=100.0)
    async with ShapingProxy(broker.url, shape) as proxy, Bus(url=proxy.url, fleet=fleet, name="car-1") as car:
        started_s = time.monotonic()
        await car.publish(topics.TASK, task(1, os.urandom(100_000)), node="edge-1")
        took_s = time.monotonic() - started_s
        assert proxy.counters["uplink_bytes"] > 100_000
    # Up: 100 ms of sending and 50 ms of way; down, the acknowledgement: 50 ms.
    assert took_s >= 0.200


async def test_messages_in_odd_pieces_are_the_same_messages(broker: Broker, fleet: str):
    async with (
        ShapingProxy(broker.url, LinkShape(), seed=5) as proxy,
        Bus(url=broker.url, fleet=fleet, name="edge-1") as edge,
    ):
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        proxy.slice(largest_bytes=40)
        async with Bus(url=proxy.url, fleet=fleet, name="car-1") as car:
            sent = [task(number, os.urandom(2_000)) for number in range(5)]
            for each in sent:
                await car.publish(topics.TASK, each, node="edge-1")
            assert [(await anext(tasks)).body for _ in sent] == sent
        assert edge.counters["received"] == len(sent)


async def test_after_a_black_hole_everything_that_was_sent_into_it_arrives(broker: Broker, fleet: str):
    async with (
        ShapingProxy(broker.url, LinkShape()) as proxy,
        Bus(url=broker.url, fleet=fleet, name="edge-1") as edge,
        Bus(url=proxy.url, fleet=fleet, name="car-1", keepalive_s=1, timeout_s=1.0) as car,
    ):
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        await car.publish(topics.TASK, task(0), node="edge-1")
        assert (await anext(tasks)).body.task_id == "t-0"
        proxy.black_hole()
        for number in range(1, 31):
            car.post(topics.TASK, task(number), node="edge-1")
        # Nobody tells the car: it notices by the silence.
        await until(lambda: not car.connected.is_set())
        assert len(tasks) == 0
        proxy.heal()
        arrived: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(arrived) < 30:
                arrived.add((await anext(tasks)).body.task_id)
        assert arrived == {f"t-{number}" for number in range(1, 31)}
        assert car.counters["reconnects"] >= 1


async def test_resets_lose_nothing_that_was_accepted(broker: Broker, fleet: str):
    async with (
        ShapingProxy(broker.url, LinkShape(uplink=4e6, downlink=4e6, round_trip=10.0)) as proxy,
        Bus(url=broker.url, fleet=fleet, name="edge-1") as edge,
        Bus(url=proxy.url, fleet=fleet, name="car-1") as car,
    ):
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        arrived: set[str] = set()
        for life in range(3):
            for number in range(20 * life, 20 * (life + 1)):
                car.post(topics.TASK, task(number, os.urandom(4_000)), node="edge-1")
            # In the midst of them: some have arrived, some are on their way, some wait.
            async with asyncio.timeout(PATIENCE_S):
                while len(arrived) < 20 * life + 5:
                    arrived.add((await anext(tasks)).body.task_id)
            proxy.reset()
        async with asyncio.timeout(PATIENCE_S):
            while len(arrived) < 60:
                arrived.add((await anext(tasks)).body.task_id)
        assert arrived == {f"t-{number}" for number in range(60)}
        await until(lambda: car.counters["reconnects"] == 3)


async def test_a_reset_link_brings_the_last_will(broker: Broker, fleet: str):
    def state(alive: bool) -> NodeState:
        return NodeState(node="edge-1", role="edge", alive=alive)

    async with ShapingProxy(broker.url, LinkShape()) as proxy, Bus(url=broker.url, fleet=fleet, name="car-1") as car:
        states = car.subscribe(topics.NODE_STATE)
        await states.active.wait()
        async with Bus(url=proxy.url, fleet=fleet, name="edge-1", will=(topics.NODE_STATE, state(False))) as edge:
            await edge.publish(topics.NODE_STATE, state(True))
            assert (await anext(states)).body.alive
            proxy.reset()
            assert not (await anext(states)).body.alive
            # It comes back and says so.
            assert (await anext(states)).body.alive
