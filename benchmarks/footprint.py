"""What roadside costs before it does anything: start-up time of the command line, memory of each kind of process.

`roadside bench footprint` times `roadside --help`, then runs a short demo and reads what its processes reported
of themselves: resident memory and the lag of their event loops.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from ..demo import DemoOptions, run_demo
from ..qos.ledger import Ledger

_HELP_RUNS = 7
_DEMO_S = 12.0
_HELP = (sys.executable, "-P", "-m", "roadside.cli", "--help")


def measure_footprint() -> dict[str, Any]:
    """The bench's JSON object; takes about half a minute."""
    help_s = [_time_help() for _ in range(_HELP_RUNS)]
    loads_torch = (
        b"torch"
        in subprocess.run(
            [sys.executable, "-P", "-X", "importtime", *_HELP[2:]], capture_output=True, check=True
        ).stderr
    )
    with tempfile.TemporaryDirectory() as folder:
        options = DemoOptions(duration_s=_DEMO_S, run=Path(folder) / "run")
        run, _ = asyncio.run(run_demo(options, Console(stderr=True), asyncio.Event()))
        machine = msgspec.to_builtins(run.read_manifest().machine)
        with Ledger.open(run) as ledger:
            states = list(ledger.node_states())
    rows: list[dict[str, Any]] = []
    for role in ("vehicle", "edge", "cloud"):
        reports = [state for state in states if state.role == role and state.alive]
        rows.append(
            {
                "process": role,
                "memory_mb_max": max(state.memory_bytes for state in reports) / 1e6,
                "event_loop_lag_ms_p99_median": statistics.median(state.event_loop_lag_ms for state in reports),
                "reports": len(reports),
            }
        )
    return {
        "bench": "footprint",
        "machine": machine,
        "settings": {"help_runs": _HELP_RUNS, "demo_s": _DEMO_S, "load_average_1m": os.getloadavg()[0]},
        "rows": rows,
        "ratios": {},
        "help": {"seconds_median": statistics.median(help_s), "imports_torch": loads_torch},
    }


def _time_help() -> float:
    started = time.perf_counter()
    subprocess.run(_HELP, capture_output=True, check=True)
    return time.perf_counter() - started
