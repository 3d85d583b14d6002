"""One task, opened: its way in time, who said each word, and what the policy saw of every place."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from ..bus.messages import Candidate, Decision, Outcome
from ..bus.plain_text import plain_text
from ..policy.features import FEATURES
from .activity import parts_of
from .elements import Bar, box, column, legend, text
from .fleet_view import FleetView
from .task_traces import TaskTrace, TraceEvent
from .wording import (
    NOTHING,
    PART_COLOURS,
    PART_NAMES,
    PLACE_NAMES,
    ending,
    judgement,
    maker_colour,
    maker_name,
    milliseconds,
    quoted,
)

_FEATURE_COLUMNS = 8
_TOKENS = 200

_WHAT = {
    "accepted": "{node} takes it",
    "rejected": "{node} refuses it: {text}",
    "provisional": "{node} answers for now: {text}",
    "final": "{node} answers: {text}",
    "outcome": "the vehicle tells how it ended",
}
_CANDIDATE_COLUMNS = [
    column("choice", ""),
    column("node", "node"),
    column("place", "place"),
    column("latency", "expected time", align="right"),
    column("energy", "expected energy", align="right"),
    column("quality", "expected right", align="right"),
    column("score", "score", align="right"),
    column("masked", "not allowed because", wraps=True),
]


class TaskSheet:
    """A dialog of one browser; drawn anew while the task that it shows goes on."""

    def __init__(self, view: FleetView) -> None:
        self._view = view
        self._shown: tuple[TaskTrace, int] | None = None
        with ui.dialog() as self._dialog:
            self._sheet = box("sheet").mark("sheet")

    def open(self, vehicle: str, task_id: str, now_s: float) -> None:
        trace = self._view.traces.get(vehicle, task_id)
        if trace is not None:
            self._fill(trace, now_s)
            self._dialog.open()

    def draw(self, now_s: float) -> None:
        if self._shown is None or not self._dialog.value:
            return
        trace, events = self._shown
        if len(trace.events) != events:
            self._fill(trace, now_s)

    def _fill(self, trace: TaskTrace, now_s: float) -> None:
        self._shown = (trace, len(trace.events))
        self._sheet.clear()
        with self._sheet:
            kind = trace.outcome.kind if trace.outcome is not None else "task"
            text(f"{kind} of {trace.vehicle}: {ending(trace, now_s)}", "heading")
            if trace.outcome is None:
                text("The vehicle has not told its end yet; times and reasons come with it.", "faint")
            else:
                _what_came_of_it(trace.outcome)
                _where_time_went(trace.outcome)
            _moments(trace)
            _words(trace)
            if trace.outcome is not None:
                _decision(trace.outcome, trace.candidates_left_out)
            ui.button("Close", on_click=self._dialog.close).props("flat no-caps")


def _what_came_of_it(outcome: Outcome) -> None:
    text(quoted(outcome.text))
    if outcome.truth is not None:
        text(
            f"The driving log says: {quoted(f'{outcome.truth.action} {outcome.truth.justification}')}"
            f" {_bracketed(judgement(outcome))}",
            "faint",
        )
    who = f"made by {outcome.node} at {PLACE_NAMES[outcome.place]}"
    if outcome.requested != outcome.place:
        who += f", asked of {PLACE_NAMES[outcome.requested]}"
    facts = [
        who,
        f"mode {plain_text(outcome.mode)}" if outcome.mode else "",
        f"{outcome.attempts} attempts" if outcome.attempts > 1 else "",
        f"{outcome.energy_j:.2f} J ({outcome.energy_method})",
        plain_text(outcome.reason),
        f"task {outcome.task_id}",
    ]
    text(" · ".join(fact for fact in facts if fact), "faint")


def _where_time_went(outcome: Outcome) -> None:
    text("Where the time went", "part")
    parts = list(zip(PART_NAMES, PART_COLOURS, parts_of(outcome), strict=True))
    text(
        f"{outcome.latency_ms:,.0f} ms from question to answer; the whole bar is the deadline,"
        f" {outcome.deadline_ms:,.0f} ms",
        "faint",
    )
    whole_ms = max(outcome.deadline_ms, outcome.latency_ms, 1e-9)
    Bar(len(parts)).fill([(ms / whole_ms, colour) for _, colour, ms in parts])
    legend((f"{name} {ms:,.1f} ms", colour) for name, colour, ms in parts)


def _moments(trace: TaskTrace) -> None:
    text("What was heard, after the question", "part")
    if trace.outcome is not None:
        with box("moment"):
            text("0 ms", "at")
            text("the vehicle sees the scene, makes the task and decides where it goes")
    for event in sorted(trace.events, key=lambda event: event.heard_s):
        with box("moment"):
            since_ms = trace.since_created_ms(event)
            # Heard before it was asked: the outcome came late to the page. It cannot have been.
            text(milliseconds(None if since_ms is None else max(0.0, since_ms)), "at")
            text(_moment(event, trace.outcome))


def _moment(event: TraceEvent, outcome: Outcome | None) -> str:
    said = quoted(event.text) if event.what in ("provisional", "final") else plain_text(event.text)
    line = _WHAT[event.what].format(node=event.node, text=said)
    if event.what != "outcome" or outcome is None:
        return line
    if outcome.first_answer_ms < outcome.latency_ms:
        return (
            f"{line}; it showed its driver the first answer after {outcome.first_answer_ms:,.0f} ms, the final one"
            f" after {outcome.latency_ms:,.0f} ms"
        )
    return f"{line}; it showed its driver the answer after {outcome.latency_ms:,.0f} ms"


def _words(trace: TaskTrace) -> None:
    """A strip for each answer of which somebody says who made its tokens."""
    strips = [
        ("For now" if event.what == "provisional" else "Final", event.node, event.text, event.made_by)
        for event in trace.events
        if event.what in ("provisional", "final") and event.made_by
    ]
    if not strips and trace.outcome is not None and trace.outcome.made_by:
        strips = [("Final", trace.outcome.node, trace.outcome.text, trace.outcome.made_by)]
    if not strips:
        return
    text("Who said each word", "part")
    makers = sorted({maker for strip in strips for maker in strip[3]})
    legend((maker_name(maker), maker_colour(maker)) for maker in makers)
    replaced = _replaced_from(trace)
    for which, node, answer, made_by in strips:
        text(f"{which}, {node}", "faint")
        _strip(answer, made_by, replaced if which == "For now" else None)


def _strip(answer: str, made_by: tuple[str, ...], replaced_from: int | None) -> None:
    """A box for each token, with its word where tokens are words, as the bundled model's are.

    replaced_from: the words from there on were taken back by the final answer.
    """
    words = answer.split()
    # The token that ends an answer is none of its words.
    are_words = len(words) <= len(made_by) <= len(words) + 1
    with box("tokens"):
        for index, maker in enumerate(made_by[:_TOKENS]):
            word = words[index] if are_words and index < len(words) else ""
            token = text(plain_text(word), "token").style(f"border-bottom-color: {maker_colour(maker)}")
            token.tooltip(maker_name(maker) + ("; its end" if are_words and not word else ""))
            if replaced_from is not None and index >= replaced_from:
                token.style("text-decoration: line-through; opacity: 0.6")
        if len(made_by) > _TOKENS:
            text(f"and {len(made_by) - _TOKENS} more")


def _replaced_from(trace: TaskTrace) -> int | None:
    """From which word on the final answer differs from the one for now; None where it does not."""
    answers = {event.what: event.text.split() for event in trace.events if event.what in ("provisional", "final")}
    if len(answers) < 2 or answers["provisional"] == answers["final"]:
        return None
    pairs = zip(answers["provisional"], answers["final"], strict=False)
    return next((index for index, (said, meant) in enumerate(pairs) if said != meant), None)


def _decision(outcome: Outcome, left_out: int) -> None:
    text("Why it went where it went", "part")
    decision = outcome.decision
    if decision is None:
        text("The vehicle was down at the deadline; nobody remembers.", "faint")
        return
    weights = f" with the weights of {plain_text(decision.weights)}" if decision.weights else ""
    reason = f": {plain_text(decision.reason)}" if decision.reason else ""
    text(f"Policy {plain_text(decision.policy)}{weights} chose with probability {decision.propensity:.2f}{reason}.")
    if knobs := _knobs(decision):
        text(knobs, "faint")
    ranked = sorted(enumerate(decision.candidates), key=lambda each: (bool(each[1].masked), -each[1].score))
    rows = [_candidate_row(candidate, index, decision.chosen) for index, candidate in ranked]
    ui.table(columns=_CANDIDATE_COLUMNS, rows=rows, row_key="index").props("dense flat").mark("candidates")
    if left_out:
        text(f"and {left_out} more places, all with lower scores or not allowed", "faint")
    if decision.candidates and all(len(each.features) == len(FEATURES) for each in decision.candidates):
        with ui.expansion("What the policy saw of each place").classes("w-full"):
            _features([candidate for _, candidate in ranked[:_FEATURE_COLUMNS]])


def _knobs(decision: Decision) -> str:
    threshold, scale = decision.exit_threshold, decision.frame_scale
    parts = [f"early exits may speak from a confidence of {threshold:.2f}"] if threshold is not None else []
    parts += [f"picture sent at {scale:.0%} of its sides"] if scale < 1 else []
    return "It also set: " + ", ".join(parts) if parts else ""


def _candidate_row(candidate: Candidate, index: int, chosen: int) -> dict[str, Any]:
    return {
        "index": index,
        "choice": "→ chosen" if index == chosen else "",
        "node": candidate.node,
        "place": candidate.place,
        "latency": milliseconds(candidate.latency_ms),
        "energy": f"{candidate.energy_j:.2f} J",
        "quality": f"{candidate.quality:.0%}",
        "score": f"{candidate.score:+.3f}",
        "masked": plain_text(candidate.masked) or NOTHING,
    }


def _features(candidates: list[Candidate]) -> None:
    columns = [column("feature", "feature")]
    columns += [
        column(f"c{index}", f"{candidate.node} ({candidate.place})", align="right")
        for index, candidate in enumerate(candidates)
    ]
    rows = [
        {"feature": name, **{f"c{index}": f"{each.features[row]:.3g}" for index, each in enumerate(candidates)}}
        for row, name in enumerate(FEATURES)
    ]
    ui.table(columns=columns, rows=rows, row_key="feature").props("dense flat")


def _bracketed(said: str) -> str:
    return f"({said})" if said else ""
