"""Whether the simulated fleet is this fleet: constants fitted to a real run, and the run replayed under them.

`roadside bench calibrate RUN` reads a run's ledger; without RUN it drives a short demo first, tasks placed at random
so that every place is met. The fitted constants are written as a TOML file for `--environment`.
"""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from ..bus.errors import ConfigurationError, RunError
from ..bus.places import PLACES
from ..demo import DemoOptions, run_demo
from ..policy.environment.constants import EnvironmentConstants
from ..qos.ledger import Ledger, RecordedState
from ..qos.run import RunDirectory
from .environment_fit import MeasuredTask, fit_constants, measured_tasks, replay

_DEMO = DemoOptions(vehicles=3, edges=2, clouds=1, policy="random", duration_s=60.0, rate_hz=1.0)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def measure_calibration(run_path: Path | None, toml_path: Path | None = None) -> dict[str, Any]:
    """The bench's JSON object. run_path: None: a fresh demo run, about a minute and a half.

    toml_path: where the constants go; None: environment.toml in the run's folder.
    Raises RunError for a run without answers, ConfigurationError for a file that cannot be written.
    """
    if run_path is None:
        run, _ = asyncio.run(run_demo(_DEMO, Console(stderr=True), asyncio.Event()))
    else:
        run = RunDirectory.open(run_path)
    with Ledger.open(run) as ledger:
        outcomes, states = ledger.outcomes(), ledger.node_states()
    tasks = measured_tasks(outcomes)
    slots = _slots(states)
    constants = fit_constants(tasks, slots)
    toml_path = toml_path or run.path / "environment.toml"
    span_s = max(tasks[-1].arrival_s, 1e-3)
    figures = {
        "run": str(run.path),
        "tasks": len(tasks),
        "not_replayed": len([each for each in outcomes if not each.repeat]) - len(tasks),
        "vehicles": constants.arrivals.vehicles,
        "edges": len({node for node in slots if node.startswith("edge")}),
        "slots": slots,
        "rate_hz": (len(tasks) - 1) / span_s,
        "heartbeat_s": _heartbeat_s(states),
        "edge_around_ms": constants.edge.round_trip_ms,
        "cloud_around_ms": constants.cloud.round_trip_ms,
        "service_sigma": constants.hidden.service_sigma,
        "drift": constants.hidden.drift,
        "environment": str(toml_path),
        "environment_sha256": constants.sha256,
    }
    write_constants(
        toml_path, constants, f"fitted to the run {run.path.name}: {figures['rate_hz']:.2f} tasks per second"
    )
    rows = _rows(tasks, replay(constants, tasks))
    return {
        "bench": "calibrate",
        "machine": msgspec.to_builtins(run.read_manifest().machine),
        "settings": figures,
        "rows": rows,
        "ratios": {row["place"]: row["replayed_ms"] / row["measured_ms"] for row in rows},
        "held_out": _held_out(tasks, slots),
        "service_ms": [{"kind": kind.name, **kind.service_ms, "context": kind.context_ms} for kind in constants.kinds],
    }


def _rows(tasks: Sequence[MeasuredTask], replayed: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for place in PLACES:
        pairs = [(task, again) for task, again in zip(tasks, replayed, strict=True) if task.place == place]
        if pairs:
            rows.append(
                {
                    "place": place,
                    "tasks": len(pairs),
                    "measured_ms": statistics.fmean(task.latency_ms for task, _ in pairs),
                    "replayed_ms": statistics.fmean(latency_ms for _, (latency_ms, _) in pairs),
                    "measured_queue_ms": statistics.fmean(task.queue_ms for task, _ in pairs),
                    "replayed_queue_ms": statistics.fmean(queue_ms for _, (_, queue_ms) in pairs),
                }
            )
    return rows


def _held_out(tasks: Sequence[MeasuredTask], slots: dict[str, int]) -> list[dict[str, Any]]:
    """Constants of the run's first half, and how they do on its second; places that only one half met are left out."""
    half = len(tasks) // 2
    first, second = tasks[:half], tasks[half:]
    known = {(task.place, task.kind) for task in first}
    second = [task for task in second if (task.place, task.kind) in known]
    if not second:
        return []
    return _rows(second, replay(fit_constants(first, slots), second))


def _slots(states: Sequence[RecordedState]) -> dict[str, int]:
    slots = {state.node: state.slots for state in states if state.slots is not None and state.role != "vehicle"}
    if not slots:
        raise RunError("no node of the run told how many slots it has: repeat it with edges or a cloud")
    return slots


def _heartbeat_s(states: Sequence[RecordedState]) -> float:
    """Median time between two reports of a node."""
    gaps_s: list[float] = []
    newest_s: dict[str, float] = {}
    for state in states:
        if state.role != "vehicle" and state.alive:
            if state.node in newest_s:
                gaps_s.append(state.received_at_s - newest_s[state.node])
            newest_s[state.node] = state.received_at_s
    return statistics.median(gaps_s) if gaps_s else 0.0


def write_constants(path: Path, constants: EnvironmentConstants, what: str) -> None:
    """Write constants as a TOML file, what they are in its first line; ConfigurationError where that cannot be."""
    lines = [f"# A simulated fleet, {what}.", f"# {constants.sha256}"]
    lines += [f"{key} = {_toml(value)}" for key, value in msgspec.to_builtins(constants).items()]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path} ({error.strerror}): give a file that can be written") from None


def _toml(value: Any) -> str:
    """A value as TOML writes it; tables inline. Numbers, texts, lists and tables are all that constants hold."""
    if isinstance(value, dict):
        pairs = (f"{key if _BARE_KEY.fullmatch(key) else _toml(key)} = {_toml(each)}" for key, each in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list | tuple):
        separator, end = (",\n    ", ",\n") if value and isinstance(value[0], dict) else (", ", "")
        return "[" + separator[1:] * bool(end) + separator.join(map(_toml, value)) + end + "]"
    # JSON's texts and numbers are TOML's as well.
    return msgspec.json.encode(value).decode()
