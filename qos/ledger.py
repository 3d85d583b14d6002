"""What was heard on the bus during a run: a SQLite file that one recorder writes and anybody may read meanwhile.

This module holds the tables and reads them; ledger_writer.py fills them.

    outcomes      one row per outcome that arrived, repeats included and marked
    answers       every provisional and final answer of a node, shown to a driver or not
    acks          every Accepted and Rejected
    node_states   the self-portraits of nodes and vehicles over time

`received_at_s` is the recorder's wall clock, Unix seconds; names, units and meanings of the other columns are those
of bus/messages.py.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

import msgspec

from ..bus.errors import RunError
from ..bus.messages import ContextUse, Decision, Outcome, Part, Role, Timing, Truth
from .database import DatabaseKind, explained, open_for_reading
from .run import RunDirectory
from .salvage import open_or_salvage

# "redelivered": the same message again, as MQTT and a resending vehicle may do it. "contradicting": a second, different
# ending of the same task, which must never happen.
_Part = TypeVar("_Part", bound=Part)

Repeat = Literal["", "redelivered", "contradicting"]

LEDGER = DatabaseKind(
    what="ledger",
    application_id=0x52534C47,  # "RSLG"
    schema_version=2,
    schema="""
    CREATE TABLE outcomes (
        id INTEGER PRIMARY KEY,
        received_at_s REAL NOT NULL,
        vehicle TEXT NOT NULL,
        task_id TEXT NOT NULL,
        repeat TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        text TEXT NOT NULL,
        created_at_s REAL NOT NULL,
        deadline_ms REAL NOT NULL,
        requested TEXT NOT NULL,
        place TEXT NOT NULL,
        node TEXT NOT NULL,
        mode TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        latency_ms REAL NOT NULL,
        first_answer_ms REAL NOT NULL,
        network_ms REAL NOT NULL,
        queue_ms REAL NOT NULL,
        inference_ms REAL NOT NULL,
        context_ms REAL NOT NULL,
        energy_j REAL NOT NULL,
        energy_method TEXT NOT NULL,
        clip TEXT NOT NULL,
        moment_s REAL NOT NULL,
        true_action TEXT,
        true_justification TEXT,
        action_correct INTEGER,
        justification_correct INTEGER,
        made_by TEXT NOT NULL,   -- JSON
        decision TEXT,           -- JSON
        context TEXT             -- JSON
    );
    CREATE UNIQUE INDEX one_ending ON outcomes (vehicle, task_id) WHERE repeat = '';
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        received_at_s REAL NOT NULL,
        vehicle TEXT NOT NULL,
        node TEXT NOT NULL,
        task_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        final INTEGER NOT NULL,
        text TEXT NOT NULL,
        place TEXT NOT NULL,
        mode TEXT NOT NULL,
        model TEXT NOT NULL,
        confidence REAL NOT NULL,
        queue_ms REAL NOT NULL,
        inference_ms REAL NOT NULL,
        context_ms REAL NOT NULL
    );
    CREATE TABLE acks (
        id INTEGER PRIMARY KEY,
        received_at_s REAL NOT NULL,
        vehicle TEXT NOT NULL,
        node TEXT NOT NULL,
        task_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        accepted INTEGER NOT NULL,
        reason TEXT NOT NULL,
        retry_after_ms REAL NOT NULL,
        wait_ms REAL NOT NULL
    );
    CREATE TABLE node_states (
        id INTEGER PRIMARY KEY,
        received_at_s REAL NOT NULL,
        node TEXT NOT NULL,
        role TEXT NOT NULL,
        alive INTEGER NOT NULL,
        model TEXT NOT NULL,
        model_hash TEXT NOT NULL,
        queued INTEGER,          -- this and the next three: NULL where the node does not tell its load
        running INTEGER,
        slots INTEGER,
        wait_ms REAL,
        uptime_s REAL NOT NULL,
        event_loop_lag_ms REAL NOT NULL,
        memory_bytes INTEGER NOT NULL,
        counters TEXT NOT NULL   -- JSON
    );
    CREATE INDEX states_of_node ON node_states (node, alive);
    """,
)

# Fields of an Outcome that are a column as they are.
OUTCOME_COLUMNS = (
    "task_id", "kind", "state", "reason", "text", "created_at_s", "deadline_ms", "requested", "place", "node", "mode",
    "accepted", "attempts", "latency_ms", "first_answer_ms", "network_ms", "energy_j", "energy_method", "clip",
    "moment_s",
)  # fmt: skip
_TIMING_COLUMNS = ("queue_ms", "inference_ms", "context_ms")


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """An outcome as the recorder heard it; `repeat` is empty for the first one of its task."""

    vehicle: str
    received_at_s: float
    repeat: Repeat
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RecordedState:
    """One self-portrait of a node or vehicle, at one moment.

    queued, slots, running, wait_ms: None of those that tell no load.
    """

    received_at_s: float
    node: str
    role: Role
    alive: bool
    model: str
    model_hash: str
    uptime_s: float
    event_loop_lag_ms: float
    memory_bytes: int
    queued: int | None = None
    slots: int | None = None
    running: int | None = None
    wait_ms: float | None = None


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer of a node, provisional or final, seen by a driver or not; the fields are those of `Result`."""

    received_at_s: float
    vehicle: str
    node: str
    task_id: str
    attempt: int
    final: bool
    text: str
    place: str
    mode: str
    model: str
    confidence: float
    queue_ms: float
    inference_ms: float
    context_ms: float


