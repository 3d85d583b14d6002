"""A run as an MCAP file, which opens in Foxglove: pictures, answers, telemetry, outcomes, nodes, on one time axis.

    /vehicles/<name>/camera      foxglove.CompressedImage    pictures that the run kept
    /vehicles/<name>/answers     foxglove.Log                what its driver was told, and how each task ended
    /vehicles/<name>/telemetry   roadside.Telemetry          at each task's moment, where the driving log still is
    /vehicles/<name>/outcomes    roadside.Outcome
    /nodes/<name>/answers        foxglove.Log                all that a node sent, seen by a driver or not
    /nodes/<name>/acks           roadside.Ack
    /nodes/<name>/state          roadside.NodeState          vehicles included

A message's log time is when the recorder heard it; its publish time, and its "timestamp", when it happened, by the
vehicle's own clock. Where a vehicle's location was recorded, the export leaves it out: it says nothing that a picture
of the run needs, and may have been redacted on the way.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...bus.messages import Outcome
from ..circumstances import vehicle_settings
from ..evidence import Evidence, read_evidence
from ..frames import KeptFrame
from ..log_of_run import LogOfRun
from ..misses import is_in_time
from ..run import RunDirectory
from ..watch import ending, verdict
from ..whole_file import written_whole
from . import mcap_schemas as schemas

_LOCATION = "Vehicle.CurrentLocation."
_FORMATS = {".jpg": "jpeg", ".png": "png"}


@dataclass(frozen=True, slots=True)
class _Message:
    """body: made when it is written, since a picture is large. at_s, heard_at_s: Unix seconds."""

    topic: str
    schema: str
    at_s: float
    heard_at_s: float
    body: Callable[[], Mapping[str, Any]]


def write_mcap(run: RunDirectory, path: Path) -> dict[str, int]:
    """Write the file; returns how many messages each topic has.

    Raises RunError where the run cannot be read or the file not be written, ModuleNotFoundError without mcap (the extra
    `export`).
    """
    # Imported here: it comes with the extra `export`.
    from mcap.writer import CompressionType, Writer

    evidence = read_evidence(run)
    messages = sorted(_messages(evidence), key=lambda message: message.heard_at_s)
    counts: Counter[str] = Counter()
    with written_whole(path) as draft, draft.open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile="", library="roadside")
        writer.add_metadata("roadside.run", _about(evidence))
        known = {
            name: writer.register_schema(name=name, encoding="jsonschema", data=msgspec.json.encode(schema))
            for name, schema in schemas.SCHEMAS.items()
        }
        channels: dict[str, int] = {}
        for message in messages:
            try:
                content = message.body()
            except FileNotFoundError:
                # A picture whose time was over meanwhile: the recorder has deleted it.
                continue
            topic = message.topic
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, "json", known[message.schema])
            writer.add_message(
                channel_id=channels[topic],
                log_time=_nanoseconds(message.heard_at_s),
                publish_time=_nanoseconds(message.at_s),
                sequence=counts[topic],
                data=msgspec.json.encode({"timestamp": _time(message.at_s), **content}),
            )
            counts[topic] += 1
        writer.finish()
    return dict(sorted(counts.items()))


def _about(evidence: Evidence) -> dict[str, str]:
    manifest = evidence.record.manifest
    return {
        "run": manifest.run_id,
        "seed": str(manifest.seed),
        "started_at": manifest.started_at.isoformat(),
        "policy": ", ".join(str(policy or "the default") for policy in vehicle_settings(manifest, "policy")),
        "roadside": manifest.versions.get("roadside", ""),
        "damage": "\n".join(evidence.damage),
    }


def _messages(evidence: Evidence) -> Iterator[_Message]:
    yield from _of_vehicles(evidence)
    for frame in evidence.frames:
        at_s = frame.origin.received_at_s
        topic = f"/vehicles/{frame.origin.vehicle}/camera"
        yield _Message(topic, schemas.IMAGE, at_s, at_s, lambda frame=frame: _image(frame))
    for answer in evidence.answers:
        at_s, topic = answer.received_at_s, f"/nodes/{answer.node}/answers"
        which = "" if answer.final else "for now: "
        body = _log(schemas.DEBUG, f"{answer.vehicle} {answer.task_id}: {which}{answer.text}", answer.node)
        yield _Message(topic, schemas.LOG, at_s, at_s, lambda body=body: body)
    for ack in evidence.acks:
        fields = ("vehicle", "task_id", "reason", "attempt", "accepted", "retry_after_ms", "wait_ms")
        body = {name: getattr(ack, name) for name in fields}
        topic, at_s = f"/nodes/{ack.node}/acks", ack.received_at_s
        yield _Message(topic, schemas.ACK, at_s, at_s, lambda body=body: body)
    for state in evidence.states:
        body = {name: getattr(state, name) for name in type(state).__slots__ if name != "received_at_s"}
        topic, at_s = f"/nodes/{state.node}/state", state.received_at_s
        yield _Message(topic, schemas.NODE_STATE, at_s, at_s, lambda body=body: body)


def _of_vehicles(evidence: Evidence) -> Iterator[_Message]:
    log = LogOfRun(evidence.record.manifest)
    for recorded in evidence.record.outcomes:
        if recorded.repeat:
            continue
        outcome, base = recorded.outcome, f"/vehicles/{recorded.vehicle}"
        ended_s, heard_s = outcome.created_at_s + outcome.latency_ms / 1000, recorded.received_at_s
        yield _Message(f"{base}/outcomes", schemas.OUTCOME, ended_s, heard_s, lambda o=outcome: _outcome(o))
        level = schemas.INFO if outcome.state == "result" else schemas.WARNING
        said = " · ".join(part for part in (outcome.text, ending(outcome).strip(), verdict(outcome)) if part)
        body = _log(level, f"{outcome.kind}: {said}", recorded.vehicle)
        yield _Message(f"{base}/answers", schemas.LOG, ended_s, heard_s, lambda body=body: body)
        signals = log.telemetry(outcome)
        if signals:
            body = {"task_id": outcome.task_id, **_tree(signals)}
            at_s = outcome.created_at_s
            # Nobody sent it over the bus, so it was heard when it was true.
            yield _Message(f"{base}/telemetry", schemas.TELEMETRY, at_s, at_s, lambda body=body: body)


def _image(frame: KeptFrame) -> dict[str, Any]:
    return {
        "frame_id": frame.origin.vehicle,
        "data": base64.b64encode(frame.path.read_bytes()).decode(),
        "format": _FORMATS.get(frame.path.suffix, "jpeg"),
    }


def _log(level: int, message: str, name: str) -> dict[str, Any]:
    return {"level": level, "message": message, "name": name, "file": "", "line": 0}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    plain = (
        "task_id", "kind", "state", "reason", "text", "requested", "place", "node", "mode", "deadline_ms", "latency_ms",
        "first_answer_ms", "network_ms", "energy_j", "energy_method", "clip", "moment_s", "attempts",
    )  # fmt: skip
    truth, context = outcome.truth, outcome.context
    return {
        **{name: getattr(outcome, name) for name in plain},
        **msgspec.structs.asdict(outcome.timing),
        "in_time": is_in_time(outcome),
        "true_action": truth.action if truth else None,
        "true_justification": truth.justification if truth else None,
        "action_correct": truth.action_correct if truth else None,
        "justification_correct": truth.justification_correct if truth else None,
        "tokens": len(outcome.made_by),
        "tokens_of_whole_model": outcome.made_by.count("full"),
        "bytes_up": context.bytes_up if context else 0,
    }


def _tree(signals: Mapping[str, float]) -> dict[str, Any]:
    """VSS names as nested objects, so that a path such as .Vehicle.Speed finds each; without the location."""
    root: dict[str, Any] = {"Vehicle": {}}
    for name, value in signals.items():
        if name.startswith(_LOCATION):
            continue
        *branches, leaf = name.split(".")
        at = root
        for branch in branches:
            at = at.setdefault(branch, {})
        at[leaf] = value
    return root


def _nanoseconds(at_s: float) -> int:
    return max(0, round(at_s * 1e6)) * 1000


def _time(at_s: float) -> dict[str, int]:
    seconds, nanoseconds = divmod(_nanoseconds(at_s), 10**9)
    return {"sec": seconds, "nsec": nanoseconds}
