"""An edge and a cloud whose link cuts, slices and swallows what they say to each other: the answer comes in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.kinds import EXPLAIN
from roadside.bus.link import LinkShape
from roadside.bus.messages import NodeState, Result, Task
from roadside.bus.shaping_proxy import ShapingProxy
from roadside.bus.transport import Bus
from roadside.cloud_node import node as cloud_node
from roadside.cloud_node.configuration import CloudConfiguration
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.samples import make_sample
from roadside.edge_node import node as edge_node
from roadside.edge_node.configuration import EdgeConfiguration
from roadside.models.answering import cloud_answerer
from roadside.models.questions import Answer, Question, answer_at_once

pytestmark = pytest.mark.timeout(240)
NEVER_SURE = (1.1, 1.1)
DEADLINE_MS = 30_000.0


def task(number: int) -> Task:
    sample = make_sample(4_300_100 + number)
    return Task(
        task_id=f"task-{number}",
        attempt=1,
        kind=EXPLAIN.name,
        prompt=EXPLAIN.prompt,
        frames=(encode_jpeg(sample.image, 85),),
        telemetry=sample.telemetry,
        deadline_ms=DEADLINE_MS,
        remaining_ms=DEADLINE_MS,
        qos_floor=0.0,
        place="edge+cloud",
        max_tokens=EXPLAIN.max_tokens,
        exit_thresholds=NEVER_SURE,
    )


@pytest.fixture(scope="module")
def whole() -> Any:
    return cloud_answerer(None)


def unsplit(whole: Any, asked: Task) -> Answer:
    question = Question(asked.prompt, asked.frames, asked.telemetry, max_tokens=asked.max_tokens)
    return answer_at_once(whole, question)


class Watched:
    """A vehicle's view. counters: of each node, as it last told them."""

    def __init__(self, bus: Bus, proxy: ShapingProxy) -> None:
        self.bus = bus
        self.proxy = proxy
        self.states: dict[str, NodeState] = {}
        self.results = bus.subscribe(topics.RESULT, vehicle=bus.name)
        self.requests = bus.subscribe(topics.INFER, limit=10_000)
        self._heard = asyncio.Condition()

    async def listen(self) -> None:
        async for received in self.bus.subscribe(topics.NODE_STATE):
            async with self._heard:
                self.states[received.body.node] = received.body
                self._heard.notify_all()

    async def until(self, node: str, holds: Any) -> None:
        async with asyncio.timeout(90), self._heard:
            await self._heard.wait_for(lambda: node in self.states and holds(self.states[node]))

    async def until_together(self) -> None:
        await self.until("edge-1", lambda state: state.alive and "edge+cloud" in state.places)

    async def ask(self, asked: Task) -> Result:
        await self.bus.publish(topics.TASK, asked, node="edge-1")
        async with asyncio.timeout(60):
            async for received in self.results:
                if received.body.final and received.body.task_id == asked.task_id:
                    return received.body
        raise AssertionError("the subscription ended")

    async def cut_after(self, requests: int) -> None:
        """Swallow everything between broker and cloud once the edge has asked so often."""
        while len(self.requests):
            await anext(self.requests)
        for _ in range(requests):
            await anext(self.requests)
        self.proxy.black_hole()


@asynccontextmanager
async def over_a_link(broker: Broker, fleet: str, **edge_settings: Any) -> AsyncIterator[Watched]:
    """The cloud is behind the link; edge and vehicle are not."""
    stop = asyncio.Event()
    shape = LinkShape(uplink=100e6, downlink=100e6, round_trip=4.0)
    async with ShapingProxy(broker.url, shape) as proxy, Bus(url=broker.url, fleet=fleet, name="car-1") as bus:
        watched = Watched(bus, proxy)
        edge = EdgeConfiguration(broker=broker.url, fleet=fleet, **edge_settings)
        cloud = CloudConfiguration(broker=proxy.url, fleet=fleet)
        listening = asyncio.create_task(watched.listen())
        running = [asyncio.create_task(edge_node.run(edge, stop)), asyncio.create_task(cloud_node.run(cloud, stop))]
        await watched.until_together()
        yield watched
        stop.set()
        await asyncio.wait_for(asyncio.gather(*running), 60)
        listening.cancel()


@pytest.mark.parametrize(
    "mode", ["through", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("ce", "ce-optimistic", "cloud"))]
)
async def test_a_link_that_swallows_everything_for_five_seconds_costs_no_answer(
    best_broker: Broker, fleet: str, whole: Any, mode: str
) -> None:
    settings = {"mode": mode, "prompt_upload": "image" if mode == "cloud" else "hidden"}
    async with over_a_link(best_broker, fleet, **settings) as nodes:
        asked = task(0)
        cutting = asyncio.create_task(nodes.cut_after(1))
        result = await nodes.ask(asked)
        await cutting
        assert result.place == "edge+cloud"
        assert result.context is not None
        assert result.context.ended_alone
        # What the cloud did say is the whole model's, and the rest is the edge's own.
        by_cloud = result.made_by.count("full")
        assert result.made_by == ("full",) * by_cloud + ("exit2",) * (len(result.made_by) - by_cloud)
        assert result.text.startswith(whole.words(unsplit(whole, asked).tokens[:by_cloud]))
        assert result.timing.inference_ms + result.timing.context_ms + result.timing.queue_ms < DEADLINE_MS
        # Meanwhile the edge is there for others, alone.
        alone = await nodes.ask(task(1))
        assert (alone.place, set(alone.made_by)) == ("edge", {"exit2"})
        await asyncio.sleep(5.0)
        nodes.proxy.heal()
        await nodes.until_together()
        again = task(2)
        result = await nodes.ask(again)
        assert result.text == unsplit(whole, again).text or (result.context is not None and result.context.ended_alone)
        edge = nodes.states["edge-1"]
        assert edge.counters["gave_up.silent"] >= 1


async def test_a_link_that_slices_messages_changes_no_token(best_broker: Broker, fleet: str, whole: Any) -> None:
    settings = {"mode": "through", "cloud_timeout_ms": 10_000.0}
    async with over_a_link(best_broker, fleet, **settings) as nodes:
        nodes.proxy.slice(64)
        asked = task(3)
        result = await nodes.ask(asked)
        assert result.text == unsplit(whole, asked).text
        assert set(result.made_by) == {"full"}
        assert result.context is not None
        assert not result.context.ended_alone


async def test_a_connection_that_breaks_loses_nothing_that_is_not_asked_for_again(
    best_broker: Broker, fleet: str, whole: Any
) -> None:
    settings = {"mode": "ce", "cloud_timeout_ms": 10_000.0}
    async with over_a_link(best_broker, fleet, **settings) as nodes:
        asked = task(4)

        async def break_after_some() -> None:
            for _ in range(3):
                await anext(nodes.requests)
            nodes.proxy.reset()

        while len(nodes.requests):
            await anext(nodes.requests)
        breaking = asyncio.create_task(break_after_some())
        result = await nodes.ask(asked)
        await breaking
        by_cloud = result.made_by.count("full")
        assert result.text.startswith(whole.words(unsplit(whole, asked).tokens[:by_cloud]))
        assert result.made_by[by_cloud:] == ("exit2",) * (len(result.made_by) - by_cloud)
