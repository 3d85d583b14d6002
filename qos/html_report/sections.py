"""What the page's sections say: figures of one run, made ready for the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ...bus.messages import Outcome
from ...bus.places import PLACES
from ..evidence import Absence, Evidence
from ..intervals import Estimate, mean_95
from ..ledger import RecordedState
from ..misses import MEANINGS, Miss, counted
from ..quality import Quality
from ..report import VISIBLE, in_time, mean, percentile
from .charts import Mark, latency_cdf, lines_over_time, shares_with_intervals, stacked_bars, stacked_columns

_BINS = 40
_MOST_LINES = 8
_MOST_ROWS = 60
_MOST_MARKS = 200
_MOST_MAKERS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, name first."""

    name: str
    cells: tuple[str, ...]


def places_of(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Visible answers by the place that made them; those of the narrator in need under "fallback"."""
    groups = {place: [o for o in outcomes if o.state == "result" and o.place == place] for place in PLACES}
    groups["fallback"] = [o for o in outcomes if o.state == "fallback"]
    return {name: group for name, group in groups.items() if group}


def latency_rows(groups: Mapping[str, Sequence[Outcome]]) -> list[Row]:
    """n, first answer p50, p50, p90, p99, longest; in ms."""
    rows: list[Row] = []
    for name, group in groups.items():
        latencies = [outcome.latency_ms for outcome in group]
        found = [percentile([o.first_answer_ms for o in group], 0.5)]
        found += [percentile(latencies, share) for share in (0.5, 0.9, 0.99, 1.0)]
        rows.append(Row(name, (f"{len(group):,}", *("–" if value is None else f"{value:,.0f}" for value in found))))
    return rows


def kind_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Deadline, tasks, in time, share, p50, p90; by kind, and all kinds together."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    groups = {kind: [o for o in outcomes if o.kind == kind] for kind in kinds}
    rows: list[Row] = []
    for kind, group in groups.items():
        latencies = [o.latency_ms for o in group if o.state in VISIBLE]
        found = [percentile(latencies, share) for share in (0.5, 0.9)]
        deadlines = sorted({o.deadline_ms for o in group})
        in_time_count = in_time(group)
        cells = (
            " or ".join(f"{deadline:,.0f}" for deadline in deadlines),
            f"{len(group):,}",
            f"{in_time_count:,}",
            f"{in_time_count / len(group):.1%}",
            *("–" if value is None else f"{value:,.0f}" for value in found),
        )
        rows.append(Row(kind, cells))
    return rows


def breakdown(groups: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, float]]:
    """Mean ms of each part of the answers' time by place; they add up to the mean latency."""
    parts: dict[str, dict[str, float]] = {}
    for name, group in groups.items():
        means = {
            "network": mean([o.network_ms for o in group]) or 0.0,
            "queue": mean([o.timing.queue_ms for o in group]) or 0.0,
            "inference": mean([o.timing.inference_ms for o in group]) or 0.0,
            "context": mean([o.timing.context_ms for o in group]) or 0.0,
        }
        latency = mean([o.latency_ms for o in group]) or 0.0
        parts[name] = {**means, "elsewhere": max(0.0, latency - sum(means.values()))}
    return parts


def latency_section(evidence: Evidence) -> dict[str, Any]:
    groups = places_of(evidence.outcomes)
    deadlines = {outcome.kind: outcome.deadline_ms for outcome in evidence.outcomes}
    return {
        "by_place": latency_rows(groups),
        "by_kind": kind_rows(evidence.outcomes),
        "cdf": latency_cdf({name: [o.latency_ms for o in group] for name, group in groups.items()}, deadlines),
        "breakdown": stacked_bars("Where an answer's time went, mean by place", breakdown(groups), "ms"),
    }


def miss_rows(misses: Sequence[Miss]) -> list[Row]:
    return [Row(cause, (f"{count:,}", MEANINGS[cause], detail)) for cause, count, detail in counted(misses)]


def quality_section(found: Sequence[Quality], missing: str) -> dict[str, Any]:
    charts: dict[str, Markup | None] = {}
    for part, heading in (("action", "The right action"), ("reason", "The right reason")):
        rows = [
            (f"{quality.name} ({quality.n:,})", share, "s4" if quality.is_baseline else "s3")
            for quality in found
            if (share := getattr(quality, part)) is not None
        ]
        charts[part] = shares_with_intervals(heading, rows)
    return {"charts": charts, "n": max((quality.n for quality in found), default=0), "missing": missing}


def energy_section(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Joules per visible answer with the mean's interval, by place, and how they were come by."""
    answers = [outcome for outcome in outcomes if outcome.state in VISIBLE]
    methods = Counter(outcome.energy_method for outcome in answers)
    rows: list[Row] = []
    for name, group in {"all answers": answers, **places_of(outcomes)}.items():
        joules = [outcome.energy_j for outcome in group]
        if (estimate := mean_95(joules)) is not None:
            rows.append(Row(name, (f"{len(joules):,}", _estimate(estimate), f"{math.fsum(joules):,.1f}")))
    return {"rows": rows, "methods": methods}


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}" + (f" ± {estimate.half_width:.2f}" if estimate.half_width is not None else "")


def placement_chart(evidence: Evidence) -> Markup | None:
    """Answers over time by place, in forty columns, with the members' comings and goings."""
    outcomes = evidence.outcomes
    if not outcomes:
        return None
    began_s = evidence.began_at_s
    ends_s = [max(0.0, outcome.created_at_s - began_s) for outcome in outcomes]
    bin_s = max(max(ends_s) / _BINS, 1e-3) * (1 + 1e-9)
    names = [*PLACES, "fallback", "not answered"]
    counts = {name: [0] * _BINS for name in names}
    for outcome, at_s in zip(outcomes, ends_s, strict=True):
        name = {"result": outcome.place, "fallback": "fallback"}.get(outcome.state, "not answered")
        counts[name][min(_BINS - 1, int(at_s / bin_s))] += 1
    marks = [mark for mark in marks_of(evidence) if mark.at_s <= _BINS * bin_s]
    return stacked_columns("Where the tasks were answered, over time", counts, bin_s, marks, "tasks")


def marks_of(evidence: Evidence) -> list[Mark]:
    """Members that were away in the middle of the run; everybody leaves at its end."""
    last_task_s = max((outcome.created_at_s for outcome in evidence.outcomes), default=0.0)
    within = [absence for absence in evidence.absences if absence.from_s < last_task_s]
    return [Mark(max(0.0, a.from_s - evidence.began_at_s), absence_words(a)) for a in within[:_MOST_MARKS]]


def absence_words(absence: Absence) -> str:
    how = "left" if absence.announced else "fell silent"
    back = "" if absence.until_s is None else f", back after {absence.until_s - absence.from_s:.0f} s"
    return f"{absence.node} {how}{back}"


def decoding_section(outcomes: Sequence[Outcome], context: Mapping[str, Any]) -> dict[str, Any]:
    """Who made the tokens, by place, and what edges asked of clouds."""
    makers: list[Row] = []
    bars: dict[str, dict[str, float]] = {}
    for place, group in places_of(outcomes).items():
        counts = Counter(maker for outcome in group for maker in outcome.made_by)
        if total := counts.total():
            most = sorted(counts.most_common(_MOST_MAKERS))
            bars[place] = {_maker(name): 100 * count / total for name, count in most}
            said = ", ".join(f"{_maker(name)} {count / total:.1%}" for name, count in most)
            modes = Counter(outcome.mode for outcome in group)
            makers.append(Row(place, (f"{total:,}", said, ", ".join(f"{m} ({n})" for m, n in modes.most_common(4)))))
    answers = context["answers"]
    per_answer = (
        {
            "cloud requests": context["cloud_requests"] / answers,
            "kB sent up, with headers": context["bytes_up"] / answers / 1e3,
            "kB of hidden states": context["payload_bytes_up"] / answers / 1e3,
            "positions": context["positions"] / answers,
        }
        if answers
        else {}
    )
    return {
        "makers": makers,
        "chart": stacked_bars("Who made the tokens, by place", bars, "%"),
        "per_answer": [Row(name, (f"{value:,.1f}",)) for name, value in per_answer.items()],
        "totals": context,
    }


def _maker(name: str) -> str:
    return "whole model" if name == "full" else name.replace("exit", "exit ")


def nodes_section(evidence: Evidence) -> dict[str, Any]:
    """A row for each member, and their load, memory and lag over time for the eight that had the most of it."""
    refusals: dict[str, Counter[str]] = {}
    for ack in evidence.acks:
        if not ack.accepted:
            refusals.setdefault(ack.node, Counter())[ack.reason] += 1
    rows = [
        Row(
            node.node,
            (
                node.role,
                node.model or "–",
                "–" if node.role == "vehicle" else f"{node.answers:,}",
                ", ".join(f"{reason} ({times})" for reason, times in refusals.get(node.node, Counter()).most_common(3))
                or ("–" if node.role == "vehicle" else "none"),
                f"{node.peak_memory_bytes / 1e6:,.0f}",
                f"{node.worst_event_loop_lag_ms:,.0f}",
            ),
        )
        for node in evidence.record.nodes
    ]
    marks = marks_of(evidence)
    alive = [state for state in evidence.states if state.alive]
    charts = {
        title: _over_time(title, alive, evidence, value, unit, marks)
        for title, unit, value in (
            ("Tasks that waited", "tasks", lambda state: state.queued),
            ("How late the event loop ran, 99th percentile", "ms", lambda state: state.event_loop_lag_ms),
            ("Memory", "MB", lambda state: state.memory_bytes / 1e6),
        )
    }
    return {
        "rows": rows[:_MOST_ROWS],
        "more": max(0, len(rows) - _MOST_ROWS),
        "charts": charts,
        "absences": [f"{mark.text}, {mark.at_s:.0f} s after the fleet was first heard" for mark in marks[:_MOST_ROWS]],
    }


def _over_time(
    title: str, states: Iterable[RecordedState], evidence: Evidence, value: Any, unit: str, marks: Sequence[Mark]
) -> Markup | None:
    series: dict[str, list[tuple[float, float]]] = {}
    for state in states:
        if (found := value(state)) is not None:
            at_s = max(0.0, state.received_at_s - evidence.began_at_s)
            series.setdefault(state.node, []).append((at_s, float(found)))
    highest = sorted(series, key=lambda node: -max(each for _, each in series[node]))[:_MOST_LINES]
    more = f", the {_MOST_LINES} highest of {len(series)}" if len(series) > _MOST_LINES else ""
    return lines_over_time(f"{title}{more}", {node: series[node] for node in sorted(highest)}, unit, marks)
