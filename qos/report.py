"""The summary of a run: one JSON object, the same for a program and for the table that a person reads.

Every figure is a pure function of the journals and the outcomes. A figure over nothing (a percentile of no answers,
the accuracy where the log has no ground truth) is None, never a zero that looks measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..bus.messages import Outcome, TaskState
from ..bus.places import PLACES
from .journal import JournalEntry
from .ledger import RecordedOutcome
from .run import Manifest, RunDirectory
from .run_record import RunRecord, read_run

# States in which the driver sees or hears an answer.
VISIBLE: frozenset[TaskState] = frozenset(("result", "fallback"))
_OVERLOAD_COUNTERS = ("displaced", "expired_in_queue", "expired_work_ms", "late_answers", "frames_dropped")


def summarise(run: RunDirectory) -> dict[str, Any]:
    """Read a run, which may still go on or be damaged, and summarise it. Raises RunError where it cannot be read."""
    return summary_of(read_run(run))


def summary_of(record: RunRecord) -> dict[str, Any]:
    """The object that `roadside demo --json` and `roadside report RUN --json` print; all keys are always there."""
    outcomes = [recorded.outcome for recorded in record.outcomes if not recorded.repeat]
    answers = [outcome for outcome in outcomes if outcome.state in VISIBLE]
    tasks = count_tasks(record.tasks, record.outcomes, still_running_at_s=record.read_at_s if record.goes_on else None)
    return {
        "run": str(record.path),
        "broker": record.manifest.broker,
        "duration_s": round(_duration_s(record.manifest, record.read_at_s), 3),
        "tasks": tasks,
        "latency_ms": latency_ms(answers),
        "in_time_share": in_time(outcomes) / tasks["created"] if tasks["created"] else 0.0,
        "energy_j": energy_j(answers),
        "qos": qos(answers),
        "placements": placements(outcomes),
        "context": context(outcomes),
        "overload": overload(record.refusals, record.counters),
        "damage": list(record.damage),
    }


def count_tasks(
    journal: Iterable[JournalEntry],
    recorded: Sequence[RecordedOutcome],
    *,
    still_running_at_s: float | None = None,
) -> dict[str, int]:
    """What became of the tasks: created = result + fallback + expired + rejected + lost + open.

    The journals say which tasks there were and how they ended; an outcome counts where the journal is silent (a vehicle
    whose journal is elsewhere). A task is lost where neither knows an ending.
    still_running_at_s: Unix seconds now, for a run that goes on; its unended tasks are "open" until shortly after their
    deadlines. None: the run is over, and nothing is open.
    "unrecorded": ended in a journal, but the ledger never heard of it. "stale_shown": results shown late.
    "duplicate_visible": answers shown for a task that had one already.
    """
    by_task = {(one.vehicle, one.outcome.task_id): one.outcome for one in recorded if not one.repeat}
    ends: dict[tuple[str, str], str] = {key: outcome.state for key, outcome in by_task.items()}
    unrecorded = 0
    for entry in journal:
        key = (entry.vehicle, entry.task_id)
        unrecorded += entry.state is not None and key not in by_task
        ends[key] = entry.state or ends.get(key) or _unended(entry, still_running_at_s)
    counts = Counter(ends.values())
    shown = Counter((one.vehicle, one.outcome.task_id) for one in _different(recorded) if one.outcome.state in VISIBLE)
    return {
        "created": len(ends),
        "accepted": sum(outcome.accepted for outcome in by_task.values()),
        "result": counts["result"],
        "fallback": counts["fallback"],
        "expired": counts["expired"],
        "rejected": counts["rejected"],
        "lost": counts["lost"],
        "duplicate_visible": sum(times - 1 for times in shown.values()),
        "stale_shown": sum(o.state == "result" and o.latency_ms > o.deadline_ms for o in by_task.values()),
        "unrecorded": unrecorded,
        "open": counts["open"],
    }


def _unended(entry: JournalEntry, still_running_at_s: float | None) -> str:
    return "open" if still_running_at_s is not None and still_running_at_s <= entry.ends_by_s else "lost"


def _different(recorded: Iterable[RecordedOutcome]) -> Iterable[RecordedOutcome]:
    return (one for one in recorded if one.repeat != "redelivered")


def latency_ms(answers: Sequence[Outcome]) -> dict[str, float | None]:
    """From a task's creation to its visible answer; "first_answer" counts provisional ones too."""
    latencies = [outcome.latency_ms for outcome in answers]
    return {
        "p50": percentile(latencies, 0.50),
        "p90": percentile(latencies, 0.90),
        "p99": percentile(latencies, 0.99),
        "first_answer_p50": percentile([outcome.first_answer_ms for outcome in answers], 0.50),
    }


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest observed value that at least `share` (above 0, up to 1) of them do not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def in_time(outcomes: Iterable[Outcome]) -> int:
    """How many tasks ended with a result before their deadline."""
    return sum(outcome.state == "result" and outcome.latency_ms <= outcome.deadline_ms for outcome in outcomes)


