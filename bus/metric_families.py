"""A process's state and counters as Prometheus metric families. Pure: nothing is counted here a second time.

What a node announces of itself (`NodeState`) is what its metrics say; only the names change, into Prometheus'
conventions: base units (seconds, bytes) in the name, `_total` behind what only grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from .latencies import BOUNDS_S, LatencyHistogram
from .messages import Load, NodeState


@dataclass(frozen=True, slots=True)
class _Counter:
    """How a counter is called outside. label: what stands behind the dot of `name.detail`. unit: one of its counts in
    the metric's unit."""

    metric: str
    about: str
    label: str = "reason"
    unit: float = 1.0


# What is counted under other names becomes roadside_<name>_total, with what follows the first dot as its reason.
_COUNTERS = {
    "published": _Counter("messages_published", "Messages that the broker has acknowledged."),
    "received": _Counter("messages_received", "Messages that were valid and wanted."),
    "unwanted": _Counter("messages_unwanted", "Valid messages that nobody here waited for."),
    "refused": _Counter("messages_refused", "Received messages that were not what their topic carries."),
    "dropped": _Counter("messages_dropped", "Received messages that newer ones pushed out of a full queue.", "topic"),
    "overflow": _Counter("messages_overflowed", "Received messages that found a full queue and were refused.", "topic"),
    "unsent": _Counter("messages_unsent", "Messages of QoS 0 that were not sent, for want of a connection.", "topic"),
    "reconnects": _Counter("reconnects", "Connections to the broker after the first."),
    "policy_overruled": _Counter("decisions_overruled", "Decisions that the guard made in the policy's place."),
    "heard": _Counter("outcomes_heard", "Outcomes that this learner has heard."),
    "learnt": _Counter("outcomes_learnt", "Outcomes that this learner has taken in."),
    "left_out": _Counter("outcomes_left_out", "Outcomes that nothing is learnt from."),
    "promoted": _Counter("weights_promoted", "Weights that proved better and were published."),
    "rolled_back": _Counter("weights_rolled_back", "Promoted weights that failed and were taken back."),
    "begun_anew": _Counter("learning_begun_anew", "Times that learning came to what is no number, and began anew."),
    "weights_taken": _Counter("weights_taken", "A learner's weights that were taken over."),
    "weights_refused": _Counter("weights_refused", "Published weights that were not, and why."),
    "answered": _Counter("tasks_answered", "Tasks that this node has answered."),
    "rejected": _Counter("tasks_rejected", "Attempts that this node has refused."),
    "resent": _Counter("tasks_resent", "Attempts that were sent, or have arrived, more than once."),
    "expired_in_queue": _Counter("tasks_expired_in_queue", "Accepted tasks whose deadline passed before inference."),
    "cancelled_at_deadline": _Counter("tasks_cancelled", "Tasks whose deadline passed during inference."),
    "held_back": _Counter(
        "messages_held_back", "Answers and refusals that a slow link let not out; kept for a repetition."
    ),
    "displaced": _Counter("tasks_displaced", "Accepted tasks that were refused later, for want of time or room."),
    "expired_work_ms": _Counter(
        "expired_work_seconds", "Computing on answers that were not ready at their deadlines.", unit=1e-3
    ),
    "created": _Counter("tasks_created", "Tasks that this vehicle has made."),
    "attempt_over": _Counter("attempts_over", "Attempts that ended without an answer; the task went on."),
    "late_answers": _Counter("late_answers", "Answers that came after their task had ended; never shown."),
    "ignored": _Counter("messages_ignored", "Messages about tasks that nobody had a right to send."),
    "downgraded": _Counter("tasks_downgraded", "Tasks for edge and cloud that the edge answered alone."),
    "sessions": _Counter("contexts_begun", "Answers that edge and cloud began to make together."),
    "closed": _Counter("contexts_closed", "Contexts whose answer was complete."),
    "evicted": _Counter("contexts_evicted", "Contexts forgotten for want of room."),
    "expired": _Counter("contexts_expired", "Contexts forgotten after a long silence."),
    "voided": _Counter("contexts_voided", "Contexts of an edge that has begun a new life."),
    "given_up": _Counter("contexts_given_up", "Contexts that could not be kept."),
    "chunks": _Counter("context_chunks", "Pieces of context by what became of them.", "outcome"),
    "recorded": _Counter("recorded_messages", "Messages written to the ledger.", "topic"),
    "missed": _Counter("missed_messages", "Messages that the recorder was too slow for.", "topic"),
    "nack": _Counter("context_nacks", "Requests that the cloud could not answer as things were."),
    "nacks": _Counter("context_nacks", "Requests that the cloud could not answer as things were."),
    "tokens": _Counter("context_tokens", "Tokens that this cloud has said for edges."),
    "timed_out": _Counter("cloud_timeouts", "Answers that the edge ended alone, as the cloud was silent."),
}
# Of a vehicle these are not attempts refused but tasks ended, one state each.
_TASK_STATES = ("result", "fallback", "expired", "rejected")
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]+")


