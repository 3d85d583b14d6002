"""Why tasks were not answered in time: one cause for each, from what the vehicle, the nodes and the bus left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..bus.messages import Outcome
from .evidence import Evidence, TaskKey
from .journal import JournalEntry
from .ledger import RecordedAck, RecordedAnswer

Cause = Literal[
    "lost", "vehicle down", "refused by the vehicle", "connection", "refusals", "node dead", "no acknowledgement",
    "queue", "inference", "context", "network", "elsewhere", "no answer", "not recorded",
]  # fmt: skip

MEANINGS: dict[Cause, str] = {
    "lost": "neither the vehicle's journal nor the recorder knows of an ending",
    "vehicle down": "the vehicle itself was not running at the deadline",
    "refused by the vehicle": "the vehicle would not begin it",
    "connection": "the vehicle had no connection to the broker",
    "refusals": "every node that was asked refused it",
    "node dead": "a node that had been asked died or fell silent before it answered",
    "no acknowledgement": "the node that was asked never said that it had the task: it was on its way, or got lost",
    "queue": "most of the time went on waiting for the node's turn",
    "inference": "most of the time went on computing the answer",
    "context": "most of the time went on waiting for the cloud's part of the answer",
    "network": "most of the time went on the way between vehicle and node",
    "elsewhere": "most of the time went on the vehicle itself, or on attempts before the last",
    "no answer": "a node had accepted it and sent no answer that the recorder heard",
    "not recorded": "the recorder did not hear how it ended; the vehicle's journal did",
}


@dataclass(frozen=True, slots=True)
class Miss:
    """A created task without a result before its deadline. state: how it ended; "lost" where nobody knows.

    detail: what exactly, such as the node's reason or name; may be empty.
    """

    vehicle: str
    task_id: str
    kind: str
    state: str
    cause: Cause
    detail: str


def misses_of(evidence: Evidence) -> list[Miss]:
    """The tasks that were not answered in time, journals' before others; those that are still open are not missed."""
    found: list[Miss] = []
    in_journal: set[TaskKey] = set()
    for entry in evidence.record.tasks:
        key = (entry.vehicle, entry.task_id)
        in_journal.add(key)
        outcome = evidence.outcome_of.get(key)
        if outcome is None:
            found += _only_in_journal(entry, evidence)
        elif not is_in_time(outcome):
            found.append(_miss(key, outcome, evidence))
    for key, outcome in evidence.outcome_of.items():
        if key not in in_journal and not is_in_time(outcome):
            found.append(_miss(key, outcome, evidence))
    return found


def is_in_time(outcome: Outcome) -> bool:
    return outcome.state == "result" and outcome.latency_ms <= outcome.deadline_ms


def counted(misses: Sequence[Miss]) -> list[tuple[Cause, int, str]]:
    """(cause, how many, the most frequent details), the most frequent cause first."""
    counts: Counter[Cause] = Counter(miss.cause for miss in misses)
    rows: list[tuple[Cause, int, str]] = []
    for cause, count in counts.most_common():
        details = Counter(miss.detail for miss in misses if miss.cause == cause and miss.detail)
        rows.append((cause, count, "; ".join(f"{detail} ({times})" for detail, times in details.most_common(3))))
    return rows


def _only_in_journal(entry: JournalEntry, evidence: Evidence) -> list[Miss]:
    record = evidence.record
    if entry.state == "result":
        return []
    if entry.state is not None:
        return [Miss(entry.vehicle, entry.task_id, entry.kind, entry.state, "not recorded", "")]
    if record.goes_on and record.read_at_s <= entry.ends_by_s:
        return []
    return [Miss(entry.vehicle, entry.task_id, entry.kind, "lost", "lost", "")]


def _miss(key: TaskKey, outcome: Outcome, evidence: Evidence) -> Miss:
    cause, detail = _cause(key, outcome, evidence)
    return Miss(*key, outcome.kind, outcome.state, cause, detail)


def _cause(key: TaskKey, outcome: Outcome, evidence: Evidence) -> tuple[Cause, str]:
    if outcome.state == "expired":
        return "vehicle down", outcome.reason
    if outcome.state == "rejected":
        return "refused by the vehicle", outcome.reason
    if outcome.state == "result":
        return _longest_part(outcome.latency_ms, _parts_of(outcome)), f"shown late by {outcome.node}"
    if outcome.reason == "the connection is down":
        return "connection", ""
    acks, answers = evidence.acks_of.get(key, []), evidence.answers_of.get(key, [])
    late = next((answer for answer in answers if answer.final), None)
    if late is not None:
        took_ms = (late.received_at_s - outcome.created_at_s) * 1000
        return _longest_part(took_ms, _parts_of_late(late, acks, outcome)), f"{late.node} answered too late"
    if acks and not any(ack.accepted for ack in acks):
        return "refusals", _refusals(acks)
    return _silence(outcome, acks, evidence)


def _silence(outcome: Outcome, acks: Sequence[RecordedAck], evidence: Evidence) -> tuple[Cause, str]:
    """No final answer was ever heard, and not everybody had refused."""
    deadline_s = outcome.created_at_s + outcome.deadline_ms / 1000
    accepted = [ack for ack in acks if ack.accepted]
    asked = [ack.node for ack in accepted] or _chosen(outcome)
    for absence in evidence.absences:
        began = absence.from_s <= deadline_s
        if absence.node in asked and began and (absence.until_s is None or absence.until_s > outcome.created_at_s):
            return "node dead", absence.node
    if not accepted:
        return "no acknowledgement", ", ".join(asked) or outcome.reason
    # Who accepts says how long the task will wait.
    if max(ack.wait_ms for ack in accepted) > outcome.deadline_ms / 2:
        return "queue", accepted[-1].node
    return "no answer", accepted[-1].node


def _chosen(outcome: Outcome) -> list[str]:
    decision = outcome.decision
    if decision is None or decision.chosen >= len(decision.candidates):
        return []
    return [decision.candidates[decision.chosen].node]


def _refusals(acks: Sequence[RecordedAck]) -> str:
    return ", ".join(f"{ack.node}: {ack.reason}" for ack in acks[:3])


def _parts_of(outcome: Outcome) -> dict[Cause, float]:
    timing = outcome.timing
    return {
        "queue": timing.queue_ms,
        "inference": timing.inference_ms,
        "context": timing.context_ms,
        "network": outcome.network_ms,
    }


def _parts_of_late(late: RecordedAnswer, acks: Sequence[RecordedAck], outcome: Outcome) -> dict[Cause, float]:
    """Of an answer that no driver saw, as the recorder heard it. The way up ended with the acknowledgement; where
    the clocks of vehicle and recorder differ, that is only an estimate."""
    heard_s = next((ack.received_at_s for ack in acks if ack.accepted and ack.node == late.node), outcome.created_at_s)
    on_the_node_ms = late.queue_ms + late.inference_ms + late.context_ms
    way_down_ms = max(0.0, (late.received_at_s - heard_s) * 1000 - on_the_node_ms)
    before_ms = max(0.0, (heard_s - outcome.created_at_s) * 1000)
    is_first = late.attempt == 1
    return {
        "queue": late.queue_ms,
        "inference": late.inference_ms,
        "context": late.context_ms,
        "network": way_down_ms + (before_ms if is_first else 0.0),
    }


def _longest_part(total_ms: float, parts: dict[Cause, float]) -> Cause:
    rest_ms = max(0.0, total_ms - sum(parts.values()))
    longest, length_ms = max(parts.items(), key=lambda part: part[1])
    return longest if length_ms >= rest_ms else "elsewhere"
