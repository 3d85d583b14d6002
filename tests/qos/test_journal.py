"""The journal remembers every task that was created, and exactly one ending of each."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from roadside.bus.errors import RunError
from roadside.bus.messages import TaskState
from roadside.qos.journal import Journal, read_journal

_STATES: list[TaskState] = ["result", "fallback", "expired", "rejected"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vehicle-1.sqlite"


def test_a_task_from_creation_to_its_end(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        (entry,) = journal.open_tasks()
        assert (entry.vehicle, entry.task_id, entry.kind, entry.deadline_ms) == ("vehicle-1", "a", "explain", 2000.0)
        assert entry.state is None
        assert journal.ended("a", "result")
        assert journal.open_tasks() == []
    (entry,) = read_journal(path)
    assert entry.state == "result"
    assert entry.ended_at_s is not None
    assert entry.ended_at_s >= entry.created_at_s


def test_the_first_ending_stands(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        assert journal.ended("a", "result")
        assert not journal.ended("a", "fallback")
        assert not journal.ended("a", "result")
    (entry,) = read_journal(path)
    assert entry.state == "result"
    assert entry.refused_endings == 2


def test_a_task_that_was_never_created_cannot_end(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal, pytest.raises(ValueError, match="never created"):
        journal.ended("ghost", "result")


def test_a_used_id_is_refused(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        with pytest.raises(RunError, match="already has a task a"):
            journal.created("a", "hazard", 700.0)
    assert [entry.kind for entry in read_journal(path)] == ["explain"]


def test_a_restarted_vehicle_closes_what_it_left_open(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        for task_id in ("a", "b", "c"):
            journal.created(task_id, "explain", 2000.0)
        journal.ended("b", "result")
    with Journal(path, "vehicle-1") as journal:
        assert [entry.task_id for entry in journal.close_out()] == ["a", "c"]
        assert journal.close_out() == []
    assert {entry.task_id: entry.state for entry in read_journal(path)} == {
        "a": "expired",
        "b": "result",
        "c": "expired",
    }


def test_another_vehicles_journal_is_refused(path: Path) -> None:
    Journal(path, "vehicle-1").close()
    with pytest.raises(RunError, match="journal of vehicle-1"):
        Journal(path, "vehicle-2")


def test_a_full_disk_stops_creation_but_forgets_no_ending(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("before", "explain", 2000.0)
        _fill_disk(journal)
        created = ["before"]
        with pytest.raises(RunError, match="free space"):  # noqa: PT012 - the number of tasks that fit is SQLite's affair
            for number in range(10_000):
                journal.created(f"task-{number}", "explain", 2000.0)
                created.append(f"task-{number}")
        assert [entry.task_id for entry in journal.open_tasks()] == created
        for task_id in created:
            assert journal.ended(task_id, "fallback")
            assert not journal.ended(task_id, "result")
        assert journal.open_tasks() == []
        _free_disk(journal)
        journal.created("after", "explain", 2000.0)
    entries = read_journal(path)
    assert [entry.task_id for entry in entries] == [*created, "after"]
    assert {entry.state for entry in entries[:-1]} == {"fallback"}
    assert {entry.refused_endings for entry in entries[:-1]} == {1}


def _fill_disk(journal: Journal) -> None:
    """SQLite's own limit makes it fail with the error of a full disk, without one."""
    connection = journal._connection
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0] + 1}")


def _free_disk(journal: Journal) -> None:
    journal._connection.execute("PRAGMA max_page_count = 1000000")


def test_a_journal_can_be_read_while_it_is_written(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        for number in range(3):
            journal.created(f"task-{number}", "explain", 2000.0)
            assert len(read_journal(path)) == number + 1


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_a_file_that_is_no_journal_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"vehicle-1\.sqlite"):
        read_journal(path)


def test_a_foreign_database_is_neither_read_nor_written(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tasks (anything)")
    before = path.read_bytes()
    with pytest.raises(RunError, match="not a journal"):
        read_journal(path)
    with pytest.raises(RunError, match="not a journal"):
        Journal(path, "vehicle-1")
    assert path.read_bytes() == before


_WRITER = """
import sys
from pathlib import Path
from roadside.qos.journal import Journal

journal = Journal(Path(sys.argv[1]), "vehicle-1")
number = 0
while True:
    number += 1
    journal.created(f"task-{number}", "explain", 2000.0)
    print("created", f"task-{number}", flush=True)
    if number % 2 == 0:
        journal.ended(f"task-{number}", "result")
        print("ended", f"task-{number}", flush=True)
"""


def test_every_task_survives_the_killing_of_its_vehicle(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(200)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    told = [line.split() for line in said if line.endswith("\n")]
    created = {task_id for what, task_id in told if what == "created"}
    ended = {task_id for what, task_id in told if what == "ended"}
    assert len(created) >= 100

    entries = {entry.task_id: entry.state for entry in read_journal(path)}
    assert created <= entries.keys()
    # The kill may have come between a write and the line that tells of it.
    assert len(entries) <= len(created) + 1
    assert all(entries[task_id] == "result" for task_id in ended)

    left_open = {task_id for task_id, state in entries.items() if state is None}
    with Journal(path, "vehicle-1") as journal:
        assert {entry.task_id for entry in journal.close_out()} == left_open
    assert all(entry.state is not None for entry in read_journal(path))


class JournalMachine(RuleBasedStateMachine):
    """Whatever is created, ended, ended again, restarted or closed out: a dictionary would say the same."""

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        # In memory there is no file to leave behind; the SQL is the same.
        self.journal = Journal(Path(":memory:"), "vehicle-1")
        self.expected: dict[str, tuple[TaskState | None, int]] = {}

    @rule(target=tasks, number=st.integers(0, 20))
    def create(self, number: int) -> str:
        task_id = f"task-{number}"
        if task_id in self.expected:
            with pytest.raises(RunError):
                self.journal.created(task_id, "hazard", 700.0)
        else:
            self.journal.created(task_id, "hazard", 700.0)
            self.expected[task_id] = (None, 0)
        return task_id

    @rule(task_id=tasks, state=st.sampled_from(_STATES))
    def end(self, task_id: str, state: TaskState) -> None:
        before, refused = self.expected[task_id]
        assert self.journal.ended(task_id, state) == (before is None)
        self.expected[task_id] = (state, refused) if before is None else (before, refused + 1)

    @rule()
    def close_out(self) -> None:
        still_open = [task_id for task_id, (state, _) in self.expected.items() if state is None]
        assert [entry.task_id for entry in self.journal.close_out()] == still_open
        self.expected.update((task_id, ("expired", 0)) for task_id in still_open)

    @invariant()
    def remembers(self) -> None:
        still_open = [task_id for task_id, (state, _) in self.expected.items() if state is None]
        assert [entry.task_id for entry in self.journal.open_tasks()] == still_open

    def teardown(self) -> None:
        rows = self.journal._connection.execute("SELECT task_id, state, refused_endings FROM tasks ORDER BY rowid")
        assert {task_id: (state, refused) for task_id, state, refused in rows} == self.expected
        self.journal.close()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
