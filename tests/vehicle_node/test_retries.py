"""What a vehicle does about silence, refusals, provisional answers and lost connections, on a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from typing import Any

from roadside.bus.broker import Broker
from roadside.bus.kinds import KINDS
from roadside.bus.messages import Task
from roadside.qos.journal import read_journal

SHORTEST_DEADLINE_MS = min(kind.deadline_ms for kind in KINDS.values())


def serve(node: Any, vehicle: str, task: Task) -> None:
    node.serve(vehicle, task)


def ignore(node: Any, vehicle: str, task: Task) -> None:
    pass


def later(delay_s: float, what: Any, *arguments: Any, **options: Any) -> None:
    asyncio.get_running_loop().call_later(delay_s, lambda: what(*arguments, **options))


async def test_a_lost_task_is_sent_again_as_the_same_attempt(scripted, drive, check_contract):
    seen: set[str] = set()

    def lose_the_first(node: Any, vehicle: str, task: Task) -> None:
        if task.task_id in seen:
            node.serve(vehicle, task)
        seen.add(task.task_id)

    async with scripted("edge-1", lose_the_first) as node:
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.attempts for outcome in outcomes} == {1}
    for outcome in outcomes:
        first, second = (task for task in node.tasks if task.task_id == outcome.task_id)
        assert first.attempt == second.attempt == 1
        assert first.remaining_ms - second.remaining_ms >= 150, "the time that is left is told anew"


async def test_an_acknowledged_task_is_not_sent_again(scripted, drive, check_contract):
    def answer_slowly(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        later(0.3, node.answer, vehicle, task)

    async with scripted("edge-1", answer_slowly, service_ms=300.0) as node:
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    times_sent = Counter(task.task_id for task in node.tasks)
    # On a busy machine an ACK may be late; without ACKs, all would have been sent again before their answers.
    assert sum(times == 1 for times in times_sent.values()) > len(times_sent) / 2


async def test_without_an_ack_another_node_is_asked_in_time(scripted, drive, check_contract):
    async with scripted("edge-1", ignore) as silent, scripted("edge-2", serve, service_ms=80.0):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.node for outcome in outcomes} == {"edge-2"}
    assert 2 in {outcome.attempts for outcome in outcomes}
    sent = Counter(task.task_id for task in silent.tasks)
    assert set(sent.values()) <= {1, 2}, "one repetition, or none where it would cost the other's chance"
    assert {task.attempt for task in silent.tasks} == {1}


async def test_an_answer_that_is_long_overdue_is_sought_elsewhere(scripted, drive, check_contract):
    def accept(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)

    async with scripted("edge-1", accept), scripted("edge-2", serve, service_ms=80.0):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {(outcome.node, outcome.attempts) for outcome in outcomes} == {("edge-2", 2)}


async def test_a_late_answer_of_an_earlier_attempt_is_as_good(scripted, drive, check_contract):
    def slow(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        later(0.45, node.answer, vehicle, task, text="from the first")

    async with scripted("edge-1", slow), scripted("edge-2", ignore, service_ms=60.0):
        outcomes = await drive()
    assert check_contract(outcomes)["result"] == len(outcomes)
    assert {outcome.text for outcome in outcomes} == {"from the first"}


async def test_a_full_node_is_asked_again_after_its_retry_after(scripted, drive, check_contract):
    def full_at_first(node: Any, vehicle: str, task: Task) -> None:
        if task.attempt == 1:
            node.reject(vehicle, task, retry_after_ms=200.0)
        else:
            node.serve(vehicle, task)

    async with scripted("edge-1", full_at_first) as node:
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.attempts for outcome in outcomes} == {2}
    for outcome in outcomes:
        first, second = (task for task in node.tasks if task.task_id == outcome.task_id)
        assert (first.attempt, second.attempt) == (1, 2)
        assert first.remaining_ms - second.remaining_ms >= 200


async def test_a_node_that_keeps_refusing_is_asked_ever_more_rarely(scripted, drive, check_contract):
    async with scripted("edge-1", lambda node, vehicle, task: node.reject(vehicle, task, retry_after_ms=0.0)):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"fallback"}
    assert {outcome.reason for outcome in outcomes} == {"refused everywhere"}
    assert all(2 <= outcome.attempts <= 5 for outcome in outcomes)


async def test_a_retry_that_would_come_too_late_is_not_waited_for(scripted, drive, check_contract):
    async with scripted("edge-1", lambda node, vehicle, task: node.reject(vehicle, task, retry_after_ms=1e9)):
        outcomes = await drive()
    assert set(check_contract(outcomes)) == {"fallback"}
    assert {(outcome.reason, outcome.attempts) for outcome in outcomes} == {("refused everywhere", 1)}


async def test_a_silent_node_is_left_before_its_answer_is_overdue(scripted, drive, check_contract):
    """It said that it would take long, took a task, and then said nothing more, not even a heartbeat."""

    def accept(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)

    async with (
        scripted("edge-1", accept, service_ms=1000.0) as silent,
        scripted("edge-2", serve, service_ms=1100.0) as other,
    ):

        async def keep_alive() -> None:
            while True:
                other.announce()
                if not silent.tasks:
                    silent.announce()
                await asyncio.sleep(0.1)

        beating = asyncio.create_task(keep_alive())
        outcomes = await drive(silent_after_ms=500.0, duration_s=0.5, rate_hz=20.0, seed=1)
        beating.cancel()
    check_contract(outcomes)
    moved = [outcome for outcome in outcomes if outcome.attempts == 2]
    assert moved
    assert {(outcome.state, outcome.node) for outcome in moved} == {("result", "edge-2")}


async def test_the_place_is_asked_for_and_a_downgrade_is_told(scripted, drive, check_contract):
    def alternate(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task, place="edge+cloud" if len(node.tasks) % 2 else "edge")

    async with scripted("edge-1", alternate, places=("edge", "edge+cloud")) as node:
        outcomes = await drive(place="edge+cloud")
    assert set(check_contract(outcomes)) == {"result"}
    assert {task.place for task in node.tasks} == {"edge+cloud"}
    assert {outcome.requested for outcome in outcomes} == {"edge+cloud"}
    assert {outcome.place for outcome in outcomes} == {"edge", "edge+cloud"}


async def test_random_uses_every_place_of_a_node_that_offers_two(scripted, drive, check_contract):
    async with scripted("edge-1", serve, places=("edge", "edge+cloud")):
        outcomes = await drive(policy="random", rate_hz=30.0)
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.place for outcome in outcomes} == {"vehicle", "edge", "edge+cloud"}


async def test_a_provisional_answer_stands_where_no_final_one_comes(scripted, drive, check_contract):
    def provisional_only(node: Any, vehicle: str, task: Task) -> None:
        node.accept(vehicle, task)
        node.answer(vehicle, task, text="provisional", final=False, place="edge")
        # After the end, a final answer changes nothing.
        later(task.remaining_ms / 1000 + 0.05, node.answer, vehicle, task, text="too late")

    async with scripted("edge-1", provisional_only, places=("edge", "edge+cloud")):
        outcomes = await drive(place="edge+cloud", duration_s=0.7)
    assert set(check_contract(outcomes)) == {"result"}
    for outcome in outcomes:
        assert (outcome.text, outcome.reason) == ("provisional", "provisional stands")
        assert (outcome.requested, outcome.place, outcome.made_by) == ("edge+cloud", "edge", ("exit1",))
        assert outcome.first_answer_ms == outcome.latency_ms < SHORTEST_DEADLINE_MS / 2


async def test_a_provisional_answer_stands_at_once_where_its_node_dies(scripted, drive, check_contract):
    def die(node: Any, vehicle: str, task: Task) -> None:
        node.answer(vehicle, task, text="last words", final=False)
        # Well before the second task, which this seed creates 0.1 s after the first: it would cross the news.
        later(0.05, node.announce, alive=False)

    async with scripted("edge-1", die):
        outcomes = await drive(duration_s=0.5, rate_hz=20.0)
    assert set(check_contract(outcomes)) == {"result"}
    assert "last words" in {outcome.text for outcome in outcomes}


async def test_after_an_outage_tasks_arrive_with_the_time_that_is_left_or_not_at_all(scripted, drive, tmp_path):
    """The broker is away for longer than the shortest deadline, and comes back without any memory."""
    arrivals: list[tuple[Task, float]] = []

    def serve_and_note(node: Any, vehicle: str, task: Task) -> None:
        arrivals.append((task, time.time()))
        node.serve(vehicle, task)

    async with Broker() as broker, scripted("edge-1", serve_and_note, url=broker.url):

        async def outage() -> float:
            await asyncio.sleep(2.0)
            os.kill(broker.pid, signal.SIGKILL)
            await broker.wait()
            await broker.stop()
            await asyncio.sleep(1.0)
            await broker.start()
            return time.time()

        ending = asyncio.create_task(outage())
        await drive(url=broker.url, duration_s=5.0, rate_hz=15.0)
        restarted_at_s = await ending
    entries = {entry.task_id: entry for entry in read_journal(tmp_path / "vehicle-1.sqlite")}
    assert {entry.state for entry in entries.values()} == {"result", "fallback"}
    waited = [task for task, at_s in arrivals if entries[task.task_id].created_at_s < restarted_at_s < at_s]
    assert waited, "some of the tasks made during the outage have time left after it"
    for task, arrived_at_s in arrivals:
        spent_ms = (arrived_at_s - entries[task.task_id].created_at_s) * 1000
        assert spent_ms < task.deadline_ms
        assert abs(task.deadline_ms - task.remaining_ms - spent_ms) < 250
