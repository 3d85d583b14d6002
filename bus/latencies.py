"""A histogram of how long tasks took, cheap enough to be kept whether or not anybody scrapes it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

# Upper bounds of the buckets in seconds, dense around the deadlines of the task kinds (0.7, 2 and 4 s).
BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)


@dataclass(slots=True)
class Series:
    """counts: per bucket, not cumulative; the last one is of what lies beyond every bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0


class LatencyHistogram:
    """Latencies of ended tasks by terminal state and by the place that made the visible answer."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Series] = {}

    def observe(self, latency_ms: float, *, state: str, place: str) -> None:
        latency_s = latency_ms / 1000
        series = self.series.setdefault((state, place), Series())
        series.counts[bisect_left(BOUNDS_S, latency_s)] += 1
        series.sum_s += latency_s
