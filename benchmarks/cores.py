"""Nodes and the load that is put on them, kept to cores of their own: so that the one is measured and not the other.

Vehicles, broker and recorder of a bench run on the machine of the nodes. Where they share its cores, twice the load
leaves the nodes less to compute with, and a curve over the load shows that and not what nodes do about an overload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class DividedCores:
    """Numbers of cores, none of which is in both."""

    nodes: tuple[int, ...]
    load: tuple[int, ...]


def divided_cores() -> DividedCores | None:
    """The first half of the cores that this process may use for nodes, the rest for the load.

    None where there is one core only, or where the system keeps no process to cores (macOS).
    """
    if not hasattr(psutil.Process, "cpu_affinity"):
        return None
    cores = sorted(psutil.Process().cpu_affinity())
    half = len(cores) // 2
    return DividedCores(tuple(cores[:half]), tuple(cores[half:])) if half else None


@contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """This process, and all that it starts meanwhile, on these cores; afterwards where it was before."""
    process = psutil.Process()
    before = process.cpu_affinity()
    process.cpu_affinity(list(cores))
    try:
        yield
    finally:
        process.cpu_affinity(before)


def keep_started(pid: int, cores: Sequence[int]) -> None:
    """A process that was started just now; its threads to come stay there, too, those that it has would not."""
    psutil.Process(pid).cpu_affinity(list(cores))


def cpu_s(pid: int) -> float:
    """Seconds of a core that a running process has used so far, its kernel's work for it included."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
