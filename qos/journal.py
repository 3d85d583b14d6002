"""A vehicle's own record of its tasks, which nothing that happens elsewhere can take away.

A task is written here before it is published and stays open until its one terminal state. Its outcome is written
together with that state and kept until the broker has it, so that neither an absent broker nor the vehicle's own death
keeps the world from hearing of it. The vehicle writes the journal and the report reconciles the run's ledger with it,
which is why it lives in this package: the two are built on layers that do not import each other.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

from ..bus.errors import RunError
from ..bus.messages import Outcome, TaskState
from .database import DatabaseKind, explained, open_for_reading, open_for_writing
from .salvage import open_or_salvage

_log = structlog.get_logger(__name__)

# A vehicle needs a moment after a deadline to write down how a task ended; until then the task is not lost.
_ENDING_GRACE_S = 2.0

_KIND = DatabaseKind(
    what="journal",
    application_id=0x52534A4E,  # "RSJN"
    schema_version=2,
    schema="""
    CREATE TABLE owner (vehicle TEXT NOT NULL);
    CREATE TABLE tasks (
        task_id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        deadline_ms REAL NOT NULL,
        created_at_s REAL NOT NULL,
        state TEXT,
        ended_at_s REAL,
        refused_endings INTEGER NOT NULL DEFAULT 0,
        untold BLOB              -- the outcome, as MessagePack, until the broker has it
    );
    CREATE INDEX untold_outcomes ON tasks (task_id) WHERE untold IS NOT NULL;
    """,
)


class JournalEntry(msgspec.Struct, frozen=True):
    """One task as its vehicle remembers it.

    created_at_s, ended_at_s: Unix seconds; state: None while the task is open.
    refused_endings: second terminal states that were not recorded.
    """

    vehicle: str
    task_id: str
    kind: str
    deadline_ms: float
    created_at_s: float
    state: TaskState | None
    ended_at_s: float | None
    refused_endings: int

    @property
    def ends_by_s(self) -> float:
        """Until when the vehicle has written down how it ended; a moment after the deadline, Unix seconds."""
        return self.created_at_s + self.deadline_ms / 1000 + _ENDING_GRACE_S


class Journal:
    """The journal of one vehicle, open for writing; a context manager. Used from one thread.

    Every call is its own transaction and survives the death of the process. Raises RunError where the file cannot be
    used or belongs to another vehicle.
    """

    def __init__(self, path: Path, vehicle: str) -> None:
        self.path = path
        self.vehicle = vehicle
        self._unwritten: deque[tuple[Outcome, float]] = deque()
        self._connection = open_for_writing(path, _KIND)
        try:
            with explained(path, _KIND.what):
                self._claim()
        except BaseException:
            self._connection.close()
            raise

    def _claim(self) -> None:
        owner = self._connection.execute("SELECT vehicle FROM owner").fetchone()
        if owner is None:
            self._connection.execute("INSERT INTO owner VALUES (?)", (self.vehicle,))
        elif owner[0] != self.vehicle:
            raise RunError(f"{self.path} is the journal of {owner[0]}: give {self.vehicle} a file of its own")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what still waits, and close. Raises RunError where that is not possible."""
        try:
            self._write_endings()
        finally:
            self._connection.close()

    def created(self, task_id: str, kind: str, deadline_ms: float) -> None:
        """Record a task; call it before the task is published.

        Raises RunError where the record cannot be made (the disk is full, the id was used before); the task must then
        not be begun.
        """
        self._write_endings()
        try:
            with explained(self.path, _KIND.what):
                self._connection.execute(
                    "INSERT INTO tasks (task_id, kind, deadline_ms, created_at_s) VALUES (?, ?, ?, ?)",
                    (task_id, kind, deadline_ms, time.time()),
                )
        except RunError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise RunError(
                    f"{self.path} already has a task {task_id}: give every task an id of its own, after a restart too"
                ) from error
            raise

    def ended(self, outcome: Outcome) -> bool:
        """Record the terminal state of a task, and keep its outcome until `told`.

        The first one stands: a later one is counted and answered with False. Does not raise on a full disk, since the
        driver has the answer by now: the outcome is kept in memory and written before the next task can be created.
        Raises ValueError for a task that was never created.
        """
        task_id = outcome.task_id
        if self._connection.execute("SELECT 1 FROM tasks WHERE task_id = ?", (task_id,)).fetchone() is None:
            raise ValueError(f"task {task_id} was never created in {self.path}")
        first_in_memory = all(waiting.task_id != task_id for waiting, _ in self._unwritten)
        self._unwritten.append((outcome, time.time()))
        try:
            return self._write_endings()[-1]
        except RunError as error:
            _log.error("ending not written yet", vehicle=self.vehicle, task_id=task_id, error=str(error))
            return first_in_memory

    def _write_endings(self) -> list[bool]:
        """Write the endings that wait; for each, whether it was its task's first."""
        were_first: list[bool] = []
        with explained(self.path, _KIND.what):
            while self._unwritten:
                were_first.append(self._write_ending(*self._unwritten[0]))
                self._unwritten.popleft()
        return were_first

    def _write_ending(self, outcome: Outcome, ended_at_s: float) -> bool:
        recorded = self._connection.execute(
            "UPDATE tasks SET state = ?, ended_at_s = ?, untold = ? WHERE task_id = ? AND state IS NULL",
            (outcome.state, ended_at_s, msgspec.msgpack.encode(outcome), outcome.task_id),
        )
        if recorded.rowcount:
            return True
        self._connection.execute(
            "UPDATE tasks SET refused_endings = refused_endings + 1 WHERE task_id = ?", (outcome.task_id,)
        )
        return False

    def told(self, task_id: str) -> None:
        """The broker has the outcome. Where that cannot be written, the outcome is told once more by the next life,
        which does no harm."""
        try:
            with explained(self.path, _KIND.what):
                self._connection.execute("UPDATE tasks SET untold = NULL WHERE task_id = ?", (task_id,))
        except RunError as error:
            _log.error("outcome not marked as told", vehicle=self.vehicle, task_id=task_id, error=str(error))

    def untold(self) -> list[Outcome]:
        """The outcomes that the broker is not known to have, oldest first."""
        with explained(self.path, _KIND.what):
            rows = self._connection.execute("SELECT untold FROM tasks WHERE untold IS NOT NULL ORDER BY rowid")
            return [msgspec.msgpack.decode(row[0], type=Outcome) for row in rows]

    def open_tasks(self) -> list[JournalEntry]:
        """The tasks without a terminal state, oldest first."""
        waiting = {outcome.task_id for outcome, _ in self._unwritten}
        with explained(self.path, _KIND.what):
            entries = _entries(self._connection)
        return [entry for entry in entries if entry.state is None and entry.task_id not in waiting]


def read_journal(path: Path) -> list[JournalEntry]:
    """All tasks of a journal, oldest first, also while its vehicle writes it. Raises RunError."""
    connection = open_for_reading(path, _KIND)
    try:
        with explained(path, _KIND.what):
            return _entries(connection)
    finally:
        connection.close()


def salvage_journal(path: Path) -> tuple[list[JournalEntry], list[str]]:
    """What can be read of a journal that may be damaged, and what is to be said about that; never raises RunError."""
    try:
        connection, damage = open_or_salvage(path, _KIND)
        try:
            with explained(path, _KIND.what):
                if damage and connection.execute("SELECT count(*) FROM owner").fetchone()[0] == 0:
                    connection.execute("INSERT INTO owner VALUES (?)", (path.stem,))
                return _entries(connection), damage
        finally:
            connection.close()
    except RunError as error:
        return [], [str(error)]


def _entries(connection: sqlite3.Connection) -> list[JournalEntry]:
    rows = connection.execute(
        "SELECT vehicle, task_id, kind, deadline_ms, created_at_s, state, ended_at_s, refused_endings"
        " FROM tasks, owner ORDER BY tasks.rowid"
    )
    return [JournalEntry(*row) for row in rows]
