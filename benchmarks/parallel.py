"""Independent pieces of a bench, spread over this machine's cores, with a bar on stderr."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_parallel(work: Callable[[Job], Result], jobs: Sequence[Job], *, label: str) -> list[Result]:
    """The results in the order of the jobs; `work` is a function of a module, and what it takes and gives pickles.

    Ctrl-C ends the processes, and so does SIGTERM where the verb turns it into the same.
    """
    processes = min(len(jobs), usable_cores())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Result] = []
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress,
        # Not forked: a process that is forked while others' threads hold locks may never get on.
        multiprocessing.get_context("spawn").Pool(processes, initializer=_leave_ctrl_c_to_the_parent) as pool,
    ):
        bar = progress.add_task(label, total=len(jobs))
        for result in pool.imap(work, jobs):
            results.append(result)
            progress.advance(bar)
    return results


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