@dataclass(frozen=True, slots=True)
class RecordedAck:
    """What a node said to an attempt before it answered; reason and retry_after_ms are those of a refusal."""

    received_at_s: float
    vehicle: str
    node: str
    task_id: str
    attempt: int
    accepted: bool
    reason: str
    retry_after_ms: float
    wait_ms: float


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node or vehicle over the whole run.

    answers: final answers that it published, shown or not. refusals: attempts that it rejected.
    peak_memory_bytes: resident set size; worst_event_loop_lag_ms: the highest of the reported 99th percentiles.
    """

    node: str
    role: Role
    model: str
    peak_memory_bytes: int
    worst_event_loop_lag_ms: float
    answers: int
    refusals: int


class Ledger:
    """A run's ledger, open for reading, also while it is written; a context manager.

    damage: what is missing of one that was salvaged, a line each.
    Raises RunError where the file is missing, damaged, something else or of another schema version.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, damage: list[str] | None = None) -> None:
        self._path = path
        self._connection = connection
        self._connection.row_factory = sqlite3.Row
        self._may_be_damaged = damage is not None
        self.damage = damage or []

    @classmethod
    def open(cls, run: RunDirectory) -> Self:
        return cls(run.ledger_path, open_for_reading(run.ledger_path, LEDGER))

    @classmethod
    def salvage(cls, run: RunDirectory) -> Self:
        """Open what can be read of a ledger that may be damaged, to read it once. Raises RunError for another kind of
        file and for another schema version."""
        return cls(run.ledger_path, *open_or_salvage(run.ledger_path, LEDGER))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def outcomes(self) -> list[RecordedOutcome]:
        """Every outcome that was heard, repeats included, in the order of arrival."""
        outcomes: list[RecordedOutcome] = []
        unreadable = 0
        for row in self._rows("SELECT * FROM outcomes ORDER BY id"):
            try:
                outcomes.append(RecordedOutcome(row["vehicle"], row["received_at_s"], row["repeat"], _outcome_of(row)))
            except msgspec.MsgspecError as error:
                if not self._may_be_damaged:
                    raise RunError(
                        f"the ledger {self._path} holds an outcome that cannot be read ({error}): restore it from a"
                        " copy or repeat the run"
                    ) from error
                unreadable += 1
        if unreadable:
            self.damage.append(f"{unreadable} outcomes in the ledger {self._path.name} hold what is no outcome")
        return outcomes

    def node_states(self) -> list[RecordedState]:
        """The self-portraits of nodes and vehicles, in the order of arrival."""
        columns = ", ".join(RecordedState.__slots__)
        rows = self._rows(f"SELECT {columns} FROM node_states ORDER BY id")
        return [RecordedState(**{**dict(row), "alive": bool(row["alive"])}) for row in rows]

    def answers(self) -> list[RecordedAnswer]:
        """Every answer of a node, in the order of arrival."""
        rows = self._rows(f"SELECT {', '.join(RecordedAnswer.__slots__)} FROM answers ORDER BY id")
        return [RecordedAnswer(**{**dict(row), "final": bool(row["final"])}) for row in rows]

    def acks(self) -> list[RecordedAck]:
        """Every acceptance and refusal, in the order of arrival."""
        rows = self._rows(f"SELECT {', '.join(RecordedAck.__slots__)} FROM acks ORDER BY id")
        return [RecordedAck(**{**dict(row), "accepted": bool(row["accepted"])}) for row in rows]

    def nodes(self) -> list[NodeRecord]:
        """One row per node or vehicle that was ever alive: vehicles, edges, clouds."""
        return [NodeRecord(**dict(row)) for row in self._rows(_NODES)]

    def counters(self) -> Counter[str]:
        """What nodes and vehicles counted, by the counters' names: the last that was heard of each of their lives."""
        totals: Counter[str] = Counter()
        last: dict[str, tuple[float, str]] = {}
        for row in self._rows("SELECT node, uptime_s, counters FROM node_states WHERE alive ORDER BY id"):
            before = last.get(row["node"])
            if before is not None and row["uptime_s"] < before[0]:
                totals.update(msgspec.json.decode(before[1], type=dict[str, int]))
            last[row["node"]] = row["uptime_s"], row["counters"]
        for _, counters in last.values():
            totals.update(msgspec.json.decode(counters, type=dict[str, int]))
        return totals

    def refusals(self) -> dict[str, int]:
        """How often nodes rejected an attempt, by reason, the most frequent first."""
        rows = self._rows(
            "SELECT reason, count(*) AS times FROM acks WHERE NOT accepted GROUP BY reason ORDER BY times DESC, reason"
        )
        return {row["reason"]: row["times"] for row in rows}

    def _rows(self, query: str) -> list[sqlite3.Row]:
        with explained(self._path, LEDGER.what):
            return self._connection.execute(query).fetchall()


