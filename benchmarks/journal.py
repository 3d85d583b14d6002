"""What a vehicle's journal costs a task: created, ended and told, as vehicle_node does it, with ever more durability.

    none          nothing is written: what the measuring itself takes
    wal           as vehicles have it: every call survives the death of the process, the last moments not that of the
                  machine (SQLite in WAL mode, synchronous=NORMAL)
    wal-fsync     every call survives the death of the machine as well (synchronous=FULL)

The three take turns task by task, so that what else happens on the machine hits all alike.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..bus.kinds import EXPLAIN
from ..bus.messages import Candidate, Decision, Outcome, Timing
from ..qos.journal import Journal
from ..qos.report import percentile
from ..qos.run import this_machine

Way = Literal["none", "wal", "wal-fsync"]

WAYS: tuple[Way, ...] = ("none", "wal", "wal-fsync")


def measure_journal(*, tasks: int = 1000, folder: Path | None = None) -> dict[str, Any]:
    """The bench's JSON object; some seconds. folder: on the disk that is to be measured; None: where temporary files
    go."""
    took_ms: dict[Way, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        journals: dict[Way, Journal] = {
            way: stack.enter_context(Journal(place / f"{way}.sqlite", "vehicle-1")) for way in WAYS if way != "none"
        }
        journals["wal-fsync"]._connection.execute("PRAGMA synchronous = FULL")
        for number in range(tasks):
            outcome = _outcome(f"vehicle-1-{number:05d}")
            for way in WAYS:
                started_s = time.perf_counter()
                if (journal := journals.get(way)) is not None:
                    journal.created(outcome.task_id, outcome.kind, outcome.deadline_ms)
                    journal.ended(outcome)
                    journal.told(outcome.task_id)
                took_ms[way].append((time.perf_counter() - started_s) * 1000)
    rows = [
        {
            "name": way,
            "ms_per_task_mean": sum(took_ms[way]) / tasks,
            "ms_per_task_p50": percentile(took_ms[way], 0.50),
            "ms_per_task_p99": percentile(took_ms[way], 0.99),
        }
        for way in WAYS
    ]
    mean_ms = {row["name"]: row["ms_per_task_mean"] for row in rows}
    return {
        "bench": "journal",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {"tasks": tasks, "folder": str(folder or tempfile.gettempdir())},
        "rows": rows,
        "ratios": {"wal_fsync_over_wal": mean_ms["wal-fsync"] / mean_ms["wal"]},
    }


def _outcome(task_id: str) -> Outcome:
    """As large as in a fleet of two edges and a cloud."""
    candidates = tuple(
        Candidate(f"edge-{number}", "edge", 0.5, 300.0, 4.0, 0.9, "", tuple(0.1 * index for index in range(24)))
        for number in range(6)
    )
    return Outcome(
        task_id=task_id,
        kind=EXPLAIN.name,
        state="result",
        reason="",
        text="the car slows down because the light ahead is red .",
        created_at_s=1e9,
        deadline_ms=EXPLAIN.deadline_ms,
        requested="edge",
        place="edge",
        node="edge-1",
        mode="standalone",
        accepted=True,
        attempts=1,
        latency_ms=210.0,
        first_answer_ms=210.0,
        network_ms=4.0,
        timing=Timing(1.0, 205.0, 0.0),
        energy_j=3.0,
        energy_method="modelled",
        clip="rendered-1",
        moment_s=3.0,
        decision=Decision("greedy-utility", 1, 1.0, "best score", candidates),
        made_by=("exit1",) * 12,
    )
