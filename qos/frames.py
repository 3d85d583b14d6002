"""Frames that a recorder keeps of a run: image files by vehicle and time, with an index, for as long as is allowed.

frames/index.sqlite                     which files there are, of which vehicle, task and moment, and for how long
frames/<vehicle>/<UTC time>-<...>.jpg   the images, as they came over the bus

The index carries the rule by which its frames are deleted, so that any later recorder can enforce it. A row is
written before its file: a killed recorder may leave a row without a file, never a file that nothing would delete.
"""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import structlog

from ..bus.errors import RunError
from .database import DatabaseKind, explained, open_for_reading, open_for_writing
from .retention import FrameRetention

_KIND = DatabaseKind(
    what="index of frames",
    application_id=0x52534652,  # "RSFR"
    schema_version=1,
    schema="""
    CREATE TABLE retention (keep TEXT NOT NULL, max_age_s REAL NOT NULL, max_bytes INTEGER NOT NULL);
    CREATE TABLE frames (
        id INTEGER PRIMARY KEY,
        file TEXT NOT NULL,      -- below the folder of the index
        received_at_s REAL NOT NULL,
        vehicle TEXT NOT NULL,
        task_id TEXT,
        clip TEXT,
        moment_s REAL,
        bytes INTEGER NOT NULL
    );
    CREATE INDEX by_age ON frames (received_at_s);
    CREATE INDEX of_task ON frames (vehicle, task_id);
    """,
)
_INDEX = "index.sqlite"
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a frame comes from. received_at_s: the recorder's wall clock; a task's frame tells no clip or moment."""

    vehicle: str
    received_at_s: float
    task_id: str | None = None
    clip: str | None = None
    moment_s: float | None = None


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame that a run still holds. path: of the image file; size_bytes: of that file, as the index says."""

    path: Path
    size_bytes: int
    origin: Origin


def read_index(folder: Path) -> list[KeptFrame]:
    """The frames of a run whose files are there, oldest first; none where the folder has no index. Raises RunError.

    A run may have come from somebody else: what its index calls a file outside of the folder is left out.
    """
    if not (folder / _INDEX).is_file():
        return []
    inside = folder.resolve()
    connection = open_for_reading(folder / _INDEX, _KIND, once=True)
    try:
        with explained(folder / _INDEX, _KIND.what):
            rows = connection.execute(
                "SELECT file, bytes, vehicle, received_at_s, task_id, clip, moment_s FROM frames"
                " ORDER BY received_at_s, id"
            ).fetchall()
    finally:
        connection.close()
    frames = [KeptFrame((folder / file).resolve(), size, Origin(*origin)) for file, size, *origin in rows]
    return [frame for frame in frames if frame.path.is_relative_to(inside) and frame.path.is_file()]


