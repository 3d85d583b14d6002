"""What a person reads at the end of a run: what became of the tasks, where, how fast, and how well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..bus.kinds import KINDS
from ..bus.messages import Outcome
from ..bus.places import PLACES
from .ledger import NodeRecord
from .report import VISIBLE, in_time, mean, percentile, qos
from .run import RunDirectory
from .run_record import RunRecord, read_run
from .watch import verdict

_NOTHING = "–"
# Keys of a summary's "overload" beside "refused", whose reasons stand in rows of their own: what, and why.
_SIGNS_OF_OVERLOAD = {
    "displaced": ("attempt put out of a node's line", "for one that could still be answered in time"),
    "expired_in_queue": ("attempt ended in a node's line", "its deadline came before its turn"),
    "expired_work_ms": ("ms computed in vain", "the answer was not ready by the deadline"),
    "late_answers": ("answer nobody waited for", "its task had ended"),
    "frames_dropped": ("camera frame dropped", "old before the link was free"),
    "messages_dropped": ("message dropped", "newer ones came before it was read"),
    "messages_overflowed": ("message refused", "too many of its kind wait to be read"),
    "messages_unsent": ("message not sent", "no connection, and stale by the next"),
}


def render(run: RunDirectory, summary: Mapping[str, Any]) -> RenderableType:
    """Everything about a run, for `rich.console.Console.print`. Raises RunError where the run cannot be read."""
    record = read_run(run)
    outcomes = [recorded.outcome for recorded in record.outcomes if not recorded.repeat]
    parts: list[RenderableType] = [_headline(record, summary), _in_words(summary)]
    if outcomes:
        parts += [places_table(outcomes), kinds_table(outcomes)]
    if record.nodes:
        parts.append(nodes_table(record.nodes))
    causes = _causes(outcomes, record.refusals, summary["overload"])
    if causes.row_count:
        parts.append(causes)
    examples = _examples(outcomes)
    if examples:
        parts.append(examples_table(examples))
    parts.append(Text.assemble("Everything about this run is in ", (str(record.path), "bold")))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _headline(record: RunRecord, summary: Mapping[str, Any]) -> Text:
    roles = Counter(node.role for node in record.nodes)
    fleet = ", ".join(_several(roles[role], role) for role in ("vehicle", "edge", "cloud") if roles[role])
    facts = [fleet, f"{summary['broker']} broker", f"{summary['duration_s']:.0f} s"]
    if policy := record.manifest.configuration.get("policy"):
        facts.insert(1, f"policy {policy}")
    if record.goes_on:
        facts.append("not finished yet")
    return Text.assemble((f"Run {record.manifest.run_id}", "bold"), "\n", "  ·  ".join(fact for fact in facts if fact))


def _in_words(summary: Mapping[str, Any]) -> Text:
    words = Text("\n".join(sentences(summary)))
    for warning in warnings(summary):
        words.append(f"\n{warning}", style="bold red")
    return words


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The totals of a run's summary, in words."""
    tasks, latency, quality, energy = (summary[key] for key in ("tasks", "latency_ms", "qos", "energy_j"))
    in_time_count = round(summary["in_time_share"] * tasks["created"])
    words = [
        f"{_several(tasks['created'], 'task')}: {in_time_count} answered in time ({summary['in_time_share']:.0%}),"
        f" {tasks['fallback']} by the vehicle's narrator instead (fallback), {tasks['expired']} expired,"
        f" {tasks['rejected']} rejected, {tasks['lost']} lost."
    ]
    if latency["p50"] is not None:
        words.append(
            f"Half of the answers were there within {latency['p50']:.0f} ms, 90% within {latency['p90']:.0f} ms,"
            f" 99% within {latency['p99']:.0f} ms."
        )
    if quality["n"]:
        said = [
            f"{share:.0%} name the right {part}"
            for part, share in (("action", quality["action_accuracy"]), ("reason", quality["justification_accuracy"]))
            if share is not None
        ]
        words.append(f"Of {quality['n']} answers that the log can judge, {' and '.join(said)}.")
    if energy["mean"] is not None:
        words.append(f"An answer took {energy['mean']:.2f} J ({energy['method']}).")
    if summary["context"]["answers"]:
        words.append(_together(summary["context"]))
    return words


def _together(context: Mapping[str, Any]) -> str:
    """What edges and clouds said together, and what that sent up."""
    alone = f"; {context['ended_alone']} of them the edge had to end alone" if context["ended_alone"] else ""
    return (
        f"Edge and cloud made {_several(context['answers'], 'answer')} together{alone}: the cloud said"
        f" {context['cloud_token_share']:.0%} of {_several(context['tokens'], 'token')}, for"
        f" {context['payload_bytes_up'] / 1e3:.0f} kB of context ({_several(context['positions'], 'position')})."
    )


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """What must never happen, or makes the figures incomplete."""
    tasks = summary["tasks"]
    about = {
        "lost": "without any ending",
        "duplicate_visible": "shown twice",
        "stale_shown": "shown after the deadline",
        "unrecorded": "ended on the vehicle, but not heard of by the recorder: the figures above leave them out",
    }
    found = [f"{_several(tasks[key], 'task')} {text}" for key, text in about.items() if tasks[key]]
    found += [f"{_several(tasks['open'], 'task')} still open"] if tasks["open"] else []
    return [*found, *summary["damage"]]


