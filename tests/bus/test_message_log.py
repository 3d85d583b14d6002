"""The log of what a process heard and said: whole, compact, without secrets, and readable after a sudden death."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus import codec, topics
from roadside.bus.configuration import MemberConfiguration
from roadside.bus.defaults import MESSAGES_VARIABLE
from roadside.bus.errors import RunError
from roadside.bus.message_log import SUFFIX, Created, Heard, MessageLog, Said, read_lives
from roadside.bus.messages import SCHEMA_VERSION, Envelope, NodeState, Role, Task

CONFIGURATION = MemberConfiguration(name="car-1", broker="mqtt://me:secret@10.0.0.5", metrics=9100)
TASK = Task(
    task_id="t-1",
    attempt=1,
    kind="hazard",
    prompt="what ?",
    frames=(b"\xff\xd8" + bytes(50_000),),
    telemetry={},
    deadline_ms=700.0,
    remaining_ms=650.0,
    qos_floor=0.5,
    place="edge",
)


def log_of(folder: Path, role: Role = "vehicle") -> MessageLog:
    return MessageLog(folder, role, CONFIGURATION, "boot-1")


def path_in(folder: Path) -> Path:
    return folder / f"car-1{SUFFIX}"


def test_it_is_off_unless_the_environment_names_a_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(MESSAGES_VARIABLE, raising=False)
    assert MessageLog.of_process("edge", CONFIGURATION, "boot-1") is None
    monkeypatch.setenv(MESSAGES_VARIABLE, str(tmp_path / "new" / "folder"))
    assert MessageLog.of_process("edge", CONFIGURATION, "boot-1") is not None
    assert path_in(tmp_path / "new" / "folder").is_file()


def test_no_secret_is_written_and_nobody_else_may_read(tmp_path):
    log_of(tmp_path / "log")
    path = path_in(tmp_path / "log")
    assert b"secret" not in path.read_bytes()
    assert b"10.0.0.5" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0


def test_a_vehicle_s_log_has_no_pictures_and_a_node_s_has(tmp_path):
    envelope = Envelope(SCHEMA_VERSION, "car-1", "boot-1", 1, 1e9, TASK)
    address = topics.TASK.address("demo", node="edge-1", vehicle="car-1")
    payload = codec.encode(envelope)
    log_of(tmp_path / "a").said(topics.TASK, address, envelope, payload)
    assert path_in(tmp_path / "a").stat().st_size < 2000
    (said,) = read_lives(path_in(tmp_path / "a"))[0].records
    assert isinstance(said, Said)
    assert codec.decode(topics.TASK, said.payload).body.task_id == "t-1"
    log_of(tmp_path / "b", "edge").heard(address, payload)
    (heard,) = read_lives(path_in(tmp_path / "b"))[0].records
    assert isinstance(heard, Heard)
    assert (heard.address, heard.payload) == (address, payload)


def test_what_no_replay_needs_is_left_out(tmp_path):
    log = log_of(tmp_path)
    state = NodeState(node="car-1", role="vehicle", alive=True)
    envelope = Envelope(SCHEMA_VERSION, "car-1", "boot-1", 1, 1e9, state)
    address = topics.VEHICLE_STATE.address("demo", vehicle="car-1")
    log.said(topics.VEHICLE_STATE, address, envelope, codec.encode(envelope))
    log.heard("somewhere/else", b"x")
    assert read_lives(path_in(tmp_path))[0].records == ()


def created(number: int) -> Created:
    return Created(1.0, 1.0, 1e9, f"t-{number}", "hazard", "clip", 0.5, {"Vehicle.Speed": 3.0}, (5, 7))


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=3), torn=st.integers(0, 200))
def test_every_life_comes_back_and_a_torn_end_costs_one_record(counts, torn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    for count in counts:
        log = log_of(folder)
        for number in range(count):
            log.created(created(number))
    lives = read_lives(path_in(folder))
    assert [len(life.records) for life in lives] == counts
    assert all(life.records == tuple(created(number) for number in range(len(life.records))) for life in lives)
    content = path_in(folder).read_bytes()
    whole = len(content) - min(torn, len(content))
    path_in(folder).write_bytes(content[:whole])
    left = [record for life in read_lives(path_in(folder)) for record in (life.begun, *life.records)]
    everything = [record for life in lives for record in (life.begun, *life.records)]
    assert left == everything[: len(left)]


@pytest.mark.parametrize("content", [b"\0\0\0\x05hello", b"\0\0\0\x01\xc0", b"\0\0\0\x02\x81\xa1"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path_in(tmp_path).write_bytes(content)
    with pytest.raises(RunError, match="recording"):
        read_lives(path_in(tmp_path))


def test_another_version_is_refused(tmp_path):
    log_of(tmp_path)
    path = path_in(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xa7version\x01", b"\xa7version\x02"))
    with pytest.raises(RunError, match="record anew"):
        read_lives(path)
    with pytest.raises(RunError, match="cannot read"):
        read_lives(tmp_path / "nothing")
