"""What a process takes over time, and whether that grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from ..bus.messages import Outcome
from ..qos.intervals import Estimate, slope_95
from ..qos.report import mean, percentile

_MB = 1e6
_HOUR_S = 3600.0
# A process that was started anew loads its model first.
_LOADING_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """at_s: since the load began. rss_bytes: resident set size; descriptors: open files and sockets."""

    at_s: float
    rss_bytes: int
    descriptors: int


@dataclass(slots=True)
class Samples:
    """Of one process, which may be started anew: what was sampled of an earlier life is then of no more use."""

    pid: int | None = None
    taken: list[Sample] = field(default_factory=list)
    lives: int = 0

    def take(self, pid: int, at_s: float) -> None:
        """Nothing is taken of a process that is no more."""
        if pid != self.pid:
            self.pid, self.taken, self.lives = pid, [], self.lives + 1
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                sample = Sample(at_s, process.memory_info().rss, process.num_fds())
        except psutil.Error:
            return
        self.taken.append(sample)


def memory_slope(samples: list[Sample], *, warm_up_s: float, stretch_s: float) -> Estimate | None:
    """Of the resident set, in MB (1e6 bytes) per hour with its 95% interval, by least squares after the warm-up.

    Readings are averaged over stretches first, since memory follows closely on itself. None where there are not three.
    """
    stretches: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.at_s >= warm_up_s:
            stretches.setdefault(int(sample.at_s / stretch_s), []).append(sample)
    if len(stretches) < 3:
        return None
    hours = [mean([each.at_s for each in inside]) or 0.0 for inside in stretches.values()]
    sizes = [mean([each.rss_bytes / _MB for each in inside]) or 0.0 for inside in stretches.values()]
    return slope_95([each / _HOUR_S for each in hours], sizes)


def process_row(name: str, samples: Samples, *, warm_up_s: float, stretch_s: float) -> dict[str, Any]:
    """What a report says of one process. Where it was started anew, all is of its last life."""
    taken = samples.taken
    if samples.lives > 1 and taken:
        warm_up_s = max(warm_up_s, taken[0].at_s + _LOADING_S)
    settled = [each for each in taken if each.at_s >= warm_up_s] or taken
    slope = memory_slope(taken, warm_up_s=warm_up_s, stretch_s=stretch_s)
    return {
        "process": name,
        "lives": samples.lives,
        "memory_mb_first": settled[0].rss_bytes / _MB if settled else None,
        "memory_mb_last": settled[-1].rss_bytes / _MB if settled else None,
        "memory_mb_per_h": slope.value if slope else None,
        "memory_mb_per_h_ci95": slope.half_width if slope else None,
        "descriptors_first": settled[0].descriptors if settled else None,
        "descriptors_last": settled[-1].descriptors if settled else None,
    }


def first_and_last(
    outcomes: list[Outcome], began_s: float, ended_s: float, part_s: float, figure: Callable[[list[Outcome]], Any]
) -> tuple[Any, Any]:
    """A figure over the tasks that were created in the first part of some time, and over those of its last."""
    first = [one for one in outcomes if one.created_at_s < began_s + part_s]
    last = [one for one in outcomes if one.created_at_s >= ended_s - part_s]
    return figure(first), figure(last)


def answer_ms(share: float) -> Callable[[list[Outcome]], float | None]:
    """A quantile of the latency of tasks that were answered; a fallback always takes as long as its task may."""
    return lambda outcomes: percentile([one.latency_ms for one in outcomes if one.state == "result"], share)


def ratio(first: float | None, last: float | None) -> float | None:
    return last / first if first and last is not None else None


def metric_value(page: str, name: str) -> float | None:
    """Of a Prometheus page, the value of a metric without labels; None where it is not there."""
    for line in page.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return float(value)
    return None


def worst(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The largest value that is known."""
    return max((row[key] for row in rows if row[key] is not None), default=None)
