"""A learner on a real broker: outcomes in, weights out, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roadside.bus import topics
from roadside.bus.defaults import HISTORY_VARIABLE
from roadside.bus.messages import Outcome, PolicyWeights
from roadside.bus.transport import Bus
from roadside.fleet import Fleet
from roadside.learner_node.configuration import LearnerConfiguration
from roadside.learner_node.node import Learner
from roadside.policy.training.set_networks import SetActor, export
from roadside.policy.weights import decode_weights, save_weights
from roadside.qos.history import read_history
from roadside.qos.run import RunDirectory

GREEDY = export(SetActor().net, 10.0, "test", {})


@pytest.fixture
def configuration(best_broker, fleet, tmp_path) -> LearnerConfiguration:
    save_weights(tmp_path / "start.npz", GREEDY)
    return LearnerConfiguration(
        broker=best_broker.url,
        fleet=fleet,
        folder=str(tmp_path / "learner-1"),
        start=str(tmp_path / "start.npz"),
        round_interval_s=0.05,
        updates_per_outcome=1.0,
        review_outcomes=100,
        patience_s=2.5,  # longer than the longest latency told, so that nothing comes too late
        least_held_out=50,
        watched=60,
    )


@asynccontextmanager
async def learning(configuration: LearnerConfiguration) -> AsyncIterator[Learner]:
    async with Bus(url=configuration.broker, fleet=configuration.fleet, name=configuration.name) as bus:
        learner, stop = Learner(configuration, bus), asyncio.Event()
        running = asyncio.create_task(learner.run(stop))
        try:
            yield learner
        finally:
            stop.set()
            await running


class Listener:
    """A vehicle that tells outcomes and hears weights."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: list[PolicyWeights] = []
        self.news = asyncio.Condition()

    async def listen(self) -> None:
        async for received in self.bus.subscribe(topics.POLICY):
            async with self.news:
                self.heard.append(received.body)
                self.news.notify_all()

    async def until(self, version: int, *, driving: Iterator[Outcome] | None = None) -> PolicyWeights:
        """The newest weights, as soon as they are of that version; meanwhile it tells how its tasks end."""
        async with asyncio.timeout(150), self.news:
            while not self.heard or self.heard[-1].version < version:
                if driving is not None:
                    await self.tell(list(itertools.islice(driving, 50)))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.news.wait(), 0.2)
            return self.heard[-1]

    async def tell(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.bus.post(topics.OUTCOME, outcome)
        await self.bus.until_sent()


@pytest.fixture
async def vehicle(best_broker, fleet) -> AsyncIterator[Listener]:
    async with Bus(url=best_broker.url, fleet=fleet, name="vehicle-1") as bus:
        listener = Listener(bus)
        listening = asyncio.create_task(listener.listen())
        yield listener
        listening.cancel()


def drive(outcome_of: Any, first: int, *, right: tuple[bool, bool, bool], weights: str) -> Iterator[Outcome]:
    """Evenly drawn places. right: whether vehicle, edge and cloud keep what they promise."""
    rng = np.random.default_rng(first)
    for number in itertools.count(first):
        row = int(rng.integers(3))
        yield outcome_of(number, chosen=row, right=right[row], weights=weights)


def head(message: PolicyWeights) -> np.ndarray:
    return decode_weights(message.weights, "").arrays["head2.weight"]


async def test_what_proves_better_is_published_and_what_then_fails_is_taken_back(configuration, vehicle, outcome_of):
    """The edge promises most and answers nothing; the cloud answers, and then nobody does."""
    async with learning(configuration) as learner:
        first = await vehicle.until(1)
        driving = drive(outcome_of, 0, right=(False, False, True), weights="learner-1 v1")
        better = await vehicle.until(2, driving=driving)
        assert better.note.startswith("promoted: +")
        assert better.trained_tasks >= 250
        assert not np.array_equal(head(better), head(first))
        # For what the older ones have still decided it is not to blame.
        late = drive(outcome_of, 100_000, right=(False, False, False), weights="learner-1 v1")
        await vehicle.tell(list(itertools.islice(late, 150)))
        await until(lambda: learner.counters["learnt"] >= better.trained_tasks + 150)
        assert vehicle.heard[-1].version == 2
        failing = drive(outcome_of, 200_000, right=(False, False, False), weights="learner-1 v2")
        back = await vehicle.until(3, driving=failing)
        assert back.note.startswith("rolled back")
        assert np.array_equal(head(back), head(first))
    assert (learner.counters["promoted"], learner.counters["rolled_back"]) == (1, 1)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - a counter cannot be awaited
            await asyncio.sleep(0.05)


async def test_what_is_told_twice_or_cannot_be_is_left_out_by_reason(configuration, vehicle, outcome_of):
    driving = drive(outcome_of, 0, right=(True, True, True), weights="learner-1 v1")
    told = list(itertools.islice(driving, 30))
    strange = outcome_of(99, chosen=1, right=True, deadline_ms=1e7)
    async with learning(configuration) as learner:
        await vehicle.until(1)
        await vehicle.tell([*told, *told[:10], strange, outcome_of(100, chosen=1, right=True, decision=None)])
        await until(lambda: learner.counters["left_out.undecided"] >= 1)
    assert learner.counters["learnt"] == 30
    left_out = {name: count for name, count in learner.counters.items() if name.startswith("left_out") and count}
    assert left_out == {"left_out.known or late": 10, "left_out.implausible": 1, "left_out.undecided": 1}


async def test_another_process_of_the_same_name_is_noticed(configuration, vehicle, best_broker, fleet):
    async with learning(configuration) as learner:
        weights = await vehicle.until(1)
        async with Bus(url=best_broker.url, fleet=fleet, name=configuration.name) as other:
            await other.publish(topics.POLICY, weights)
            await until(lambda: bool(learner.counters["published_by_another"]))


async def test_a_learner_that_is_killed_goes_on_where_it_was(
    configuration, vehicle, outcome_of, best_broker, tmp_path: Path
):
    """A process of its own: SIGKILL, and another one on its folder."""
    run = RunDirectory.create(tmp_path / "run", configuration={}, seed=0, argv=["pytest"])
    file = tmp_path / "learner.toml"
    keys = ("fleet", "folder", "start", "round_interval_s", "updates_per_outcome", "review_outcomes", "patience_s")
    keys += ("least_held_out", "watched")
    values = {key: getattr(configuration, key) for key in keys}
    file.write_text("\n".join(f"{key} = {value!r}" for key, value in values.items()))
    async with Fleet(run, best_broker.url) as fleet:
        history = {HISTORY_VARIABLE: str(tmp_path / "history")}
        await fleet.start("learner-1", "learner", "--config", str(file), variables=history)
        await fleet.ready(["learner-1"], timeout_s=120)
        await vehicle.until(1)
        driving = drive(outcome_of, 0, right=(False, False, True), weights="learner-1 v1")
        better = await vehicle.until(2, driving=driving)
        fleet.signal("learner-1", signal.SIGKILL)
        assert await fleet.wait("learner-1") == -signal.SIGKILL
        # Without what it began with, too: its own folder is enough.
        (tmp_path / "start.npz").unlink()
        vehicle.heard.clear()
        await fleet.start("learner-1", "learner", "--config", str(file), variables=history)
        await fleet.ready(["learner-1"], timeout_s=120)
        again = await vehicle.until(2)
        assert (again.version, again.weights) == (2, better.weights)
        # The promotion is still on trial.
        failing = drive(outcome_of, 200_000, right=(False, False, False), weights="learner-1 v2")
        back = await vehicle.until(3, driving=failing)
        assert back.note.startswith("rolled back")
        await fleet.stop(["learner-1"])
        assert fleet.exit_status("learner-1") == 0
    events, torn = read_history(tmp_path / "history")
    told = [event.fields.get("version", event.name) for event in events]
    assert (told, torn) == (["process.began", 1, 2, "process.began", 2, 3], 0)