# A last will names nothing but its node, so the model is that of the last state while alive.
_NODES = """
    SELECT last.node, last.role, last.model, peak_memory_bytes, worst_event_loop_lag_ms,
        (SELECT count(*) FROM answers WHERE answers.node = last.node AND final) AS answers,
        (SELECT count(*) FROM acks WHERE acks.node = last.node AND NOT accepted) AS refusals
    FROM node_states AS last JOIN (
        SELECT max(id) AS id, max(memory_bytes) AS peak_memory_bytes,
            max(event_loop_lag_ms) AS worst_event_loop_lag_ms
        FROM node_states WHERE alive GROUP BY node
    ) USING (id)
    ORDER BY CASE last.role WHEN 'vehicle' THEN 0 WHEN 'edge' THEN 1 ELSE 2 END, last.node
"""


def _outcome_of(row: sqlite3.Row) -> Outcome:
    """The Outcome that a row of the table `outcomes` was made from."""
    truth = None
    if row["true_action"] is not None:
        truth = Truth(
            action=row["true_action"],
            justification=row["true_justification"],
            action_correct=_verdict(row["action_correct"]),
            justification_correct=_verdict(row["justification_correct"]),
        )
    plain = {column: row[column] for column in OUTCOME_COLUMNS}
    return Outcome(
        **{**plain, "accepted": bool(plain["accepted"])},
        timing=Timing(**{column: row[column] for column in _TIMING_COLUMNS}),
        made_by=msgspec.json.decode(row["made_by"], type=tuple[str, ...]),
        decision=_part(row["decision"], Decision),
        truth=truth,
        context=_part(row["context"], ContextUse),
    )


def _part(stored: str | None, kind: type[_Part]) -> _Part | None:
    return None if stored is None else msgspec.json.decode(stored, type=kind)


def _verdict(stored: int | None) -> bool | None:
    return None if stored is None else bool(stored)
