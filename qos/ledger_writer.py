"""The one writer of a run's ledger."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import msgspec

from ..bus.messages import Accepted, Message, NodeState, Outcome, Rejected, Result
from .database import explained, open_for_writing
from .ledger import LEDGER, OUTCOME_COLUMNS, Repeat
from .run import RunDirectory


class LedgerWriter:
    """What is added waits in memory until `flush`, which commits it as one transaction.

    A context manager that flushes and closes. Raises RunError where the file cannot be opened or written.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._path = run.ledger_path
        self._connection = open_for_writing(self._path, LEDGER)
        self._outcomes: list[dict[str, Any]] = []
        self._rows: dict[str, list[dict[str, Any]]] = {"answers": [], "acks": [], "node_states": []}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._connection.close()

    def add(self, body: Message, names: dict[str, str], received_at_s: float) -> None:
        """Keep a message. names: what stands in its address. Raises TypeError for a kind that the ledger has no table
        for."""
        at = {"received_at_s": received_at_s}
        match body:
            case Outcome():
                self._outcomes.append(at | {"vehicle": names["vehicle"]} | _outcome_row(body))
            case Result(is_whole=False):
                pass  # first words: the answer itself is still to come
            case Result():
                self._rows["answers"].append(at | _sender_and_receiver(names) | _answer_row(body))
            case Accepted() | Rejected():
                self._rows["acks"].append(at | _sender_and_receiver(names) | _ack_row(body))
            case NodeState():
                self._rows["node_states"].append(at | _node_state_row(body))
            case _:
                raise TypeError(f"the ledger does not keep a {type(body).__name__}")

    def flush(self) -> None:
        """Commit what waits. Raises RunError, upon which it still waits."""
        if not self._outcomes and not any(self._rows.values()):
            return
        with explained(self._path, LEDGER.what), _transaction(self._connection):
            for row in self._outcomes:
                self._insert("outcomes", [row | {"repeat": self._repeat(row)}])
            for table, rows in self._rows.items():
                self._insert(table, rows)
        self._outcomes.clear()
        for rows in self._rows.values():
            rows.clear()

    def _repeat(self, row: dict[str, Any]) -> Repeat:
        first = self._connection.execute(
            "SELECT fingerprint FROM outcomes WHERE vehicle = ? AND task_id = ? AND repeat = ''",
            (row["vehicle"], row["task_id"]),
        ).fetchone()
        if first is None:
            return ""
        return "redelivered" if first[0] == row["fingerprint"] else "contradicting"

    def _insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            columns = ", ".join(rows[0])
            values = ", ".join(f":{column}" for column in rows[0])
            self._connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk makes SQLite roll back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _sender_and_receiver(names: dict[str, str]) -> dict[str, str]:
    return {"vehicle": names["vehicle"], "node": names["node"]}


def _outcome_row(outcome: Outcome) -> dict[str, Any]:
    truth = outcome.truth
    return {
        "fingerprint": hashlib.blake2b(msgspec.msgpack.encode(outcome), digest_size=16).digest(),
        **{column: getattr(outcome, column) for column in OUTCOME_COLUMNS},
        **msgspec.structs.asdict(outcome.timing),
        "true_action": truth.action if truth else None,
        "true_justification": truth.justification if truth else None,
        "action_correct": truth.action_correct if truth else None,
        "justification_correct": truth.justification_correct if truth else None,
        "made_by": _json(outcome.made_by),
        "decision": None if outcome.decision is None else _json(outcome.decision),
        "context": None if outcome.context is None else _json(outcome.context),
    }


def _answer_row(result: Result) -> dict[str, Any]:
    columns = ("task_id", "attempt", "final", "text", "place", "mode", "model", "confidence")
    return {
        **{column: getattr(result, column) for column in columns},
        **msgspec.structs.asdict(result.timing),
    }


def _ack_row(ack: Accepted | Rejected) -> dict[str, Any]:
    rejected = isinstance(ack, Rejected)
    return {
        "task_id": ack.task_id,
        "attempt": ack.attempt,
        "accepted": not rejected,
        "reason": ack.reason if rejected else "",
        "retry_after_ms": ack.retry_after_ms if rejected else 0.0,
        "wait_ms": ack.load.wait_ms,
    }


def _node_state_row(state: NodeState) -> dict[str, Any]:
    columns = (
        "node", "role", "alive", "model", "model_hash", "uptime_s", "event_loop_lag_ms", "memory_bytes",
    )  # fmt: skip
    load = state.load
    return {
        **{column: getattr(state, column) for column in columns},
        "queued": load.queued if load else None,
        "running": load.running if load else None,
        "slots": load.slots if load else None,
        "wait_ms": load.wait_ms if load else None,
        "counters": _json(state.counters),
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