def node_families(
    state: NodeState,
    *,
    fleet: str,
    gauges: Mapping[str, float] | None = None,
    latencies: LatencyHistogram | None = None,
) -> Iterator[Metric]:
    """Everything that a vehicle, edge or cloud says of itself.

    gauges: what a node has beyond its state, by the metric's name without `roadside_`, units included
    ("context_bytes"). latencies: of a vehicle.
    """
    yield InfoMetricFamily(
        "roadside_node",
        "Who this process is.",
        value={
            "fleet": fleet,
            "node": state.node,
            "role": state.role,
            "model": state.model,
            "model_hash": state.model_hash,
        },
    )
    yield from health_families(state.uptime_s, state.event_loop_lag_ms, state.memory_bytes)
    if state.load is not None:
        yield from _load_families(state.load)
    for name, value in (gauges or {}).items():
        yield GaugeMetricFamily(f"roadside_{name}", f"The node's {name.replace('_', ' ')}.", value=value)
    yield from counter_families(state.counters, ends_tasks=state.role == "vehicle")
    if latencies is not None:
        yield _latency_family(latencies)


def health_families(uptime_s: float, event_loop_lag_ms: float, memory_bytes: int) -> Iterator[Metric]:
    yield GaugeMetricFamily("roadside_uptime_seconds", "Since the process began to serve.", value=uptime_s)
    yield GaugeMetricFamily(
        "roadside_event_loop_lag_seconds",
        "How late the event loop runs: 99th percentile over ten seconds.",
        value=event_loop_lag_ms / 1000,
    )
    yield GaugeMetricFamily("roadside_memory_bytes", "Resident set size.", value=memory_bytes)


def counter_families(counters: Mapping[str, int], *, ends_tasks: bool = False) -> Iterable[Metric]:
    """ends_tasks: "result", "fallback", "expired" and "rejected" count the terminal states of the process's tasks."""
    families: dict[str, CounterMetricFamily] = {}
    for key, count in sorted(counters.items()):
        if ends_tasks and key in _TASK_STATES:
            row, labels = _Counter("tasks_ended", "Tasks by their one terminal state."), {"state": key}
        else:
            name, _, detail = key.partition(".")
            clean = _NOT_A_NAME.sub("_", name).strip("_").lower()
            row = _COUNTERS.get(name) or _Counter(clean, f"What the process counts as {name!r}.")
            labels = {row.label: detail} if detail else {}
        family = families.setdefault(row.metric, CounterMetricFamily(f"roadside_{row.metric}", row.about))
        family.add_sample(f"roadside_{row.metric}_total", labels, count * row.unit)
    return families.values()


def _load_families(load: Load) -> Iterator[Metric]:
    yield GaugeMetricFamily("roadside_tasks_queued", "Accepted tasks that wait.", value=load.queued)
    yield GaugeMetricFamily("roadside_tasks_running", "Tasks under inference.", value=load.running)
    yield GaugeMetricFamily("roadside_slots", "Tasks that can run at once.", value=load.slots)
    yield GaugeMetricFamily(
        "roadside_wait_seconds",
        "How long a task that arrives now would wait before its inference starts.",
        value=load.wait_ms / 1000,
    )
    service = GaugeMetricFamily(
        "roadside_service_seconds",
        "Recent mean time from the start of inference to the answer.",
        labels=("place", "kind"),
    )
    for place, by_kind in load.service_ms.items():
        for kind, service_ms in by_kind.items():
            service.add_metric((place, kind), service_ms / 1000)
    yield service


def _latency_family(latencies: LatencyHistogram) -> Metric:
    family = HistogramMetricFamily(
        "roadside_task_latency_seconds",
        "From a task's creation to its final visible answer.",
        labels=("state", "place"),
    )
    for (state, place), series in latencies.series.items():
        so_far, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), series.counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        family.add_metric((state, place), buckets, series.sum_s)
    return family
