"""What was heard of each task, in a ring: who took it, who answered, how it ended, and when.

Outcome, acknowledgements and answers come on topics of their own, hence in any order; a trace takes them as they come.
Their times are those at which the page heard them, on its own clock, since the clocks of a fleet may disagree; the
outcome brings the vehicle's own measurement, and `TaskTrace.since_created_ms` puts the two together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from ..bus.messages import Accepted, Decision, Outcome, Rejected, Result

TRACES = 400
# Of one task: what a vehicle that resends, or a hostile node, can make the page remember.
_EVENTS = 24
_TOKENS = 512
_CANDIDATES = 64
# A task of which nothing more is heard for so long will not be told any more: its vehicle, or the broker, has gone.
UNDER_WAY_S = 15.0

What = Literal["accepted", "rejected", "provisional", "final", "outcome"]


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """heard_s: on the page's monotonic clock. text: the answer, or why it was refused. made_by: as in Result."""

    heard_s: float
    what: What
    node: str
    text: str = ""
    made_by: tuple[str, ...] = ()


@dataclass(slots=True)
class TaskTrace:
    """number: counts the traces, so that the newest task has the highest."""

    vehicle: str
    task_id: str
    number: int
    first_heard_s: float
    last_heard_s: float
    events: list[TraceEvent] = field(default_factory=list)
    outcome: Outcome | None = None
    candidates_left_out: int = 0

    @property
    def provisional(self) -> TraceEvent | None:
        """The newest provisional answer, while there is no final one."""
        answers = [event for event in self.events if event.what in ("provisional", "final")]
        newest = max(answers, key=lambda event: event.heard_s, default=None)
        return newest if newest is not None and newest.what == "provisional" else None

    def is_under_way(self, now_s: float) -> bool:
        return self.outcome is None and now_s - self.last_heard_s < UNDER_WAY_S

    def since_created_ms(self, event: TraceEvent) -> float | None:
        """When something was heard, in milliseconds after the task's creation; None while the outcome is not known.

        The outcome, which the vehicle sends as it shows the answer, ties the page's clock to the vehicle's: correct to
        the time that messages take from the vehicle to the page.
        """
        ended = next((each for each in self.events if each.what == "outcome"), None)
        if ended is None or self.outcome is None:
            return None
        return self.outcome.latency_ms - (ended.heard_s - event.heard_s) * 1000


class TaskTraces:
    """The last `limit` tasks of which anything was heard."""

    def __init__(self, limit: int = TRACES) -> None:
        self._limit = limit
        self._traces: OrderedDict[tuple[str, str], TaskTrace] = OrderedDict()
        self._counted = 0

    def __len__(self) -> int:
        return len(self._traces)

    def __iter__(self) -> Iterator[TaskTrace]:
        """Newest first."""
        return reversed(self._traces.values())

    def get(self, vehicle: str, task_id: str) -> TaskTrace | None:
        return self._traces.get((vehicle, task_id))

    def accepted(self, vehicle: str, node: str, body: Accepted | Rejected, now_s: float) -> None:
        """A node takes or refuses an attempt."""
        if isinstance(body, Accepted):
            event = TraceEvent(now_s, "accepted", node)
        else:
            event = TraceEvent(now_s, "rejected", node, body.reason)
        self._add(vehicle, body.task_id, event)

    def answered(self, vehicle: str, node: str, body: Result, now_s: float) -> None:
        """A node answers; the first words of an answer are none."""
        if body.is_whole:
            what: What = "final" if body.final else "provisional"
            self._add(vehicle, body.task_id, TraceEvent(now_s, what, node, body.text, body.made_by[:_TOKENS]))

    def ended(self, vehicle: str, outcome: Outcome, now_s: float) -> bool:
        """A vehicle tells how a task ended; False where that had been told before."""
        trace = self._trace(vehicle, outcome.task_id, now_s)
        if trace.outcome is not None:
            return False
        trace.outcome, trace.candidates_left_out = _bounded(outcome)
        # However much was heard before: without its end a trace has no clock.
        del trace.events[_EVENTS - 1 :]
        self._add(vehicle, outcome.task_id, TraceEvent(now_s, "outcome", outcome.node, outcome.text))
        return True

    def _add(self, vehicle: str, task_id: str, event: TraceEvent) -> None:
        trace = self._trace(vehicle, task_id, event.heard_s)
        trace.last_heard_s = event.heard_s
        if len(trace.events) < _EVENTS:
            trace.events.append(event)

    def _trace(self, vehicle: str, task_id: str, now_s: float) -> TaskTrace:
        key = (vehicle, task_id)
        if (trace := self._traces.get(key)) is None:
            self._counted += 1
            trace = self._traces[key] = TaskTrace(vehicle, task_id, self._counted, now_s, now_s)
            if len(self._traces) > self._limit:
                self._traces.popitem(last=False)
        return trace


def _bounded(outcome: Outcome) -> tuple[Outcome, int]:
    """The outcome with no more tokens and candidates than a page keeps, and how many candidates that leaves out."""
    decision = outcome.decision
    left_out = 0 if decision is None else max(0, len(decision.candidates) - _CANDIDATES)
    if decision is not None and left_out:
        decision = _with_fewer_candidates(decision)
    return msgspec.structs.replace(outcome, made_by=outcome.made_by[:_TOKENS], decision=decision), left_out


def _with_fewer_candidates(decision: Decision) -> Decision:
    """The best ones by score, the allowed before the masked, and in any case the chosen one."""
    ranked = sorted(
        range(len(decision.candidates)),
        key=lambda index: (
            index != decision.chosen,
            bool(decision.candidates[index].masked),
            -decision.candidates[index].score,
        ),
    )
    kept = tuple(decision.candidates[index] for index in ranked[:_CANDIDATES])
    chosen = 0 if decision.chosen < len(decision.candidates) else decision.chosen
    return msgspec.structs.replace(decision, candidates=kept, chosen=chosen)
