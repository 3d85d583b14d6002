"""What a fleet did in the last minute, from the outcomes that vehicles tell: rates, percentiles, who answered."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

import msgspec

from ..bus.messages import Outcome
from .report import in_time, percentile

WINDOW_S = 60.0
# More would be 300 tasks per second; then the oldest give way, and rates are of what is left.
LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Ended:
    """One task. heard_s: on the reader's monotonic clock."""

    heard_s: float
    vehicle: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Rates:
    """Of some of the minute's tasks. in_time_share and the percentiles are None where nothing was heard."""

    tasks: int
    tasks_per_s: float
    in_time_share: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


class LastMinute:
    """Every task counts once, however often its ending is told."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._ended: OrderedDict[tuple[str, str], Ended] = OrderedDict()

    def add(self, vehicle: str, outcome: Outcome, now_s: float) -> None:
        """now_s: never less than in an earlier call."""
        self._forget(now_s)
        # Features and scores are most of an outcome, and nobody asks for them here.
        slim = msgspec.structs.replace(outcome, decision=None)
        self._ended.setdefault((vehicle, outcome.task_id), Ended(now_s, vehicle, slim))
        if len(self._ended) > LIMIT:
            self._ended.popitem(last=False)

    def rates(self, now_s: float, *, vehicle: str | None = None) -> Rates:
        """Of all vehicles, or of one."""
        self._forget(now_s)
        outcomes = [each.outcome for each in self._ended.values() if vehicle in (None, each.vehicle)]
        latencies = [each.latency_ms for each in outcomes if each.state in ("result", "fallback")]
        return Rates(
            tasks=len(outcomes),
            tasks_per_s=len(outcomes) / self._window_s(now_s),
            in_time_share=in_time(outcomes) / len(outcomes) if outcomes else None,
            p50_ms=percentile(latencies, 0.5),
            p90_ms=percentile(latencies, 0.9),
            p99_ms=percentile(latencies, 0.99),
        )

    def answers_per_s(self, now_s: float) -> dict[str, float]:
        """By node: visible answers that it gave."""
        self._forget(now_s)
        answers = Counter(each.outcome.node for each in self._ended.values() if each.outcome.state == "result")
        return {node: count / self._window_s(now_s) for node, count in answers.items()}

    def newest(self, now_s: float) -> dict[str, Ended]:
        """By vehicle: the task of the minute whose ending was heard last."""
        self._forget(now_s)
        return {each.vehicle: each for each in self._ended.values()}

    def p50_over_time(self, now_s: float, bins: int) -> list[float | None]:
        """The median latency in each of so many equal parts of the minute, oldest first; None where nothing ended."""
        self._forget(now_s)
        by_bin: list[list[float]] = [[] for _ in range(bins)]
        for each in self._ended.values():
            age_s = now_s - each.heard_s
            if each.outcome.state in ("result", "fallback"):
                by_bin[bins - 1 - min(bins - 1, int(age_s / WINDOW_S * bins))].append(each.outcome.latency_ms)
        return [percentile(latencies, 0.5) for latencies in by_bin]

    def _window_s(self, now_s: float) -> float:
        """For how much of the minute somebody has listened; at least a second, so that rates begin without a jump."""
        return min(WINDOW_S, max(1.0, now_s - self._since_s))

    def _forget(self, now_s: float) -> None:
        while self._ended:
            key, oldest = next(iter(self._ended.items()))
            if now_s - oldest.heard_s <= WINDOW_S:
                return
            del self._ended[key]
