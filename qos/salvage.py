"""What can still be read of a run's SQLite file that is damaged or cut short.

SQLite reads a table in the order of its row ids and stops at the first page that is broken. Reading it once from
either end gives every row that does not lie between the broken pages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..bus.errors import RunError
from .database import DatabaseKind, connect_for_reading, is_damage, open_for_reading

_PYTHON_TYPES = {"TEXT": str, "REAL": (int, float), "INTEGER": int, "BLOB": bytes}


def open_or_salvage(path: Path, kind: DatabaseKind) -> tuple[sqlite3.Connection, list[str]]:
    """Open a file for reading, or a copy in memory of what could be read of it; and what is to be said about that.

    The second is empty for a file in order. Raises RunError for a file that is missing, of another kind or of another
    schema version, or that may not be read.
    """
    try:
        connection = open_for_reading(path, kind, once=True)
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            verdict = str(error)
        if verdict == "ok":
            return connection, []
        connection.close()
    except RunError as error:
        if not is_damage(error):
            raise
        verdict = str(error.__cause__)
    return _salvaged(path, kind, verdict)


def _salvaged(path: Path, kind: DatabaseKind, verdict: str) -> tuple[sqlite3.Connection, list[str]]:
    copy = sqlite3.connect(":memory:", isolation_level=None)
    copy.executescript(kind.schema)
    tables = [row[0] for row in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    counts: dict[str, int] = {}
    with suppress(sqlite3.Error):
        damaged = connect_for_reading(path, once=True)
        # Otherwise a file that is shorter than its header says is refused as a whole.
        damaged.execute("PRAGMA writable_schema = ON")
        # A broken page may hold anything where text should be.
        damaged.text_factory = lambda raw: raw.decode(errors="replace")
        counts = {table: _copy_table(damaged, copy, table) for table in tables}
        damaged.close()
    saved = [f"{count} rows of {table}" for table, count in counts.items() if count]
    only = f"only {', '.join(saved)} could be read" if saved else "nothing of it could be read"
    why = " ".join(verdict.split())
    return copy, [f"the {kind.what} {path.name} is damaged ({why}): {only}; restore it from a copy if there is one"]


def _copy_table(damaged: sqlite3.Connection, copy: sqlite3.Connection, table: str) -> int:
    """Copy the rows that can be read and hold what their columns are made for; returns how many."""
    columns = {row[1]: row[2] for row in copy.execute(f"PRAGMA table_info({table})")}
    types = [_PYTHON_TYPES[declared] for declared in columns.values()]
    places = ", ".join("?" * (len(columns) + 1))
    insert = f"INSERT OR IGNORE INTO {table} (rowid, {', '.join(columns)}) VALUES ({places})"
    for order in ("ASC", "DESC"):
        for row in _rows(damaged, f"SELECT rowid, {', '.join(columns)} FROM {table} ORDER BY rowid {order}"):
            if not all(value is None or isinstance(value, kind) for value, kind in zip(row[1:], types, strict=True)):
                continue
            # A row of a broken page may lack what the table demands.
            with suppress(sqlite3.Error):
                copy.execute(insert, row)
    return copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[tuple]:
    """The rows until the first that cannot be read."""
    with suppress(sqlite3.Error):
        yield from connection.execute(query)