def places_table(outcomes: Sequence[Outcome]) -> Table:
    """Visible answers by the place that made them; the times are medians unless named otherwise."""
    table = _table("Where the answers were made", "place", "answers", "p50\nms", "p90\nms")
    for part in ("queue", "inference", "context", "network"):
        table.add_column(f"{part}\nms", justify="right")
    _add_quality_columns(table)
    table.add_column("energy\nJ", justify="right")
    table.caption = (
        "p50, p90: from question to answer; then the medians of its parts (context: waiting for the cloud's tokens)."
        "\nright: share of the answers that say what the log says."
    )
    # Eleven columns in 80 characters.
    table.collapse_padding = True
    groups: list[tuple[str, list[Outcome]]] = [
        (place, [o for o in outcomes if o.state == "result" and o.place == place]) for place in PLACES
    ]
    groups.append(("fallback", [o for o in outcomes if o.state == "fallback"]))
    for name, group in groups:
        if group:
            table.add_row(
                name,
                str(len(group)),
                _ms(group, lambda o: o.latency_ms),
                _ms(group, lambda o: o.latency_ms, 0.9),
                _ms(group, lambda o: o.timing.queue_ms),
                _ms(group, lambda o: o.timing.inference_ms),
                _ms(group, lambda o: o.timing.context_ms),
                _ms(group, lambda o: o.network_ms),
                *_quality(group),
                f"{mean([o.energy_j for o in group]):.2f}",
            )
    return table


def kinds_table(outcomes: Sequence[Outcome]) -> Table:
    """Tasks by kind."""
    table = _table("What was asked", "kind", "tasks", "in time", "fallback", "deadline\nms", "p50\nms", "p90\nms")
    _add_quality_columns(table)
    kinds = sorted({outcome.kind for outcome in outcomes})
    table.caption = "\n".join(f"{kind}: {KINDS[kind].prompt}" for kind in kinds if kind in KINDS)
    for kind in kinds:
        group = [outcome for outcome in outcomes if outcome.kind == kind]
        answers = [outcome for outcome in group if outcome.state in VISIBLE]
        table.add_row(
            kind,
            str(len(group)),
            str(in_time(group)),
            str(sum(outcome.state == "fallback" for outcome in group)),
            f"{group[0].deadline_ms:.0f}",
            _ms(answers, lambda o: o.latency_ms),
            _ms(answers, lambda o: o.latency_ms, 0.9),
            *_quality(answers),
        )
    return table


def nodes_table(nodes: Iterable[NodeRecord]) -> Table:
    """The processes, as they reported themselves."""
    table = _table("Who took part", "node", "model", "answers sent", "refused", "memory\nMB", "event loop\nlate by ms")
    table.columns[1].justify = "left"
    for node in nodes:
        is_vehicle = node.role == "vehicle"
        table.add_row(
            node.node,
            node.model,
            _NOTHING if is_vehicle else str(node.answers),
            _NOTHING if is_vehicle else str(node.refusals),
            f"{node.peak_memory_bytes / 1e6:.0f}",
            f"{node.worst_event_loop_lag_ms:.0f}",
        )
    return table


def examples_table(outcomes: Iterable[Outcome]) -> Table:
    """Answers beside what the log says of the same moment."""
    table = _table("Some answers", "from", "answer", "the log says", "verdict")
    for column in table.columns:
        column.justify, column.overflow = "left", "fold"
    for outcome in outcomes:
        truth = outcome.truth
        # BDD-X's annotators often end the action with a full stop, and go on with the reason.
        log_says = f"{truth.action.rstrip('. ')} {truth.justification}" if truth else _NOTHING
        table.add_row(f"{outcome.node}\n{outcome.kind}", outcome.text, log_says, verdict(outcome) or "not asked")
    return table


def _examples(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first judged answer of each place, and the first other one that is wrong: those teach the most."""
    judged = [outcome for outcome in outcomes if outcome.state in VISIBLE and outcome.truth is not None]
    examples = [next((o for o in judged if o.place == place), None) for place in PLACES]
    wrong = (o for o in judged if "wrong" in verdict(o) and o not in examples)
    return [outcome for outcome in (*examples, next(wrong, None)) if outcome is not None]


def _causes(outcomes: Iterable[Outcome], refusals: Mapping[str, int], overload: Mapping[str, int]) -> Table:
    """Why things did not go as planned."""
    table = _table("Why not as planned", "what", "times", "reason")
    table.columns[2].justify = "left"
    endings = Counter((o.state, o.reason) for o in outcomes if o.state != "result")
    for (state, reason), times in endings.most_common():
        table.add_row(f"task ended as {state}", str(times), reason or _NOTHING)
    for reason, times in refusals.items():
        table.add_row("attempt refused by a node", str(times), reason)
    for name, (what, reason) in _SIGNS_OF_OVERLOAD.items():
        if overload[name]:
            table.add_row(what, str(overload[name]), reason)
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.caption_justify = "left"
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _add_quality_columns(table: Table) -> None:
    table.add_column("action\nright", justify="right")
    table.add_column("reason\nright", justify="right")


def _quality(answers: Sequence[Outcome]) -> tuple[str, str]:
    scores = qos(answers)
    return _share(scores["action_accuracy"]), _share(scores["justification_accuracy"])


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.0%}"


def _ms(outcomes: Iterable[Outcome], value: Callable[[Outcome], float], share: float = 0.5) -> str:
    found = percentile(map(value, outcomes), share)
    return _NOTHING if found is None else f"{found:.0f}"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
