"""JSON schemas of what the MCAP file holds.

Those whose names begin with "foxglove." are Foxglove's well-known ones, field by field as it publishes them, so that
its panels for images and logs show them without being told how. Ours begin with "roadside.".
"""

from __future__ import annotations

from typing import Any

_TIME = {
    "type": "object",
    "title": "time",
    "properties": {
        "sec": {"type": "integer", "minimum": 0},
        "nsec": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    },
}
_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_INTEGER = {"type": "integer"}
_TRUTH = {"type": "boolean"}


def _optional(kind: dict[str, Any]) -> dict[str, Any]:
    return {"type": [kind["type"], "null"]}


def _schema(name: str, about: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"title": name, "description": about, "type": "object", "properties": {"timestamp": _TIME, **properties}}


IMAGE = "foxglove.CompressedImage"
LOG = "foxglove.Log"
TELEMETRY = "roadside.Telemetry"
OUTCOME = "roadside.Outcome"
NODE_STATE = "roadside.NodeState"
ACK = "roadside.Ack"

# Levels of foxglove.Log.
DEBUG, INFO, WARNING, ERROR = 1, 2, 3, 4

SCHEMAS: dict[str, dict[str, Any]] = {
    IMAGE: _schema(
        IMAGE,
        "A compressed image",
        {"frame_id": _TEXT, "data": {"type": "string", "contentEncoding": "base64"}, "format": _TEXT},
    ),
    LOG: _schema(
        LOG,
        "A log message",
        {
            "level": {
                "title": "LogLevel",
                "description": "Log level",
                "oneOf": [
                    {"title": title, "const": level}
                    for level, title in enumerate(("UNKNOWN", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL"))
                ],
            },
            "message": _TEXT,
            "name": _TEXT,
            "file": _TEXT,
            "line": {"type": "integer", "minimum": 0},
        },
    ),
    TELEMETRY: _schema(
        TELEMETRY,
        "A vehicle's signals at a task's moment, as a tree by their COVESA VSS names: Vehicle.Speed in km/h,"
        " Vehicle.Acceleration.Longitudinal in m/s2, Vehicle.AngularVelocity.Yaw in degrees/s (positive to the right)",
        {"task_id": _TEXT, "Vehicle": {"type": "object", "additionalProperties": True}},
    ),
    OUTCOME: _schema(
        OUTCOME,
        "How one task ended",
        {
            **dict.fromkeys(
                ("task_id", "kind", "state", "reason", "text", "requested", "place", "node", "mode"), _TEXT
            ),
            **dict.fromkeys(("deadline_ms", "latency_ms", "first_answer_ms", "network_ms", "queue_ms"), _NUMBER),
            **dict.fromkeys(("inference_ms", "context_ms", "energy_j", "moment_s"), _NUMBER),
            **dict.fromkeys(("energy_method", "clip"), _TEXT),
            **dict.fromkeys(("true_action", "true_justification"), _optional(_TEXT)),
            **dict.fromkeys(("action_correct", "justification_correct"), _optional(_TRUTH)),
            **dict.fromkeys(("attempts", "tokens", "tokens_of_whole_model", "bytes_up"), _INTEGER),
            "in_time": _TRUTH,
        },
    ),
    NODE_STATE: _schema(
        NODE_STATE,
        "What a member of the fleet says of itself",
        {
            **dict.fromkeys(("node", "role", "model", "model_hash"), _TEXT),
            "alive": _TRUTH,
            **dict.fromkeys(("queued", "running", "slots"), _optional(_INTEGER)),
            "wait_ms": _optional(_NUMBER),
            **dict.fromkeys(("uptime_s", "event_loop_lag_ms"), _NUMBER),
            "memory_bytes": _INTEGER,
        },
    ),
    ACK: _schema(
        ACK,
        "What a node says to an attempt before it answers: that it has it, or that it refuses, and why",
        {
            **dict.fromkeys(("vehicle", "task_id", "reason"), _TEXT),
            "attempt": _INTEGER,
            "accepted": _TRUTH,
            **dict.fromkeys(("retry_after_ms", "wait_ms"), _NUMBER),
        },
    ),
}
