"""`roadside sweep`: many demo runs, one table.

Every run has a fleet of its own, started for it and stopped after it: nothing that one run's nodes have learnt of
their own speed, counted or kept in memory can reach into the next. Starting costs some seconds a run, which stand in
the table as the difference between `wall_s` and `duration_s`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..bus.errors import RoadsideError
from ..demo import DemoOptions, run_demo
from .sweep_plan import SEED, SweepPlan, read_plan
from .sweep_table import DONE, FAILED, SweepTable


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """out: the CSV; None: named as the file, in the working directory. Runs that have a row there are skipped.

    force: run all of them again. retry_failed: run those again whose row tells an error.
    """

    file: Path
    out: Path | None = None
    force: bool = False
    retry_failed: bool = False


@dataclass(frozen=True, slots=True)
class SweepResult:
    """runs: how many of the plan were "skipped", "done" or "failed" now, and are "left" after a stop."""

    plan: SweepPlan
    table: SweepTable
    runs: dict[str, int]


async def run_sweep(options: SweepOptions, console: Console, stop: asyncio.Event) -> SweepResult:
    """Run what has no row yet, one after the other; when `stop` is set, the present run is the last one.

    A run that fails with an error of roadside's own becomes a row that tells it. Raises ConfigurationError for an
    unusable file, RunError where the table cannot be written.
    """
    plan = read_plan(options.file)
    out = options.out or Path(f"{options.file.stem}.csv")
    table = SweepTable(out)
    waiting = [run for run in plan.runs if _is_due(table.row_of(run), options)]
    runs = Counter(skipped=len(plan.runs) - len(waiting), done=0, failed=0, left=len(waiting))
    with _progress(console, total=len(waiting)) as (progress, bar):
        telling = asyncio.create_task(_tell_stop(stop, console))
        try:
            for number, settings in enumerate(waiting, start=1):
                progress.update(bar, description=_described(settings, plan))
                folder = out.with_name(f"{out.stem}-runs") / f"{number:04d}-{uuid.uuid4().hex[:6]}"
                status, told = await _run(replace(settings, run=folder), table)
                console.print(f"{status}: {_described(settings, plan)}  {told}", highlight=False, soft_wrap=True)
                runs[status] += 1
                runs["left"] -= 1
                progress.advance(bar)
                if stop.is_set():
                    break
        finally:
            telling.cancel()
    return SweepResult(plan, table, dict(runs))


def _is_due(row: dict[str, str] | None, options: SweepOptions) -> bool:
    return row is None or options.force or (options.retry_failed and row["status"] == FAILED)


async def _run(options: DemoOptions, table: SweepTable) -> tuple[str, str]:
    """One run and its row; returns what became of it, in a word and in a few more."""
    assert options.run is not None
    started_s = time.monotonic()
    status, error, summary = DONE, "", dict[str, Any]()
    try:
        # A run that has begun is finished: half of one would be a row like no other.
        _, summary = await run_demo(options, Console(quiet=True), asyncio.Event())
    except RoadsideError as failure:
        status, error = FAILED, str(failure)
    wall_s = time.monotonic() - started_s
    table.put(options, status=status, error=error, run=options.run, wall_s=wall_s, summary=summary)
    return status, error or f"{summary['tasks']['created']} tasks in {wall_s:.0f} s"


async def _tell_stop(stop: asyncio.Event, console: Console) -> None:
    await stop.wait()
    console.print("Stopping after the present run; once more ends it, without a row.")


def _described(settings: DemoOptions, plan: SweepPlan) -> str:
    varied = [f"{name} {getattr(settings, name)}" for name in plan.varied if getattr(settings, name) is not None]
    return " · ".join([*varied, f"{SEED} {settings.seed}"])


@contextmanager
def _progress(console: Console, *, total: int) -> Iterator[tuple[Progress, Any]]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Runs take long, and the pace of all of them is the best guess.
        speed_estimate_period=24 * 3600.0,
    )
    with progress:
        yield progress, progress.add_task("", total=total)
