"""What a fleet promises of every task, and the checker that holds its histories against that.

Promised, whatever is killed, cut, delayed, repeated or reordered:

1. Every created task ends in exactly one of result, fallback, expired, rejected (otherwise it is `lost`, or has
   `two-endings`), and was in its vehicle's journal before it was anywhere else (`unjournalled`).
2. At most one final answer per (vehicle, task) becomes visible (`duplicate-visible`).
3. No answer becomes visible after its task's deadline, by the vehicle's own monotonic clock, and the narrator does not
   speak for a task whose time has long been over (`stale-shown`).
4. A cloud computes every token on exactly the positions that the asking edge has sent of that session, at that
   roll-back, without a gap, and tells it to that edge (`wrong-context`).
5. A context that nobody speaks of is freed once its time to live is over (`orphan-context`).
6. No node begins to compute what is past its deadline as the node knows it (`expired-computed`). Work under way is
   broken off soon after; what was computed in vain is reported in milliseconds, and is no violation.

Not promised: that a message arrives, that an answer is right, service without coverage, or anything of a machine that
has lost its disk.

The checker knows nothing of how the fleet works: it reads what the processes wrote down (qos/history.py) and what the
journals hold. All of it must come from one machine, whose processes share a monotonic clock.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .contract_contexts import broken_contexts, orphans
from .history import Event
from .journal import JournalEntry
from .report import VISIBLE
from .violations import Violation, stopped_s

# Between the moment at which a vehicle decides to show an answer and the line in its history lies the journal's write.
_WRITING_S = 0.1
# The narrator is called some milliseconds before a deadline; an event loop on a busy machine may be late.
NARRATOR_GRACE_S = 0.5
# A vehicle needs a moment after a deadline to write down how a task ended.
_ENDING_GRACE_S = 2.0
# Between a node's look at the clock and its line.
_BEGINNING_S = 0.02

State = Literal["result", "fallback", "expired", "rejected"]


@dataclass(frozen=True, slots=True)
class Findings:
    """created: tasks that were looked at. computed_in_vain_ms: after the deadline of the task that it was for."""

    created: int
    violations: list[Violation]
    computed_in_vain_ms: float = 0.0

    def count(self, kind: str) -> int:
        return sum(violation.kind == kind for violation in self.violations)


@dataclass(slots=True)
class _Task:
    vehicle: str
    task_id: str
    created: Event | None = None
    ended: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    journal: JournalEntry | None = None

    @property
    def deadline_s(self) -> float:
        assert self.created is not None
        return self.created.fields["created_s"] + self.created.fields["deadline_ms"] / 1000


def check(
    events: Sequence[Event],
    journals: Iterable[JournalEntry] | None = None,
    *,
    since_s: float = -math.inf,
    until_s: float | None = None,
) -> Findings:
    """Hold histories against the contract.

    events: by time. journals: of all the vehicles; None: they are not to be had, and the histories have to do.
    since_s, until_s: only tasks created, tokens said and contexts due between the two are judged, so that a part of a
    long history can be looked at; the events should begin some seconds earlier. until_s: None: the last event.
    """
    if until_s is None:
        until_s = events[-1].at_s if events else 0.0
    tasks = _tasks(events)
    if journals is not None:
        for entry in journals:
            key = entry.vehicle, entry.task_id
            tasks.setdefault(key, _Task(*key)).journal = entry
    judged = [task for task in tasks.values() if _is_judged(task, since_s, until_s)]
    violations: list[Violation] = []
    for task in judged:
        violations += _broken_task(task, until_s, has_journals=journals is not None)
    in_vain_ms, begun_late = _computing(events, tasks, since_s, until_s)
    violations += begun_late
    violations += broken_contexts(events, since_s, until_s)
    violations += orphans(events, since_s, until_s)
    return Findings(len(judged), violations, in_vain_ms)


def _tasks(events: Sequence[Event]) -> dict[tuple[str, str], _Task]:
    tasks: dict[tuple[str, str], _Task] = {}
    for event in events:
        task_id = event.fields.get("task")
        if task_id is None:
            continue
        # A vehicle speaks of its own tasks, a node of somebody's.
        vehicle = event.fields.get("vehicle", event.process)
        task = tasks.setdefault((vehicle, task_id), _Task(vehicle, task_id))
        task.events.append(event)
        if event.name == "task.created":
            task.created = event
        elif event.name == "task.ended":
            task.ended.append(event)
    return tasks


def _is_judged(task: _Task, since_s: float, until_s: float) -> bool:
    if task.created is not None:
        return since_s <= task.created.at_s <= until_s
    # Killed between its journal and its history: known by the journal alone, when is not.
    return task.journal is not None and not task.ended and since_s == -math.inf


def _broken_task(task: _Task, until_s: float, *, has_journals: bool) -> Iterable[Violation]:
    what = f"{task.vehicle}/{task.task_id}"
    events = tuple(task.events)
    in_journal = task.journal is not None and task.journal.state is not None
    if has_journals and task.journal is None:
        yield Violation("unjournalled", what, "its vehicle's journal does not know it", events)
    # Without a journal, the history alone has to say how it ended.
    is_ended = in_journal if has_journals else bool(task.ended)
    due_s = -math.inf if task.created is None else task.deadline_s + _ENDING_GRACE_S
    if not is_ended and due_s <= until_s:
        yield Violation("lost", what, "its time is long over, and it has no ending", events)
    if len(task.ended) > 1:
        states = ", ".join(str(event.fields.get("state")) for event in task.ended)
        yield Violation("two-endings", what, f"it ended as {states}", events)
    journalled = task.journal.state if task.journal is not None else None
    if has_journals and task.ended and journalled not in (None, task.ended[0].fields["state"]):
        said = task.ended[0].fields["state"]
        yield Violation("two-endings", what, f"it ended as {said}, and as {journalled} in the journal", events)
    shown = [event for event in task.ended if event.fields.get("shown")]
    if len(shown) > 1:
        yield Violation("duplicate-visible", what, f"{len(shown)} answers became visible", events)
    if task.created is not None:
        yield from _shown_late(task, what, events)


def _shown_late(task: _Task, what: str, events: tuple[Event, ...]) -> Iterable[Violation]:
    for event in task.events:
        if event.name == "provisional.shown":
            late_s, allowed_s = event.at_s - task.deadline_s, _WRITING_S
        elif event.name == "task.ended" and event.fields["state"] in VISIBLE and event.fields.get("shown"):
            if event.fields.get("reason") == "provisional stands":
                continue  # it became visible when it came
            late_s = event.at_s - task.deadline_s
            allowed_s = _WRITING_S + (NARRATOR_GRACE_S if event.fields["state"] == "fallback" else 0.0)
        else:
            continue
        if late_s > allowed_s:
            yield Violation("stale-shown", what, f"shown {late_s * 1000:.0f} ms after its deadline", events)


def _computing(
    events: Sequence[Event], tasks: dict[tuple[str, str], _Task], since_s: float, until_s: float
) -> tuple[float, list[Violation]]:
    """Milliseconds that nodes computed for tasks whose deadline had passed, and what they began too late."""
    in_vain_s = 0.0
    violations: list[Violation] = []
    began: dict[tuple[str, str, str, int], Event] = {}
    stops: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.name in ("process.stopped", "process.continued"):
            stops[event.fields["target"]].append(event)
        if event.name not in ("computing.began", "job.ended"):
            continue
        fields = event.fields
        key = event.process, fields["vehicle"], fields["task"], fields["attempt"]
        if event.name == "computing.began":
            began[key] = event
            late_s = event.at_s - fields["deadline_s"]
            if late_s > _BEGINNING_S and since_s <= event.at_s <= until_s:
                what = f"{fields['vehicle']}/{fields['task']}"
                why = f"{event.process} began {late_s * 1000:.0f} ms after its deadline"
                violations.append(Violation("expired-computed", what, why, (event,)))
        elif (start := began.pop(key, None)) is not None and since_s <= event.at_s <= until_s:
            task = tasks.get((fields["vehicle"], fields["task"]))
            known = task is not None and task.created is not None
            deadline_s = task.deadline_s if task is not None and known else start.fields["deadline_s"]
            from_s = max(start.at_s, deadline_s)
            stood_still_s = stopped_s(stops[event.process], from_s, event.at_s)
            in_vain_s += max(0.0, event.at_s - from_s - stood_still_s)
    return in_vain_s * 1000, violations
