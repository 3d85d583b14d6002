"""A run with everything that was heard in it: what a report, an export or a search for causes is made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from ..bus.errors import RunError
from ..bus.messages import Outcome
from .frames import KeptFrame, read_index
from .ledger import RecordedAck, RecordedAnswer, RecordedState
from .run import RunDirectory
from .run_record import RunRecord, read_run, salvaged_ledger

# Nodes and vehicles speak twice a second: who is silent for so long is not there, or cannot be heard.
_SILENT_AFTER_S = 5.0

TaskKey = tuple[str, str]  # vehicle, task id
_Row = TypeVar("_Row", RecordedAnswer, RecordedAck)


@dataclass(frozen=True, slots=True)
class Absence:
    """A member of the fleet was not there, by the recorder's clock in Unix seconds. until_s: None where it never came
    back. announced: by its last will or its good-bye; otherwise it had only fallen silent."""

    node: str
    from_s: float
    until_s: float | None
    announced: bool

    def covers(self, at_s: float) -> bool:
        return self.from_s <= at_s and (self.until_s is None or at_s < self.until_s)


@dataclass(frozen=True)
class Evidence:
    """record: journals and outcomes; the rest as it was heard on the bus, in the order of arrival.

    damage: what could not be read of the ledger, the journals or the index of frames, a line each.
    """

    record: RunRecord
    answers: Sequence[RecordedAnswer] = ()
    acks: Sequence[RecordedAck] = ()
    states: Sequence[RecordedState] = ()
    frames: Sequence[KeptFrame] = ()
    damage: Sequence[str] = field(default=())

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The first ending of each task that the recorder heard of."""
        return [recorded.outcome for recorded in self.record.outcomes if not recorded.repeat]

    @cached_property
    def outcome_of(self) -> dict[TaskKey, Outcome]:
        return {(one.vehicle, one.outcome.task_id): one.outcome for one in self.record.outcomes if not one.repeat}

    @cached_property
    def vehicle_of(self) -> dict[int, str]:
        """By the id() of an outcome in `outcomes`."""
        return {id(one.outcome): one.vehicle for one in self.record.outcomes}

    @cached_property
    def answers_of(self) -> dict[TaskKey, list[RecordedAnswer]]:
        return _by_task(self.answers)

    @cached_property
    def acks_of(self) -> dict[TaskKey, list[RecordedAck]]:
        return _by_task(self.acks)

    @cached_property
    def frames_of(self) -> dict[TaskKey, list[KeptFrame]]:
        frames: defaultdict[TaskKey, list[KeptFrame]] = defaultdict(list)
        for frame in self.frames:
            if frame.origin.task_id is not None:
                frames[frame.origin.vehicle, frame.origin.task_id].append(frame)
        return dict(frames)

    @cached_property
    def absences(self) -> list[Absence]:
        return absences(self.states)

    @cached_property
    def began_at_s(self) -> float:
        """When the fleet was first heard, or made its first task; the start of what is drawn over time."""
        heard = [state.received_at_s for state in self.states[:1]]
        created = [outcome.created_at_s for outcome in self.outcomes]
        return min(heard + created, default=self.record.manifest.started_at.timestamp())


def read_evidence(run: RunDirectory) -> Evidence:
    """Read all of a run, which may go on or be damaged. Raises RunError as `read_run` does."""
    record = read_run(run)
    answers: list[RecordedAnswer] = []
    acks: list[RecordedAck] = []
    states: list[RecordedState] = []
    with salvaged_ledger(run, []) as ledger:  # `record` says what of it is missing
        if ledger is not None:
            answers, acks, states = ledger.answers(), ledger.acks(), ledger.node_states()
    damage = list(record.damage)
    try:
        frames = read_index(run.frames_path)
    except RunError as error:
        frames = []
        damage.append(str(error))
    return Evidence(record, answers, acks, states, frames, damage)


def absences(states: Iterable[RecordedState]) -> list[Absence]:
    """When which members were away, in the order of its beginning.

    Between two states of one member there may be nothing for a while because nobody was heard, the broker being away:
    then every member is absent at once. The end of a recording is nobody's silence.
    """
    found: list[Absence] = []
    last: dict[str, RecordedState] = {}
    for state in states:
        before = last.get(state.node)
        if before is not None:
            silent = state.received_at_s - before.received_at_s > _SILENT_AFTER_S
            if not before.alive and state.alive:
                found.append(Absence(state.node, before.received_at_s, state.received_at_s, announced=True))
            elif before.alive and state.alive and silent:
                found.append(Absence(state.node, before.received_at_s, state.received_at_s, announced=False))
        if before is None or before.alive or state.alive:
            last[state.node] = state
    ended_s = max((state.received_at_s for state in last.values()), default=0.0)
    for state in last.values():
        if not state.alive:
            found.append(Absence(state.node, state.received_at_s, None, announced=True))
        elif ended_s - state.received_at_s > _SILENT_AFTER_S:
            found.append(Absence(state.node, state.received_at_s, None, announced=False))
    return sorted(found, key=lambda absence: (absence.from_s, absence.node))


def _by_task(rows: Iterable[_Row]) -> dict[TaskKey, list[_Row]]:
    grouped: defaultdict[TaskKey, list[_Row]] = defaultdict(list)
    for row in rows:
        grouped[row.vehicle, row.task_id].append(row)
    return dict(grouped)
