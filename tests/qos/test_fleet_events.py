"""Watching a live fleet: what is told, to whom, and what happens when the broker goes away for a while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.errors import ConfigurationError
from roadside.bus.messages import NodeState, Outcome, Result
from roadside.bus.transport import Bus
from roadside.qos.fleet_events import Event, Selection, watch


@asynccontextmanager
async def _watching(
    url: str, fleet: str, selection: Selection, *, explain: bool = False
) -> AsyncIterator[asyncio.Queue[Event]]:
    events: asyncio.Queue[Event] = asyncio.Queue()
    stop = asyncio.Event()
    watching = asyncio.create_task(
        watch(url, fleet, selection=selection, explain=explain, show=events.put_nowait, stop=stop)
    )
    async with asyncio.timeout(40):
        yield events
    stop.set()
    await watching


async def test_endings_provisional_answers_comings_and_goings(
    best_broker: Broker,
    fleet: str,
    an_outcome: Callable[..., Outcome],
    a_state: Callable[..., NodeState],
    a_result: Callable[..., Result],
) -> None:
    async with (
        Bus(url=best_broker.url, fleet=fleet, name="edge-1") as edge,
        Bus(url=best_broker.url, fleet=fleet, name="vehicle-1") as vehicle,
    ):
        # Retained: it greets the watcher once the subscription stands.
        await edge.publish(topics.NODE_STATE, a_state())
        async with _watching(best_broker.url, fleet, Selection()) as events:
            assert (await events.get()).fields["node"] == "edge-1"
            await edge.publish(topics.NODE_STATE, a_state(uptime_s=9.0))
            await edge.publish(topics.RESULT, a_result(), vehicle="vehicle-1")
            await edge.publish(topics.RESULT, a_result(final=False), vehicle="vehicle-1")
            provisional = await events.get()
            assert "answers for now" in provisional.line
            assert provisional.fields["event"] == "provisional"
            await vehicle.publish(topics.OUTCOME, an_outcome())
            outcome = await events.get()
            assert "84 ms of 2000" in outcome.line
            assert "chose with" not in outcome.line
            assert outcome.fields["decision"] is None
            assert (outcome.fields["vehicle"], outcome.fields["latency_ms"]) == ("vehicle-1", 84.0)
            await edge.publish(topics.NODE_STATE, a_state(alive=False))
            gone = await events.get()
            assert "has left" in gone.line
            assert gone.fields["alive"] is False
            for event in (provisional, outcome, gone):
                assert json.loads(json.dumps(event.fields)).keys() == event.fields.keys()
            assert events.empty()


async def test_just_what_was_selected(
    best_broker: Broker, fleet: str, an_outcome: Callable[..., Outcome], a_state: Callable[..., NodeState]
) -> None:
    selection = Selection.of(["vehicle-2"], ["hazard"])
    async with (
        Bus(url=best_broker.url, fleet=fleet, name="vehicle-1") as first,
        Bus(url=best_broker.url, fleet=fleet, name="vehicle-2") as second,
        _watching(best_broker.url, fleet, selection, explain=True) as events,
    ):
        for vehicle in (first, second):
            await vehicle.publish(topics.VEHICLE_STATE, a_state(node=vehicle.name, role="vehicle"))
        assert (await events.get()).fields["node"] == "vehicle-2"
        for vehicle in (first, second):
            await vehicle.publish(topics.OUTCOME, an_outcome(task_id="asked-why", kind="explain"))
            await vehicle.publish(topics.OUTCOME, an_outcome(task_id="asked-what-for", kind="hazard"))
        told = await events.get()
        assert (told.fields["vehicle"], told.fields["task_id"]) == ("vehicle-2", "asked-what-for")
        assert told.fields["decision"]["reason"] == "highest utility"
        assert "chose with" in told.line
        assert events.empty()


def test_a_kind_that_nobody_asks() -> None:
    with pytest.raises(ConfigurationError, match="hazard"):
        Selection.of([], ["hazzard"])


async def test_the_broker_goes_and_comes_back(fleet: str, a_state: Callable[..., NodeState]) -> None:
    async with Broker() as broker, Bus(url=broker.url, fleet=fleet, name="edge-1") as edge:
        await edge.publish(topics.NODE_STATE, a_state())
        async with _watching(broker.url, fleet, Selection()) as events:
            assert (await events.get()).fields["event"] == "member"
            await broker.stop()
            gone = await events.get()
            assert (gone.fields["event"], gone.fields["connected"]) == ("broker", False)
            await broker.start()
            # Who is still there is told anew, as the broker may have forgotten.
            told = [await events.get(), await events.get()]
            assert {event.fields["event"] for event in told} == {"broker", "member"}
            assert all(event.fields.get("connected", True) and event.fields.get("alive", True) for event in told)
