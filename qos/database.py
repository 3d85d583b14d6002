"""What a run's SQLite files have in common: who they are, their schema version, and one line when one cannot be used.

Both kinds are written in WAL mode, so a report can be made while the run goes on, and what a killed process had
written stays written. synchronous=NORMAL leaves the waiting for the disk to the checkpoints: a crash of the machine
(not of the process) may cost the last moments, and a write costs microseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..bus.errors import RunError

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """what: what a person calls such a file. application_id: stands in the file's header, so that it is not taken
    for another kind. schema_version: raised whenever `schema` changes."""

    what: str
    application_id: int
    schema_version: int
    schema: str


def open_for_writing(path: Path, kind: DatabaseKind) -> sqlite3.Connection:
    """Open the file, or create it with its tables; every statement commits unless BEGIN says otherwise.

    Raises RunError where the file cannot be written or is something else.
    """
    with explained(path, kind.what):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                connection.executescript(
                    f"BEGIN; {kind.schema} PRAGMA application_id = {kind.application_id};"
                    f" PRAGMA user_version = {kind.schema_version}; COMMIT;"
                )
            _check(connection, path, kind)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path, kind: DatabaseKind, *, once: bool = False) -> sqlite3.Connection:
    """Open an existing file, which may still be written to by another process.

    once: the connection need not see what is written after it was opened, and leaves no file behind.
    Raises RunError where it is missing, damaged, something else or of another schema version.
    """
    if not path.is_file():
        raise RunError(f"there is no {kind.what} at {path}: give a run directory that `roadside demo` has made")
    with explained(path, kind.what):
        connection = connect_for_reading(path, once=once)
        try:
            _check(connection, path, kind)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_for_reading(path: Path, *, once: bool) -> sqlite3.Connection:
    """Connect to an existing file without a look at it; once: as in `open_for_reading`. Raises sqlite3.Error.

    A writer that has written keeps a log beside its file. Where there is none, "immutable" keeps SQLite from making one
    just to read: a run that is over stays as it is, and may lie where nothing can be written.
    """
    at_rest = once and not path.with_name(f"{path.name}-wal").exists()
    mode = "mode=ro&immutable=1" if at_rest else "mode=ro"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, isolation_level=None)


def is_damage(error: RunError) -> bool:
    """Whether a RunError of this module is about a file whose content is broken."""
    return _family(error.__cause__) in _DAMAGED


def _check(connection: sqlite3.Connection, path: Path, kind: DatabaseKind) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != kind.application_id:
        raise RunError(f"{path} is not a {kind.what} of roadside: give a run directory that `roadside demo` has made")
    if version != kind.schema_version:
        raise RunError(
            f"{path} is a {kind.what} of schema {version}, this roadside reads schema {kind.schema_version}:"
            " use the version that stands in the run's manifest.json"
        )


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn SQLite's errors into a RunError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        family = _family(error)
        if family in _FULL:
            raise RunError(
                f"the {what} {path} cannot be written ({error}): free space on its disk or give the run another folder"
            ) from error
        if family in _DAMAGED:
            raise RunError(
                f"the {what} {path} is damaged ({error}): restore it from a copy or repeat the run"
            ) from error
        raise RunError(f"the {what} {path} cannot be used ({error}): check the file and its permissions") from error


def _family(error: BaseException | None) -> int:
    """The low byte of SQLite's code; the rest tells where in SQLite it happened."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
