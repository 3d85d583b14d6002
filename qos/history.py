"""Reads what processes have written of themselves (bus/history.py), while they write it or afterwards.

    process.began        pid, boot: a new life of the process; what an earlier one held is gone
  of a vehicle
    task.created         task, created_s, deadline_ms: the journal has it
    narrated.only        why: no task was created, since the journal could not take it
    task.placed          task, attempt, node, place
    task.sent            task, attempt, node
    task.acknowledged    task, attempt, node
    task.refused         task, attempt, node, reason
    answer.received      task, attempt, node, final, whole
    provisional.shown    task, node
    task.ended           task, state, shown: whether the driver now has an answer; reason, node, shown_ms
  of a node
    task.received        vehicle, task, attempt, remaining_ms
    task.admitted        vehicle, task, attempt
    task.rejected        vehicle, task, attempt, reason
    computing.began      vehicle, task, attempt, deadline_s: as the node knows it
    job.ended            vehicle, task, attempt, answered
    answer.published     vehicle, task, attempt, final, whole
  of an edge that asks a cloud
    context.sent         session, rollback, kept, position, digests: one for each position
    token.wanted         session, rollback, up_to
    cloud.gone           session: the edge says the rest of the answer alone
  of a cloud that is asked
    context.opened       edge, session, ttl_s
    context.stored       edge, session, rollback, taken
    token.asked          edge, session, rollback, up_to
    token.said           edge, session, rollback, up_to, tokens, generating; ran_on: for each token, a digest of the
                         sequence that it was computed on
    token.unsaid         edge, session, up_to: missing, too late, or no more of interest
    context.freed        edge, session, why
  of a learner
    weights.published    policy, version, why
  of whoever injects faults
    process.killed, process.stopped, process.continued     target

`at_s` is CLOCK_MONOTONIC, `process` the writer's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a history."""

    at_s: float
    process: str
    name: str
    fields: dict[str, Any]

    def line(self) -> str:
        """As it was written."""
        fixed = {"at_s": self.at_s, "process": self.process, "event": self.name}
        return msgspec.json.encode({**fixed, **self.fields}).decode()


class HistoryReader:
    """Reads the histories of a folder as they grow. torn: lines that are no event, one where a disk was full."""

    def __init__(self, folder: Path) -> None:
        self.torn = 0
        self._folder = folder
        self._read_bytes: dict[Path, int] = {}

    def read_new(self) -> list[Event]:
        """What was written since the last call, by time; a line that is being written is left for the next."""
        events: list[Event] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            begin = self._read_bytes.get(path, 0)
            if path.stat().st_size == begin:
                continue
            with path.open("rb") as file:
                file.seek(begin)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read_bytes[path] = begin + len(whole) + len(newline)
            events += self._parsed(whole.splitlines())
        return sorted(events, key=lambda event: event.at_s)

    def _parsed(self, lines: Iterable[bytes]) -> Iterable[Event]:
        for line in lines:
            event = parse_event(line)
            if event is None:
                self.torn += 1
            else:
                yield event


def read_history(folder: Path) -> tuple[list[Event], int]:
    """Every event of a folder's histories, by time, and how many lines are torn, unended last ones included."""
    reader = HistoryReader(folder)
    events = reader.read_new()
    unended = sum(not path.read_bytes().endswith(b"\n") for path in folder.glob("*.jsonl") if path.stat().st_size)
    return events, reader.torn + unended


def parse_event(line: bytes) -> Event | None:
    """None for what is no whole event."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        return Event(float(fields.pop("at_s")), str(fields.pop("process")), str(fields.pop("event")), fields)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None
