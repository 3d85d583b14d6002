"""A learner's weights reach a vehicle that drives: taken between two decisions, or refused, and no task is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.messages import NodeState, PolicyWeights
from roadside.bus.transport import Bus
from roadside.policy.features import FEATURE_SCHEMA
from roadside.policy.training.set_networks import SetActor, export
from roadside.policy.weights import encode_weights, save_weights
from roadside.vehicle_node import dispatcher

GREEDY = export(SetActor().net, 10.0, "test", {})


def serve(node, vehicle, task):
    node.serve(vehicle, task)


def message(version: int, **changes) -> PolicyWeights:
    plain = PolicyWeights("ddpg", version, FEATURE_SCHEMA, encode_weights(GREEDY), 1)
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, object]:
    save_weights(tmp_path / "ddpg.npz", GREEDY)
    return {"policy": "ddpg", "policy_weights": str(tmp_path / "ddpg.npz"), "rate_hz": 12.0, "duration_s": 1.5}


@pytest.fixture
def publisher(best_broker: Broker, fleet: str) -> Callable[..., object]:
    """`async with publisher("learner-1", 1.0, messages)`: publishes one after the other, from that time on."""

    @asynccontextmanager
    async def publishing(name: str, messages: list[PolicyWeights], after_s: float = 0.0) -> AsyncIterator[None]:
        async def publish() -> None:
            await asyncio.sleep(after_s)
            for each in messages:
                await bus.publish(topics.POLICY, each)
                await asyncio.sleep(0.05)

        async with Bus(url=best_broker.url, fleet=fleet, name=name) as bus:
            task = asyncio.create_task(publish())
            if not after_s:
                await task
            yield
            await task

    return publishing


async def last_state(url: str, fleet: str) -> NodeState:
    """What vehicle-1 said of itself in the end, which the broker keeps."""
    async with Bus(url=url, fleet=fleet, name="reader") as bus:
        return (await anext(bus.subscribe(topics.VEHICLE_STATE, vehicle="vehicle-1"))).body


async def test_weights_are_swapped_in_the_middle_of_a_drive_and_no_task_is_lost(
    scripted, drive, check_contract, publisher, options, best_broker, fleet
):
    newer = [message(version) for version in range(2, 8)]
    async with (
        scripted("edge-1", serve),
        publisher("learner-1", [message(1)]),
        publisher("learner-1", newer, after_s=0.9),
    ):
        outcomes = await drive(policy_from="learner-1", **options)
    assert check_contract(outcomes)["result"] > 0
    labels = [outcome.decision.weights for outcome in outcomes]
    assert labels[0] == "learner-1 v1", "the broker keeps the newest for those who come later"
    assert labels[-1] == "learner-1 v7"
    versions = [int(label.rpartition("v")[2]) for label in labels]
    assert versions == sorted(versions)
    assert (await last_state(best_broker.url, fleet)).counters["weights_taken"] == 7


async def test_poisoned_foreign_and_old_weights_change_nothing(
    scripted, drive, check_contract, publisher, options, best_broker, fleet
):
    async with (
        scripted("edge-1", serve),
        publisher("mallory", [message(99)]),
        publisher("learner-1", [message(5)]),
        publisher(
            "learner-1",
            [message(6, weights=b"\x80\x04\x95poison"), message(7, feature_schema="other"), message(4)],
            after_s=0.8,
        ),
    ):
        outcomes = await drive(policy_from="learner-1", **options)
    assert check_contract(outcomes)["result"] > 0
    assert {outcome.decision.weights for outcome in outcomes} == {"learner-1 v5"}
    counters = (await last_state(best_broker.url, fleet)).counters
    refused = {name.partition(".")[2]: count for name, count in counters.items() if name.startswith("weights_refused.")}
    assert refused == {"another learner": 1, "unreadable": 1, "other features": 1, "old version": 1}


async def test_a_policy_without_weights_hears_nothing_of_learners(scripted, drive, publisher, best_broker, fleet):
    async with scripted("edge-1", serve), publisher("learner-1", [message(1)]):
        outcomes = await drive()
    assert {outcome.decision.weights for outcome in outcomes} == {""}
    assert not any("weights" in name for name in (await last_state(best_broker.url, fleet)).counters)


async def test_a_task_whose_node_leaves_while_its_picture_is_scaled_is_placed_anew(
    scripted, drive, check_contract, monkeypatch, best_broker, fleet
):
    from roadside.policy.base import Choice
    from roadside.policy.experience import Knobs
    from roadside.policy.greedy_utility import GreedyUtilityPolicy
    from roadside.policy.registry import PolicyOptions
    from roadside.vehicle_node import node as vehicle_node

    class Smaller(GreedyUtilityPolicy):
        def decide(self, task, candidates, allowed, now_s) -> Choice:
            choice = super().decide(task, candidates, allowed, now_s)
            return Choice(choice.index, choice.scores, 1.0, "smaller", Knobs(frame_scale=0.5))

    loop, left = asyncio.get_running_loop(), asyncio.Event()
    shrink = dispatcher.shrink_jpeg

    def slowly(jpeg: bytes, scale: float, quality: int) -> bytes:
        """The first time, the quicker node leaves meanwhile."""
        if not left.is_set():
            loop.call_soon_threadsafe(partial(first.announce, alive=False))
            loop.call_soon_threadsafe(left.set)
            pause()
        return shrink(jpeg, scale, quality)

    def pause() -> None:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), loop).result()

    monkeypatch.setattr(dispatcher, "shrink_jpeg", slowly)
    monkeypatch.setattr(vehicle_node, "make_policy", lambda name, options: Smaller(PolicyOptions()))
    async with scripted("edge-1", serve) as first, scripted("edge-2", serve, service_ms=80.0):
        outcomes = await drive()
    answered = check_contract(outcomes)["result"]
    assert answered > 0
    assert {(outcome.node, outcome.attempts) for outcome in outcomes if outcome.place == "edge"} == {("edge-2", 1)}
    assert first.tasks == [], "nobody was sent to a node that had left"
    assert (await last_state(best_broker.url, fleet)).counters["node_left_before_sending"] >= 1