def energy_j(answers: Sequence[Outcome]) -> dict[str, Any]:
    """Mean joules per visible answer; "measured" only if every one of them was."""
    measured = bool(answers) and all(outcome.energy_method == "measured" for outcome in answers)
    return {
        "mean": mean([outcome.energy_j for outcome in answers]),
        "method": "measured" if measured else "modelled",
    }


def qos(answers: Sequence[Outcome]) -> dict[str, Any]:
    """Share of visible answers that say what the log's ground truth says, each over those that were asked for it.

    n: answers that were judged at all.
    """
    truths = [outcome.truth for outcome in answers if outcome.truth is not None]
    actions = [truth.action_correct for truth in truths if truth.action_correct is not None]
    reasons = [truth.justification_correct for truth in truths if truth.justification_correct is not None]
    judged = sum(t.action_correct is not None or t.justification_correct is not None for t in truths)
    return {"action_accuracy": mean(actions), "justification_accuracy": mean(reasons), "n": judged}


def placements(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Results by the place that made them."""
    counts = Counter(outcome.place for outcome in outcomes if outcome.state == "result")
    return {place: counts[place] for place in PLACES}


def context(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Of the answers that an edge and a cloud made together: what went up, and whose the tokens are.

    "hidden_size" is 0 where nothing went up, and None where edges with models of different widths took part.
    "ended_alone": answers that the edge had to finish by itself, because the cloud had fallen silent.
    """
    together = [outcome for outcome in outcomes if outcome.state == "result" and outcome.place == "edge+cloud"]
    uses = [outcome.context for outcome in together if outcome.context is not None]
    makers = [maker for outcome in together for maker in outcome.made_by]
    widths = {use.hidden_size for use in uses}
    return {
        "bytes_up": sum(use.bytes_up for use in uses),
        "payload_bytes_up": sum(use.payload_bytes_up for use in uses),
        "positions": sum(use.positions for use in uses),
        "hidden_size": max(widths, default=0) if len(widths) <= 1 else None,
        "cloud_requests": sum(use.cloud_requests for use in uses),
        "tokens": len(makers),
        "cloud_token_share": makers.count("full") / len(makers) if makers else 0.0,
        "answers": len(together),
        "resent_positions": sum(use.resent_positions for use in uses),
        "ended_alone": sum(use.ended_alone for use in uses),
    }


def overload(refusals: Mapping[str, int], counters: Mapping[str, int]) -> dict[str, int]:
    """What a fleet did about more than it could: attempts that nodes refused, those they had taken before among them
    ("displaced"), what expired before it began, milliseconds of computing on answers that were not ready in time,
    answers to tasks that had ended, and messages and pictures that found no room.
    """
    return {
        "refused": sum(refusals.values()),
        **{name: counters.get(name, 0) for name in _OVERLOAD_COUNTERS},
        "messages_dropped": _total(counters, "dropped."),
        "messages_overflowed": _total(counters, "overflow."),
        "messages_unsent": _total(counters, "unsent."),
    }


def _total(counters: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in counters.items() if name.startswith(prefix))


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return sum(values) / len(values) if values else None


def _duration_s(manifest: Manifest, read_at_s: float) -> float:
    ended_at = manifest.ended_at or datetime.fromtimestamp(read_at_s, UTC)
    return (ended_at - manifest.started_at).total_seconds()
