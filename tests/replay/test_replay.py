"""A committed recording is replayed as it was recorded, and what differs is shown so that a person understands it.

`make replay-reference` records it anew, after a change that is meant to change decisions or answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from roadside.bus import topics
from roadside.bus.errors import ConfigurationError, RunError
from roadside.bus.inbox import read
from roadside.bus.message_log import PACKED_SUFFIX, SUFFIX, Created, Heard, Life, Said, read_lives
from roadside.cli import app
from roadside.replay.run import RunReplay, replay_run
from typer.testing import CliRunner

REFERENCE = Path(__file__).parent / "reference"
MOST_BYTES = 300_000
Record = Life | Heard | Said | Created


def told(result: RunReplay) -> str:
    """Every difference, for a failed test to show."""
    return "\n" + "\n".join(
        f"{process.name}, {each.task_id}, {each.what} ({each.note})\n  expected {each.expected}\n  got      {each.got}"
        for process in result.processes
        for each in process.differences
    )


def rewritten(folder: Path, name: str, change: Callable[[Record], Record]) -> Path:
    """The reference with one process's records changed."""
    folder.mkdir()
    lives = read_lives(REFERENCE / f"{name}{SUFFIX}{PACKED_SUFFIX}")
    with (folder / f"{name}{SUFFIX}").open("wb") as file:
        for record in (record for life in lives for record in (life.begun, *life.records)):
            content = msgspec.msgpack.encode(change(record))
            file.write(len(content).to_bytes(4, "big") + content)
    return folder


def test_the_reference_is_small_and_holds_every_place():
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) <= MOST_BYTES
    placed = set()
    for record in read_lives(REFERENCE / f"vehicle-1{SUFFIX}{PACKED_SUFFIX}")[0].records:
        if isinstance(record, Said):
            body = read(record.address, record.payload).body
            placed.add(body.place)
    assert placed >= {"vehicle", "edge", "edge+cloud", "cloud"}


def test_the_reference_is_replayed_as_it_was_recorded():
    """Decisions of the vehicle, and answers of the nodes, alone and together."""
    result = replay_run(REFERENCE)
    assert not result.differs, told(result)
    compared = {process.name: process.compared for process in result.processes}
    assert compared["vehicle-1"] >= 8
    assert compared["edge-1"] >= 4
    assert compared["cloud-1"] >= 1


def test_the_same_replay_twice_is_the_same():
    first, second = (replay_run(REFERENCE, node="vehicle-1").as_plain() for _ in range(2))
    assert first == second


def test_another_policy_shows_where_it_would_have_gone(tmp_path):
    def change(record: Record) -> Record:
        if not isinstance(record, Life):
            return record
        configuration = json.loads(record.configuration) | {"policy": "greedy-utility"}
        return structs.replace(record, configuration=json.dumps(configuration))

    result = replay_run(rewritten(tmp_path / "run", "vehicle-1", change), node="vehicle-1")
    (vehicle,) = result.processes
    placements = [each for each in vehicle.differences if each.what == "placement"]
    assert placements
    assert all(each.expected != each.got for each in placements)
    # Greed has scores that say by how much.
    assert any(each.note.startswith("score ") for each in placements)


def test_a_node_that_was_heard_otherwise_changes_the_decisions(tmp_path):
    """The recorded states are what decides: without them, everything stays in the vehicle."""

    def change(record: Record) -> Record:
        if isinstance(record, Heard) and topics.NODE_STATE.parse(record.address):
            return structs.replace(record, payload=b"")
        return record

    result = replay_run(rewritten(tmp_path / "run", "vehicle-1", change), node="vehicle-1")
    assert {each.got for each in result.processes[0].differences if each.what == "placement"} == {"the vehicle itself"}


def test_the_verb(tmp_path):
    runner = CliRunner()
    plain = runner.invoke(app, ["replay", str(REFERENCE), "--node", "vehicle-1", "--json"])
    assert plain.exit_code == 0
    assert json.loads(plain.stdout)["differences"] == 0

    def change(record: Record) -> Record:
        return structs.replace(record, payload=b"") if isinstance(record, Heard) else record

    folder = rewritten(tmp_path / "run", "vehicle-1", change)
    different = runner.invoke(app, ["replay", str(folder), "--node", "vehicle-1"])
    assert different.exit_code == 1
    assert "expected  edge-1" in different.stdout
    assert "got       the vehicle itself" in different.stdout


def test_what_cannot_be_replayed_says_so(tmp_path):
    with pytest.raises(RunError, match="--record-messages"):
        replay_run(tmp_path)
    with pytest.raises(ConfigurationError, match="vehicle-1"):
        replay_run(REFERENCE, node="nobody")

    def change(record: Record) -> Record:
        return structs.replace(record, configuration='{"surprise": 1}') if isinstance(record, Life) else record

    with pytest.raises(RunError, match="record anew"):
        replay_run(rewritten(tmp_path / "run", "vehicle-1", change), node="vehicle-1")
