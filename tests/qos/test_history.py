"""Histories as they are written and read back: whole lines, whatever the writer dies of."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.defaults import HISTORY_VARIABLE
from roadside.bus.errors import ConfigurationError
from roadside.bus.history import NO_HISTORY, History, stop_file
from roadside.qos.history import Event, HistoryReader, parse_event, read_history

PATIENCE_S = 20.0


def write_for_ever(folder: Path) -> None:
    history = History(folder, "edge-1")
    number = 0
    while True:
        history.note("task.received", task=f"task-{number}", padding="x" * (number % 200))
        number += 1


def start_writing(folder: Path) -> multiprocessing.process.BaseProcess:
    writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(folder,), daemon=True)
    writer.start()
    return writer


def until(condition) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.002)


def test_what_is_noted_is_read_back_with_its_time(tmp_path: Path):
    before_s = time.monotonic()
    history = History(tmp_path, "vehicle-1")
    history.begin()
    history.note("task.created", task="t-1", created_s=1.5, deadline_ms=700.0)
    history.close()
    (began, created), torn = read_history(tmp_path)
    assert torn == 0
    assert (began.name, began.fields["pid"]) == ("process.began", os.getpid())
    assert before_s <= began.at_s <= created.at_s <= time.monotonic()
    assert created == Event(
        created.at_s, "vehicle-1", "task.created", {"task": "t-1", "created_s": 1.5, "deadline_ms": 700.0}
    )
    assert parse_event(created.line().encode()) == created


def test_nothing_is_written_where_nobody_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(HISTORY_VARIABLE, raising=False)
    for history in (NO_HISTORY, History.of_process("edge-1")):
        history.note("task.received", task="t-1")
        assert not history.is_on
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(HISTORY_VARIABLE, str(tmp_path / "here"))
    History.of_process("edge-1").note("task.received", task="t-1")
    assert len(read_history(tmp_path / "here")[0]) == 1


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(HISTORY_VARIABLE, str(tmp_path / "file" / "folder"))
    with pytest.raises(ConfigurationError, match=HISTORY_VARIABLE):
        History.of_process("edge-1")


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path):
    writer = start_writing(tmp_path)
    path = tmp_path / "edge-1.jsonl"
    until(lambda: path.exists() and path.stat().st_size > 50_000)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    events, torn = read_history(tmp_path)
    assert torn == 0
    assert [event.fields["task"] for event in events] == [f"task-{number}" for number in range(len(events))]


def test_a_process_stands_still_at_the_step_that_is_asked_for(tmp_path: Path):
    writer = start_writing(tmp_path)
    process = psutil.Process(writer.pid)
    stop = stop_file(tmp_path, "edge-1", "task.received")
    for _ in range(2):
        stop.touch()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        assert not stop.exists(), "it stops once"
        size_bytes = (tmp_path / "edge-1.jsonl").stat().st_size
        process.resume()
        until(lambda size_bytes=size_bytes: (tmp_path / "edge-1.jsonl").stat().st_size > size_bytes)
    writer.kill()
    writer.join()


def test_a_torn_line_is_counted_and_costs_no_other(tmp_path: Path):
    path = tmp_path / "edge-1.jsonl"
    line = b'{"at_s":1.0,"process":"edge-1","event":"task.received"}\n'
    path.write_bytes(line + b'{"at_s":2.0,"proc' + line + line)
    events, torn = read_history(tmp_path)
    assert (len(events), torn) == (2, 1)
    path.write_bytes(line + line[:-9])
    events, torn = read_history(tmp_path)
    assert (len(events), torn) == (1, 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_none(line: bytes):
    event = parse_event(line)
    assert event is None or isinstance(event.at_s, float)


def test_a_reader_follows_what_is_being_written(tmp_path: Path):
    history, other = History(tmp_path, "edge-1"), History(tmp_path, "cloud-1")
    reader = HistoryReader(tmp_path)
    assert reader.read_new() == []
    other.note("b")
    history.note("a")
    assert [event.name for event in reader.read_new()] == ["b", "a"]
    with (tmp_path / "edge-1.jsonl").open("ab") as file:
        file.write(b'{"at_s":9.0,"process":"edge-1",')
        file.flush()
        assert reader.read_new() == []
        file.write(b'"event":"late"}\n')
    assert [event.name for event in reader.read_new()] == ["late"]
    assert reader.torn == 0


def test_a_full_disk_ends_the_history_and_not_the_process(tmp_path: Path):
    history = History(tmp_path, "edge-1")
    full = os.open("/dev/full", os.O_WRONLY)
    history._file = full
    history.note("task.received", task="t-1")
    assert not history.is_on
    history.note("task.received", task="t-2")
    history.close()
