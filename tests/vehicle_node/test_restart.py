"""A vehicle that starts on the journal of its earlier life, and outcomes that an absent broker has not heard."""

from __future__ import annotations

import asyncio
import time

import msgspec
from roadside.bus.broker import Broker
from roadside.bus.transport import Bus
from roadside.qos.journal import Journal, read_journal
from roadside.vehicle_node.endings import expired
from roadside.vehicle_node.teller import Teller


async def test_tasks_of_an_earlier_life_are_expired_and_told(drive, tmp_path):
    path = tmp_path / "vehicle-1.sqlite"
    with Journal(path, "vehicle-1") as journal:
        journal.created("vehicle-1-old-00001", "hazard", 700.0)
        journal.created("vehicle-1-old-00002", "describe", 600_000.0)  # not over yet, but nobody waits for it
    before = {entry.task_id: entry for entry in read_journal(path)}
    outcomes = {outcome.task_id: outcome for outcome in await drive(duration_s=0.3)}
    for task_id, entry in before.items():
        outcome = outcomes.pop(task_id)
        assert (outcome.state, outcome.requested, outcome.place) == ("expired", "vehicle", "vehicle")
        assert outcome.reason == "the vehicle was down at the deadline"
        assert outcome.decision is None
        assert outcome.text == ""
        assert (outcome.kind, outcome.deadline_ms) == (entry.kind, entry.deadline_ms)
        assert outcome.created_at_s == entry.created_at_s
    assert {outcome.state for outcome in outcomes.values()} <= {"result"}
    after = {entry.task_id: entry.state for entry in read_journal(path)}
    assert after == dict.fromkeys(before, "expired") | {o.task_id: o.state for o in outcomes.values()}


async def test_an_outcome_that_was_not_told_is_told_by_the_next_life(drive, tmp_path):
    with Journal(tmp_path / "vehicle-1.sqlite", "vehicle-1") as journal:
        journal.created("vehicle-1-old-00001", "hazard", 700.0)
        (entry,) = journal.open_tasks()
        ended = msgspec.structs.replace(expired(entry), state="fallback", text="the car is moving .")
        journal.ended(ended)
    assert ended in await drive(duration_s=0.3)
    with Journal(tmp_path / "vehicle-1.sqlite", "vehicle-1") as journal:
        assert journal.untold() == []


async def test_outcomes_wait_for_a_broker_that_is_away(fleet, tmp_path):
    with Journal(tmp_path / "vehicle-1.sqlite", "vehicle-1") as journal:
        async with Broker() as broker, Bus(url=broker.url, fleet=fleet, name="vehicle-1", outbox_limit=4) as bus:
            teller = Teller(bus=bus, journal=journal, counters=bus.counters)
            await broker.stop()
            await asyncio.sleep(0.3)
            assert not bus.connected.is_set()
            for number in range(8):
                journal.created(f"task-{number}", "hazard", 700.0)
                outcome = expired(journal.open_tasks()[0])
                journal.ended(outcome)
                teller.tell(outcome)
            await asyncio.sleep(0.1)
            assert len(journal.untold()) == 8
            assert bus.counters["outcomes_kept"] == 4, "more than the outbox can hold stays in the journal"
            await broker.start()
            await asyncio.wait_for(bus.connected.wait(), 20)
            until_s = time.monotonic() + 20
            while journal.untold() and time.monotonic() < until_s:
                teller.tell_what_is_left()
                await asyncio.sleep(0.05)
        assert journal.untold() == []


async def test_a_vehicle_without_a_broker_at_its_end_keeps_its_outcomes(drive, fleet, tmp_path):
    async with Broker() as broker:
        asyncio.get_running_loop().call_later(1.0, lambda: stopping.append(asyncio.create_task(broker.stop())))
        stopping: list[asyncio.Task[None]] = []
        async with asyncio.timeout(30):
            try:
                await drive(url=broker.url, duration_s=2.0)
            except TimeoutError:
                raise AssertionError("it must not wait for a broker that does not come back") from None
    entries = read_journal(tmp_path / "vehicle-1.sqlite")
    assert {entry.state for entry in entries} == {"result"}, "its own place needs no broker"
    with Journal(tmp_path / "vehicle-1.sqlite", "vehicle-1") as journal:
        kept = {outcome.task_id for outcome in journal.untold()}
    assert kept
    told_later = {outcome.task_id for outcome in await drive(duration_s=0.3)}
    assert kept <= told_later
