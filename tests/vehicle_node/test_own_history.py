"""What a vehicle writes down of itself, and what it does when all it could say is stale, or it can remember nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from roadside.bus.defaults import HISTORY_VARIABLE
from roadside.bus.errors import RunError
from roadside.bus.messages import Task
from roadside.qos.contract import check
from roadside.qos.history import read_history
from roadside.qos.journal import Journal, read_journal
from roadside.vehicle_node.endings import NARRATOR_GRACE_MS

LONGEST_DEADLINE_S = 2.0  # of the kinds that these drives ask for


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HISTORY_VARIABLE, str(tmp_path / "history"))
    return tmp_path / "history"


def serve(node: Any, vehicle: str, task: Task) -> None:
    node.serve(vehicle, task)


def ignore(node: Any, vehicle: str, task: Task) -> None:
    pass


async def test_a_drive_writes_a_history_that_keeps_the_contract(scripted, drive, history, tmp_path):
    async with scripted("edge-1", serve):
        outcomes = await drive()
    events, torn = read_history(history)
    findings = check(events, read_journal(tmp_path / "vehicle-1.sqlite"))
    assert (findings.created, findings.violations, torn) == (len(outcomes), [], 0)
    for outcome in outcomes:
        way = [event.name for event in events if event.fields.get("task") == outcome.task_id]
        assert way[0] == "task.created"
        assert way[-1] == "task.ended"
        assert {"task.placed", "task.sent", "task.acknowledged", "answer.received"} <= set(way)


async def test_a_vehicle_that_stood_still_over_a_deadline_shows_nothing_of_it(scripted, drive, history, tmp_path):
    async with scripted("edge-1", ignore):
        # As a stopped process does: nothing in it moves, and then all of it is late.
        still_s = LONGEST_DEADLINE_S + 2 * NARRATOR_GRACE_MS / 1000
        asyncio.get_running_loop().call_later(0.8, time.sleep, still_s)
        outcomes = await drive(duration_s=1.0)
    missed = [outcome for outcome in outcomes if outcome.reason == "the vehicle stood still at the deadline"]
    assert missed, "some tasks were open"
    assert {(outcome.state, outcome.text) for outcome in missed} == {("expired", "")}
    events, _ = read_history(history)
    assert check(events, read_journal(tmp_path / "vehicle-1.sqlite")).violations == []


async def test_without_a_journal_the_narrator_goes_on_and_no_task_is_created(
    scripted, drive, history, told_counters, monkeypatch
):
    def full(self: Journal, *args: object, **kwargs: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(Journal, "created", full)
    async with scripted("edge-1", serve) as node, told_counters() as counters:
        assert await drive() == []
    assert node.tasks == []
    events, _ = read_history(history)
    narrated = [event for event in events if event.name == "narrated.only"]
    assert narrated
    assert {event.fields["why"] for event in narrated} == {"the disk is full"}
    assert counters["not_created"] == len(narrated)
