"""A process is killed at a named step of a task's way, and every task still ends exactly once.

The contract is asserted by `faults.finish()`: created = result + fallback + expired + rejected, nothing lost, shown
twice or shown stale.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

TO_EDGES = ("--place", "edge")


async def test_an_edge_hangs_and_comes_back_when_its_answers_are_late(faults):
    await faults.nodes.need("edge-1", "edge-2")
    await faults.drive("vehicle-1", *TO_EDGES, rate_hz=10.0)
    await faults.until(lambda: len(faults.outcomes) >= 3)
    hung = faults.acks[-1][0]
    faults.nodes.fleet.signal(hung, signal.SIGSTOP)
    await asyncio.sleep(2.0)
    faults.nodes.fleet.signal(hung, signal.SIGCONT)
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["unrecorded"] == tasks["expired"] == 0
    moved = [one.outcome for one in faults.recorded() if one.outcome.attempts > 1 and one.outcome.state == "result"]
    # A task may also have come from the other node once this one was back.
    assert any(outcome.node != hung for outcome in moved), "the other node answers for the one that hangs"


async def test_a_vehicle_is_killed_with_open_tasks_and_started_on_its_journal(faults, occupied):
    await faults.nodes.need("edge-1", "edge-2")
    free = await occupied("edge-1", "edge-2")
    await faults.drive("vehicle-1", *TO_EDGES, rate_hz=15.0, duration_s=30.0)
    await faults.until(lambda: len(faults.acks) >= 5)
    faults.fleet.signal("vehicle-1", signal.SIGKILL)
    assert await faults.fleet.wait("vehicle-1") == -signal.SIGKILL
    free()
    await faults.drive("vehicle-1", *TO_EDGES, duration_s=1.0)
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["expired"] > 0
    assert tasks["unrecorded"] == 0
    expired = [one.outcome for one in faults.recorded() if one.outcome.state == "expired"]
    assert {outcome.reason for outcome in expired} == {"the vehicle was down at the deadline"}


async def test_a_vehicle_that_is_told_to_stop_ends_what_is_open(faults, occupied):
    await faults.nodes.need("edge-1", "edge-2")
    await occupied("edge-1", "edge-2")
    await faults.drive("vehicle-1", *TO_EDGES, rate_hz=15.0, duration_s=30.0)
    await faults.until(lambda: len(faults.acks) >= 5)
    faults.fleet.signal("vehicle-1", signal.SIGTERM)
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["unrecorded"] == tasks["expired"] == 0
    assert tasks["created"] < 100, "no task was created for the rest of the drive"


@pytest.mark.slow
async def test_a_second_signal_ends_a_vehicle_at_once_and_the_next_life_closes_its_tasks(faults, occupied):
    await faults.nodes.need("edge-1", "edge-2")
    await occupied("edge-1", "edge-2")
    await faults.drive("vehicle-1", *TO_EDGES, rate_hz=15.0, duration_s=30.0)
    await faults.until(lambda: len(faults.acks) >= 5)
    for _ in range(2):
        faults.fleet.signal("vehicle-1", signal.SIGTERM)
        await asyncio.sleep(0.05)
    assert await faults.fleet.wait("vehicle-1") == 130
    await faults.drive("vehicle-1", *TO_EDGES, duration_s=0.5)
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["expired"] > 0
    assert tasks["unrecorded"] == 0


async def test_the_broker_is_killed_and_started_again_in_the_middle_of_a_drive(faults, capsys):
    await faults.nodes.need("edge-1", "edge-2")
    broker = faults.nodes.broker
    await faults.drive("vehicle-1", rate_hz=6.0, duration_s=7.0)
    await faults.until(lambda: len(faults.outcomes) >= 5)
    killed_at_s = time.time()
    os.kill(broker.pid, signal.SIGKILL)
    await broker.wait()
    await broker.stop()
    await asyncio.sleep(0.5)
    await broker.start()
    restarted_at_s = time.time()
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["expired"] == 0
    new = [
        one.received_at_s - restarted_at_s
        for one in faults.recorded()
        if one.outcome.state == "result" and one.outcome.place != "vehicle" and one.outcome.created_at_s > killed_at_s
    ]
    assert new, "nodes answer again"
    with capsys.disabled():
        print(f"\nfirst new answer {min(new):.2f} s after the broker's restart; {tasks}")
    assert min(new) < 30


async def test_an_edge_is_killed_after_its_ack_and_before_its_answer(faults, occupied):
    await faults.nodes.need("edge-1", "edge-2")
    free = await occupied("edge-1", "edge-2")
    await faults.drive("vehicle-1", *TO_EDGES, rate_hz=12.0)
    await faults.until(lambda: faults.acks and unanswered(faults, faults.acks[-1][0]))
    killed = faults.acks[-1][0]
    await faults.nodes.kill(killed)
    free()
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["unrecorded"] == tasks["expired"] == 0
    ended = {one.outcome.task_id: one.outcome for one in faults.recorded()}
    orphans = [ended[task_id] for task_id in unanswered(faults, killed)]
    assert orphans, "the edge had accepted what it had not answered"
    assert any(outcome.attempts > 1 for outcome in orphans), "and the other edge was asked for it"
    assert all(outcome.node != killed for outcome in orphans)


def unanswered(faults: Any, node: str) -> set[str]:
    """The tasks that a node has accepted and, as far as was heard, not answered."""
    accepted = {ack.task_id for by, ack in faults.acks if by == node}
    return accepted - {result.task_id for by, result in faults.results if by == node}


async def test_the_cloud_is_killed_with_accepted_tasks(faults):
    await faults.nodes.need("cloud-1")
    await faults.drive("vehicle-1", "--place", "cloud", rate_hz=12.0)
    await faults.until(lambda: len(faults.acks) >= 3)
    await faults.nodes.kill("cloud-1")
    assert await faults.fleet.wait("vehicle-1") == 0
    tasks = await faults.finish()
    assert tasks["unrecorded"] == tasks["expired"] == 0
    after = [one.outcome for one in faults.recorded() if one.outcome.place != "cloud"]
    assert after, "tasks made after the kill are answered somewhere else"
