"""A run as Parquet tables, for pandas, Polars, DuckDB, R.

    tasks.parquet         a row for each task, the lost ones included
    decisions.parquet     a row for each candidate of each decision
    tokens.parquet        a row for each token of each visible answer
    node_states.parquet   what members of the fleet said of themselves, over time
    frames.parquet        the pictures that were kept: where they are, not what they show

Column names carry units; each column's meaning stands in its field's metadata under "about". Times are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..evidence import Evidence, read_evidence
from ..misses import is_in_time, misses_of
from ..run import Manifest, RunDirectory
from ..whole_file import written_whole
from .columns import COLUMNS, Column

if TYPE_CHECKING:
    import pyarrow as pa

_Row = dict[str, Any]


def write_parquet(run: RunDirectory, folder: Path) -> dict[str, int]:
    """Write the tables into a folder, which is made where it is not there; returns the rows of each file by its name.

    Files of the same names are replaced. Raises RunError where the run cannot be read or the folder not be written,
    ModuleNotFoundError without pyarrow (the extra `export`).
    """
    # Imported here: it comes with the extra `export`.
    import pyarrow as pa
    import pyarrow.parquet as pq

    evidence = read_evidence(run)
    rows_of: dict[str, Callable[[Evidence], Iterator[_Row]]] = {
        "tasks": _tasks,
        "decisions": _decisions,
        "tokens": _tokens,
        "node_states": _node_states,
        "frames": _frames,
    }
    written: dict[str, int] = {}
    for name, rows in rows_of.items():
        schema = pa.schema([_field(pa, column) for column in COLUMNS[name]], metadata=_about(evidence.record.manifest))
        table = pa.Table.from_pylist(list(rows(evidence)), schema=schema)
        path = folder / f"{name}.parquet"
        with written_whole(path) as draft:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, draft, compression="zstd")
        written[path.name] = table.num_rows
    return written


def _field(pa: Any, column: Column) -> pa.Field:
    types = {
        "text": pa.string(),
        "float": pa.float64(),
        "integer": pa.int64(),
        "truth": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
        "floats": pa.list_(pa.float64()),
    }
    return pa.field(column.name, types[column.kind], metadata={"about": column.about})


def _about(manifest: Manifest) -> dict[str, str]:
    return {
        "roadside.run": manifest.run_id,
        "roadside.seed": str(manifest.seed),
        "roadside.version": manifest.versions.get("roadside", ""),
    }


def _micros(at_s: float | None) -> int | None:
    return None if at_s is None else round(at_s * 1e6)


def _tasks(evidence: Evidence) -> Iterator[_Row]:
    causes = {(miss.vehicle, miss.task_id): miss for miss in misses_of(evidence)}
    heard_at_s = {(o.vehicle, o.outcome.task_id): o.received_at_s for o in evidence.record.outcomes if not o.repeat}
    in_journal = {(entry.vehicle, entry.task_id): entry for entry in evidence.record.tasks}
    for key in dict.fromkeys([*in_journal, *evidence.outcome_of]):
        outcome, entry = evidence.outcome_of.get(key), in_journal.get(key)
        miss = causes.get(key)
        row: _Row = {
            "vehicle": key[0],
            "task_id": key[1],
            "in_journal": entry is not None,
            "in_ledger": outcome is not None,
        }
        if entry is not None:
            row |= {"kind": entry.kind, "deadline_ms": entry.deadline_ms, "created_at": _micros(entry.created_at_s)}
            row["state"] = entry.state or (miss.state if miss else "open")
        if outcome is not None:
            fields = msgspec.structs.asdict(outcome)
            for nested in ("timing", "decision", "truth", "context", "made_by", "created_at_s"):
                del fields[nested]
            row |= fields | msgspec.structs.asdict(outcome.timing)
            row |= {"created_at": _micros(outcome.created_at_s), "received_at": _micros(heard_at_s[key])}
            row |= {"in_time": is_in_time(outcome), "tokens": len(outcome.made_by)}
            if (truth := outcome.truth) is not None:
                row |= {"true_action": truth.action, "true_justification": truth.justification}
                row |= {"action_correct": truth.action_correct, "justification_correct": truth.justification_correct}
            if outcome.context is not None:
                row |= msgspec.structs.asdict(outcome.context)
        if miss is not None:
            row |= {"miss_cause": miss.cause, "miss_detail": miss.detail}
        yield row


def _decisions(evidence: Evidence) -> Iterator[_Row]:
    for (vehicle, task_id), outcome in evidence.outcome_of.items():
        decision = outcome.decision
        if decision is None:
            continue
        common: _Row = {
            "vehicle": vehicle,
            "task_id": task_id,
            "created_at": _micros(outcome.created_at_s),
            "policy": decision.policy,
            "weights": decision.weights,
            "reason": decision.reason,
            "propensity": decision.propensity,
            "exit_threshold": decision.exit_threshold,
            "frame_scale": decision.frame_scale,
        }
        for number, candidate in enumerate(decision.candidates):
            row = common | msgspec.structs.asdict(candidate)
            row |= {"candidate": number, "chosen": number == decision.chosen, "features": list(candidate.features)}
            row["expected_latency_ms"] = row.pop("latency_ms")
            row["expected_energy_j"] = row.pop("energy_j")
            row["expected_quality"] = row.pop("quality")
            yield row


def _tokens(evidence: Evidence) -> Iterator[_Row]:
    for (vehicle, task_id), outcome in evidence.outcome_of.items():
        common = {"vehicle": vehicle, "task_id": task_id, "node": outcome.node, "place": outcome.place}
        for number, maker in enumerate(outcome.made_by):
            yield common | {"mode": outcome.mode, "position": number, "made_by": maker}


def _node_states(evidence: Evidence) -> Iterator[_Row]:
    for state in evidence.states:
        row = {name: getattr(state, name) for name in type(state).__slots__ if name != "received_at_s"}
        yield row | {"received_at": _micros(state.received_at_s)}


def _frames(evidence: Evidence) -> Iterator[_Row]:
    folder = (evidence.record.path / "frames").resolve()
    for frame in evidence.frames:
        origin = frame.origin
        yield {
            "file": str(frame.path.relative_to(folder)),
            "received_at": _micros(origin.received_at_s),
            "vehicle": origin.vehicle,
            "task_id": origin.task_id,
            "clip": origin.clip,
            "moment_s": origin.moment_s,
            "bytes": frame.size_bytes,
        }
