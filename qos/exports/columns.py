"""The one table of what the Parquet files hold: `roadside report RUN --parquet` writes it, docs/report.md prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["text", "float", "integer", "truth", "time", "floats"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: ColumnKind
    about: str


_VEHICLE = Column("vehicle", "text", "name of the vehicle")
_TASK = Column("task_id", "text", "id of the task, unique for its vehicle")
_CREATED = Column("created_at", "time", "when the task was created, by the vehicle's clock")
_RECEIVED = Column("received_at", "time", "when the recorder heard it, by its own clock")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "tasks": (
        _VEHICLE,
        _TASK,
        Column("kind", "text", "what was asked: hazard, explain, describe"),
        Column("state", "text", "result, fallback, expired, rejected; lost or open where nobody knows an ending"),
        Column("reason", "text", "why it ended so, in the vehicle's words"),
        Column("in_time", "truth", "a result before its deadline"),
        Column("miss_cause", "text", "why not, where it was not: see the report's causes"),
        Column("miss_detail", "text", "which node or refusal that was"),
        _CREATED,
        _RECEIVED,
        Column("deadline_ms", "float", "from creation to a visible answer"),
        Column("latency_ms", "float", "from creation to the final visible answer"),
        Column("first_answer_ms", "float", "from creation to the first visible answer, provisional or final"),
        Column("network_ms", "float", "round trip less what the node reports"),
        Column("queue_ms", "float", "waiting for the node's turn"),
        Column("inference_ms", "float", "the node's own computing"),
        Column("context_ms", "float", "waiting for another tier's part of the answer"),
        Column("text", "text", "the visible answer"),
        Column("requested", "text", "place that the policy chose first"),
        Column("place", "text", "place that made the visible answer"),
        Column("node", "text", "who made it"),
        Column("mode", "text", "how it was decoded"),
        Column("accepted", "truth", "whether any node had accepted it"),
        Column("attempts", "integer", "at nodes"),
        Column("energy_j", "float", "joules for the visible answer"),
        Column("energy_method", "text", "measured or modelled"),
        Column("clip", "text", "of the driving log"),
        Column("moment_s", "float", "seconds into the clip"),
        Column("true_action", "text", "what the log says that the car does"),
        Column("true_justification", "text", "why, as the log says"),
        Column("action_correct", "truth", "whether the answer names that action; null where it was not asked for"),
        Column("justification_correct", "truth", "whether the answer names that reason"),
        Column("tokens", "integer", "of the visible answer"),
        Column("cloud", "text", "which cloud an edge asked; this and the next of answers at edge+cloud only"),
        Column("cloud_requests", "integer", "questions that the cloud was asked"),
        Column("positions", "integer", "of the sequence that went up"),
        Column("hidden_size", "integer", "values of one position's hidden state"),
        Column("payload_bytes_up", "integer", "hidden states alone"),
        Column("bytes_up", "integer", "with headers, requests and repetitions"),
        Column("resent_positions", "integer", "sent again after the cloud had missed them"),
        Column("ended_alone", "truth", "the cloud fell silent, and the edge said the rest"),
        Column("in_journal", "truth", "the vehicle's journal has the task"),
        Column("in_ledger", "truth", "the recorder heard how it ended"),
    ),
    "decisions": (
        _VEHICLE,
        _TASK,
        _CREATED,
        Column("policy", "text", "who decided"),
        Column("weights", "text", "whose learnt weights it had; empty: those that ship, or none"),
        Column("reason", "text", "in the policy's words"),
        Column("propensity", "float", "probability with which the policy took the choice"),
        Column("exit_threshold", "float", "confidence at which early exits may speak; null: the node's own"),
        Column("frame_scale", "float", "of the picture's sides before it was sent"),
        Column("candidate", "integer", "number of the candidate, from 0"),
        Column("chosen", "truth", "whether it was taken"),
        Column("node", "text", "who would answer"),
        Column("place", "text", "where"),
        Column("score", "float", "the policy's, higher is better"),
        Column("expected_latency_ms", "float", "as the vehicle expected it"),
        Column("expected_energy_j", "float", "as the vehicle expected it"),
        Column("expected_quality", "float", "share of right answers, as the node announced it"),
        Column("masked", "text", "why it was not allowed; empty where it was"),
        Column("features", "floats", "what the policy saw (policy/features.py)"),
    ),
    "tokens": (
        _VEHICLE,
        _TASK,
        Column("node", "text", "who made the answer"),
        Column("place", "text", "where"),
        Column("mode", "text", "how it was decoded"),
        Column("position", "integer", "of the token in the answer, from 0"),
        Column("made_by", "text", "exit1, exit2 or full, the whole model"),
    ),
    "node_states": (
        _RECEIVED,
        Column("node", "text", "name of the member of the fleet"),
        Column("role", "text", "vehicle, edge, cloud"),
        Column("alive", "truth", "false: its last will, or its good-bye"),
        Column("model", "text", "that it serves"),
        Column("model_hash", "text", "of the model's content"),
        Column("uptime_s", "float", "since it began to serve"),
        Column("event_loop_lag_ms", "float", "99th percentile over ten seconds"),
        Column("memory_bytes", "integer", "resident set size"),
        Column("queued", "integer", "accepted tasks that wait; this and the next null where it tells no load"),
        Column("running", "integer", "tasks under inference"),
        Column("slots", "integer", "tasks that can run at once"),
        Column("wait_ms", "float", "how long a task that arrived now would wait"),
    ),
    "frames": (
        Column("file", "text", "below the run's folder frames/"),
        _RECEIVED,
        _VEHICLE,
        Column("task_id", "text", "of the task that was made of it, where there is one"),
        Column("clip", "text", "of the driving log; null for pictures of tasks"),
        Column("moment_s", "float", "seconds into the clip"),
        Column("bytes", "integer", "of the file"),
    ),
}