class FrameStore:
    """The kept frames of one run, open for writing; a context manager. Used from one thread.

    retention: the rule from now on, also for frames that are there already; None: the one that stands in the index.
    stored, expired, gave_way: how many frames this store has written, deleted for their age, deleted for room.
    Raises RunError where the folder cannot be written or the index is something else.
    """

    def __init__(self, folder: Path, retention: FrameRetention | None = None) -> None:
        self._folder = folder
        try:
            # A frame may show people who know nothing of it: nobody but the recorder's user has a look.
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {folder} ({error.strerror}): give a run that can be written") from error
        self._connection = open_for_writing(folder / _INDEX, _KIND)
        try:
            self.retention = self._agree_on(retention)
        except BaseException:
            self._connection.close()
            raise
        self.stored = self.expired = self.gave_way = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _agree_on(self, retention: FrameRetention | None) -> FrameRetention:
        if retention is None:
            rows = self._execute("SELECT keep, max_age_s, max_bytes FROM retention").fetchall()
            return FrameRetention(*rows[0]) if rows else FrameRetention()
        self._execute("DELETE FROM retention")
        self._execute(
            "INSERT INTO retention VALUES (?, ?, ?)", retention.keep, retention.max_age_s, retention.max_bytes
        )
        return retention

    def add(self, image: bytes, origin: Origin) -> bool:
        """Keep a JPEG or PNG file; anything else is not kept, and answered with False. Raises RunError."""
        suffix = next((suffix for magic, suffix in _SUFFIXES.items() if image.startswith(magic)), None)
        if suffix is None:
            return False
        at = f"{datetime.fromtimestamp(origin.received_at_s, UTC):%Y%m%d-%H%M%S.%f}"
        file = f"{origin.vehicle}/{at}-{secrets.token_hex(3)}{suffix}"
        number = self._execute(
            "INSERT INTO frames (file, received_at_s, vehicle, task_id, clip, moment_s, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(file, origin.received_at_s, origin.vehicle, origin.task_id, origin.clip, origin.moment_s, len(image)),
        ).lastrowid
        assert number is not None
        try:
            (self._folder / origin.vehicle).mkdir(exist_ok=True)
            (self._folder / file).write_bytes(image)
        except OSError as error:
            self._delete([(number, file)])
            raise RunError(f"cannot keep a frame in {self._folder} ({error.strerror}): free space there") from error
        self.stored += 1
        return True

    def has_task(self, vehicle: str, task_id: str) -> bool:
        """Whether a frame of the task is here: one that is sent again, or tried elsewhere, is the same."""
        query = "SELECT 1 FROM frames WHERE vehicle = ? AND task_id = ? LIMIT 1"
        return self._execute(query, vehicle, task_id).fetchone() is not None

    def delete_due(self, now_s: float) -> None:
        """Delete what is too old, then the oldest until the rest fits. Raises RunError.

        now_s: Unix seconds.
        """
        too_old = "SELECT id, file FROM frames WHERE received_at_s < ?"
        self.expired += self._delete(self._execute(too_old, now_s - self.retention.max_age_s).fetchall())
        self.gave_way += self._delete(self._beyond_the_limit())

    def _beyond_the_limit(self) -> list[tuple[int, str]]:
        """The oldest frames without which the rest fits."""
        _, total = self.remaining()
        excess = total - self.retention.max_bytes
        oldest: list[tuple[int, str]] = []
        frames = self._execute("SELECT id, file, bytes FROM frames ORDER BY received_at_s, id")
        while excess > 0:
            number, file, size = frames.fetchone()
            oldest.append((number, file))
            excess -= size
        return oldest

    def remaining(self) -> tuple[int, int]:
        """How many frames are kept now, and their bytes."""
        return self._execute("SELECT count(*), ifnull(sum(bytes), 0) FROM frames").fetchone()

    def _delete(self, frames: list[tuple[int, str]]) -> int:
        for number, file in frames:
            try:
                # A recorder that was killed between row and file has left the row alone.
                with suppress(FileNotFoundError, NotADirectoryError):
                    (self._folder / file).unlink()
            except OSError as error:
                raise RunError(f"cannot delete {self._folder / file} ({error.strerror}): delete it yourself") from error
            self._execute("DELETE FROM frames WHERE id = ?", number)
        return len(frames)

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        with explained(self._folder / _INDEX, _KIND.what):
            return self._connection.execute(statement, values)


def delete_due_of_all_runs(folder: Path, now_s: float) -> int:
    """Enforce what every run in a folder says of its own frames; returns how many were deleted.

    Most runs are recorded once, and no recorder comes back to their folder: so each one looks after its neighbours. A
    run whose frames cannot be deleted is logged and passed over.
    """
    deleted = 0
    for index in sorted(folder.glob(f"*/frames/{_INDEX}")):
        try:
            with FrameStore(index.parent) as store:
                store.delete_due(now_s)
                deleted += store.expired + store.gave_way
        except RunError as error:
            _log.warning("frames not deleted", run=index.parent.parent.name, why=str(error))
    return deleted
