"""The tasks that went worst, each with its life from question to end."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ...bus.kinds import KINDS
from ...bus.messages import Outcome
from ..evidence import Evidence, TaskKey
from ..misses import MEANINGS, Miss, is_in_time
from ..watch import verdict
from .charts import Span, task_timeline

_SEVERITY = ("lost", "expired", "rejected", "fallback", "result")
_LONGEST_SIDE_PX = 480
_JPEG_QUALITY = 80
# A node that repeats itself for ever must not make the page endless.
_MOST_EVENTS = 30


@dataclass(frozen=True, slots=True)
class Picture:
    """source: a data URL."""

    source: str
    description: str


@dataclass(frozen=True, slots=True)
class WorstTask:
    """What the page shows of one task. why: what made it miss its deadline, or why it stands here."""

    kind: str
    question: str
    facts: list[str]
    why: str
    answer: str
    log_says: str
    pictures: list[Picture]
    timeline: Markup | None
    events: list[tuple[float, str]]


def worst_tasks(evidence: Evidence, misses: Sequence[Miss], count: int = 10) -> list[WorstTask]:
    """Those that missed their deadline, the worst endings first; then wrong answers; then the slowest.

    Tasks that only a journal knows come first of all, as nothing can be said of them but that.
    """
    missed = {(miss.vehicle, miss.task_id): miss for miss in misses}
    unknown = [miss for key, miss in missed.items() if key not in evidence.outcome_of]
    shown = [_without_outcome(miss, evidence) for miss in unknown[:count]]
    known = sorted(evidence.outcome_of.items(), key=lambda item: _badness(item[1]))
    return shown + [_worst(key, outcome, missed.get(key), evidence) for key, outcome in known[: count - len(shown)]]


def _badness(outcome: Outcome) -> tuple[float, ...]:
    """Lower is worse."""
    truth = outcome.truth
    wrong = 0 if truth is None else sum(c is False for c in (truth.action_correct, truth.justification_correct))
    return (is_in_time(outcome), _SEVERITY.index(outcome.state), -wrong, -outcome.latency_ms / outcome.deadline_ms)


def _without_outcome(miss: Miss, evidence: Evidence) -> WorstTask:
    entry = next(e for e in evidence.record.tasks if (e.vehicle, e.task_id) == (miss.vehicle, miss.task_id))
    key = (miss.vehicle, miss.task_id)
    events = _events(key, entry.created_at_s, None, evidence)
    return WorstTask(
        kind=miss.kind,
        question=KINDS[miss.kind].prompt if miss.kind in KINDS else "",
        facts=[miss.vehicle, f"task {miss.task_id}", miss.state, f"deadline {entry.deadline_ms:,.0f} ms"],
        why=MEANINGS[miss.cause],
        answer="",
        log_says="",
        pictures=_pictures(key, evidence),
        timeline=task_timeline(f"The life of task {miss.task_id}", [], events, entry.deadline_ms) if events else None,
        events=events,
    )


def _worst(key: TaskKey, outcome: Outcome, miss: Miss | None, evidence: Evidence) -> WorstTask:
    vehicle, task_id = key
    truth = outcome.truth
    events = _events(key, outcome.created_at_s, outcome, evidence)
    timeline = None
    if outcome.state != "expired":
        title = f"The life of task {task_id} of {vehicle}"
        timeline = task_timeline(title, _spans(outcome), events, outcome.deadline_ms)
    ending = f"{outcome.state} ({outcome.reason})" if outcome.reason else outcome.state
    took = "" if outcome.state == "expired" else f"{outcome.latency_ms:,.0f} ms of {outcome.deadline_ms:,.0f}"
    return WorstTask(
        kind=outcome.kind,
        question=KINDS[outcome.kind].prompt if outcome.kind in KINDS else "",
        facts=[fact for fact in (vehicle, f"task {task_id}", ending, took, verdict(outcome)) if fact],
        why=_why(miss, outcome),
        answer=outcome.text,
        log_says=f"{truth.action.rstrip('. ')} {truth.justification}" if truth else "",
        pictures=_pictures(key, evidence),
        timeline=timeline,
        events=events,
    )


def _why(miss: Miss | None, outcome: Outcome) -> str:
    if miss is not None:
        return f"{miss.cause}: {MEANINGS[miss.cause]}" + (f" ({miss.detail})" if miss.detail else "")
    if "wrong" in verdict(outcome):
        return "in time, but not what the log says"
    return "in time; among the slowest for its deadline"


def _spans(outcome: Outcome) -> list[Span]:
    """The parts of the visible answer's time, laid end to end: on the way up, in the queue, computing, on the way down.

    Up- and downlink are not known apart, so the network is drawn in two halves.
    """
    if outcome.state == "fallback":
        return [Span("waiting", 0.0, outcome.latency_ms)]
    timing = outcome.timing
    parts = [
        ("network", outcome.network_ms / 2),
        ("queue", timing.queue_ms),
        ("inference", timing.inference_ms),
        ("context", timing.context_ms),
        ("network", outcome.network_ms / 2),
    ]
    at_ms = max(0.0, outcome.latency_ms - sum(length_ms for _, length_ms in parts))
    spans = [Span("elsewhere", 0.0, at_ms)] if at_ms > 0 else []
    for name, length_ms in parts:
        if length_ms > 0:
            spans.append(Span(name, at_ms, at_ms + length_ms))
            at_ms += length_ms
    return spans


def _events(key: TaskKey, created_at_s: float, outcome: Outcome | None, evidence: Evidence) -> list[tuple[float, str]]:
    """(ms since creation, what), in order, as the recorder heard it; the first thirty."""
    found: list[tuple[float, str]] = []
    for ack in evidence.acks_of.get(key, []):
        said = f"{ack.node} has it" if ack.accepted else f"{ack.node} refuses: {ack.reason}"
        found.append(((ack.received_at_s - created_at_s) * 1000, said))
    for answer in evidence.answers_of.get(key, []):
        which = "answers" if answer.final else "answers for now"
        found.append(((answer.received_at_s - created_at_s) * 1000, f"{answer.node} {which}: “{answer.text}”"))
    if outcome is not None and outcome.state in ("result", "fallback"):
        who = "the narrator speaks" if outcome.state == "fallback" else "the driver has the answer"
        found.append((outcome.latency_ms, who))
    return sorted((max(0.0, at_ms), what) for at_ms, what in found)[:_MOST_EVENTS]


def _pictures(key: TaskKey, evidence: Evidence) -> list[Picture]:
    pictures: list[Picture] = []
    for frame in evidence.frames_of.get(key, [])[:2]:
        source = _data_url(frame.path)
        if source is not None:
            pictures.append(Picture(source, f"What {key[0]} saw when it asked task {key[1]}"))
    return pictures


def _data_url(path: Path) -> str | None:
    """A picture made small; None for one that cannot be read, such as one that was cut short."""
    # Imported here: most of what reads runs looks at no picture.
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX))
            small = io.BytesIO()
            image.convert("RGB").save(small, "JPEG", quality=_JPEG_QUALITY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"
