"""The journal remembers every task that was created, and exactly one ending of each."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from roadside.bus.errors import RunError
from roadside.bus.messages import Outcome, TaskState, Timing
from roadside.qos.journal import Journal, read_journal

from .. import plain_messages

_STATES: list[TaskState] = ["result", "fallback", "expired", "rejected"]


def ending(task_id: str, state: TaskState) -> Outcome:
    return msgspec.structs.replace(
        plain_messages.OUTCOME, task_id=task_id, state=state, timing=Timing(inference_ms=60.0), energy_j=1.5
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vehicle-1.sqlite"


def test_a_task_from_creation_to_its_end(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        (entry,) = journal.open_tasks()
        assert (entry.vehicle, entry.task_id, entry.kind, entry.deadline_ms) == ("vehicle-1", "a", "explain", 2000.0)
        assert entry.state is None
        assert journal.ended(ending("a", "result"))
        assert journal.open_tasks() == []
    (entry,) = read_journal(path)
    assert entry.state == "result"
    assert entry.ended_at_s is not None
    assert entry.ended_at_s >= entry.created_at_s


def test_the_first_ending_stands(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        assert journal.ended(ending("a", "result"))
        assert not journal.ended(ending("a", "fallback"))
        assert not journal.ended(ending("a", "result"))
    (entry,) = read_journal(path)
    assert entry.state == "result"
    assert entry.refused_endings == 2


def test_a_task_that_was_never_created_cannot_end(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal, pytest.raises(ValueError, match="never created"):
        journal.ended(ending("ghost", "result"))


def test_a_used_id_is_refused(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        with pytest.raises(RunError, match="already has a task a"):
            journal.created("a", "hazard", 700.0)
    assert [entry.kind for entry in read_journal(path)] == ["explain"]


def test_what_was_left_open_is_known_to_the_next_life(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        for task_id in ("a", "b", "c"):
            journal.created(task_id, "explain", 2000.0)
        journal.ended(ending("b", "result"))
    with Journal(path, "vehicle-1") as journal:
        assert [entry.task_id for entry in journal.open_tasks()] == ["a", "c"]


def test_an_outcome_is_kept_until_it_is_told(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        for task_id in ("a", "b", "c"):
            journal.created(task_id, "explain", 2000.0)
            journal.ended(ending(task_id, "result"))
        journal.told("b")
        assert journal.untold() == [ending("a", "result"), ending("c", "result")]
    with Journal(path, "vehicle-1") as journal:
        assert journal.untold() == [ending("a", "result"), ending("c", "result")]
        journal.told("a")
        journal.told("c")
        assert journal.untold() == []
    assert {entry.state for entry in read_journal(path)} == {"result"}


def test_only_the_ending_that_stands_is_to_be_told(path: Path) -> None:
    with Journal(path, "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        journal.ended(ending("a", "result"))
        journal.ended(ending("a", "fallback"))
        assert journal.untold() == [ending("a", "result")]


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
            assert journal.ended(ending(task_id, "fallback"))
            assert not journal.ended(ending(task_id, "result"))
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
import msgspec
from roadside.bus.messages import Outcome
from roadside.qos.journal import Journal

ending = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Outcome)
journal = Journal(Path(sys.argv[1]), "vehicle-1")
number = 0
while True:
    number += 1
    journal.created(f"task-{number}", "explain", 2000.0)
    print("created", f"task-{number}", flush=True)
    if number % 2 == 0:
        journal.ended(msgspec.structs.replace(ending, task_id=f"task-{number}"))
        print("ended", f"task-{number}", flush=True)
"""


def test_every_task_survives_the_killing_of_its_vehicle(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(msgspec.msgpack.encode(ending("task-0", "result")))
        writer.stdin.close()
        lines = [writer.stdout.readline() for _ in range(200)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    said = [line.decode().split() for line in lines if line.endswith(b"\n")]
    created = {task_id for what, task_id in said if what == "created"}
    ended = {task_id for what, task_id in said if what == "ended"}
    assert len(created) >= 100

    entries = {entry.task_id: entry.state for entry in read_journal(path)}
    assert created <= entries.keys()
    # The kill may have come between a write and the line that tells of it.
    assert len(entries) <= len(created) + 1
    assert all(entries[task_id] == "result" for task_id in ended)

    left_open = {task_id for task_id, state in entries.items() if state is None}
    with Journal(path, "vehicle-1") as journal:
        assert {entry.task_id for entry in journal.open_tasks()} == left_open
        assert {outcome.task_id for outcome in journal.untold()} == entries.keys() - left_open


class JournalMachine(RuleBasedStateMachine):
    """Whatever is created, ended, ended again, restarted or closed out: a dictionary would say the same."""

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        # In memory there is no file to leave behind; the SQL is the same.
        self.journal = Journal(Path(":memory:"), "vehicle-1")
        self.expected: dict[str, tuple[TaskState | None, int]] = {}
        self.untold: dict[str, TaskState] = {}

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
        assert self.journal.ended(ending(task_id, state)) == (before is None)
        if before is None:
            self.untold[task_id] = state
        self.expected[task_id] = (state, refused) if before is None else (before, refused + 1)

    @rule(task_id=tasks)
    def tell(self, task_id: str) -> None:
        self.journal.told(task_id)
        self.untold.pop(task_id, None)

    @invariant()
    def remembers(self) -> None:
        still_open = [task_id for task_id, (state, _) in self.expected.items() if state is None]
        assert [entry.task_id for entry in self.journal.open_tasks()] == still_open
        assert {outcome.task_id: outcome.state for outcome in self.journal.untold()} == self.untold

    def teardown(self) -> None:
        rows = self.journal._connection.execute("SELECT task_id, state, refused_endings FROM tasks ORDER BY rowid")
        assert {task_id: (state, refused) for task_id, state, refused in rows} == self.expected
        self.journal.close()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
