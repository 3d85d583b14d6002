"""Two runs side by side: what differs between them, and whether the difference is more than chance.

Where both have replayed the same scenes, their tasks are paired by clip, moment and kind, so that what makes one scene
harder than another cancels. Means and shares of pairs have Student's t interval on their differences; of runs that are
not paired, means have Welch's t and shares Newcombe's interval (his method 10, two of Wilson's). Percentiles are
bootstrapped, pairs as pairs. All of them take tasks to be independent, which neighbouring moments of a clip are not
quite.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.messages import Outcome
from ..bus.places import PLACES
from .circumstances import circumstances
from .evidence import Evidence
from .intervals import Interval, mean_95, share_95, t_95
from .misses import is_in_time
from .report import VISIBLE, summary_of

_MOST_RESAMPLES = 2000
_MOST_DRAWS = 2e7
_FEWEST_RESAMPLES = 200
_DRAWS_AT_ONCE = 1e6
_SEED = 20_240_229

Pair = tuple[Outcome, Outcome]
_Value = Callable[[Outcome], float | None]


@dataclass(frozen=True, slots=True)
class _Measure:
    """value: of one task, None where the task has none. percentile: None for a mean. is_share: the values are 0 or 1.

    higher_is_better: None where it is neither.
    """

    name: str
    unit: str
    value: _Value
    percentile: float | None = None
    is_share: bool = False
    higher_is_better: bool | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two runs. difference: the second's less the first's, with its 95% interval; None where one run has
    no such value. n: pairs, or tasks of the first and of the second. verdict: "better", "worse", "differs" or ""."""

    name: str
    unit: str
    first: float | None
    second: float | None
    difference: Interval | None
    n: tuple[int, ...]
    method: str
    verdict: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """pairs: tasks that both runs had; 0 where the runs are compared as wholes. alone: tasks without a partner.

    circumstances: (what, in the first run, in the second).
    """

    summaries: tuple[dict[str, Any], dict[str, Any]]
    pairs: int
    alone: tuple[int, int]
    differences: list[Difference]
    circumstances: list[tuple[str, str, str]]

    @property
    def headline(self) -> str:
        if self.pairs:
            return (
                f"{self.pairs} tasks stand for the same scene in both runs and are compared pair by pair;"
                f" {self.alone[0]} of the first and {self.alone[1]} of the second have no partner and are left out."
            )
        return "The runs did not see the same scenes: they are compared as wholes, which shows less."


def compare(first: Evidence, second: Evidence) -> Comparison:
    """Compare two runs that have been read."""
    pairs = paired(first.outcomes, second.outcomes)
    sizes = len(first.outcomes), len(second.outcomes)
    if 2 * len(pairs) < min(sizes) or len(pairs) < 2:
        pairs = []
    differences = [_difference(measure, first.outcomes, second.outcomes, pairs) for measure in _MEASURES]
    summaries = summary_of(first.record), summary_of(second.record)
    return Comparison(
        summaries=summaries,
        pairs=len(pairs),
        alone=(sizes[0] - len(pairs), sizes[1] - len(pairs)),
        differences=differences,
        circumstances=_side_by_side(first, second, summaries),
    )


def _side_by_side(
    first: Evidence, second: Evidence, summaries: tuple[dict[str, Any], dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """Every circumstance, and each setting by itself."""
    manifests = first.record.manifest, second.record.manifest
    one, two = (circumstances(manifest, summary) for manifest, summary in zip(manifests, summaries, strict=True))
    rows = [(name, value, two[name]) for name, value in one.items() if name not in ("Settings", "Command")]
    settings = [manifest.configuration for manifest in manifests]
    for name in dict.fromkeys([*settings[0], *settings[1]]):
        # Where the run's folder lies is no circumstance of it.
        if name != "run":
            values = ["–" if (value := each.get(name)) is None else str(value) for each in settings]
            rows.append((f"setting {name}", values[0], values[1]))
    return rows


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What `roadside report RUN --compare RUN2 --json` prints."""
    return {
        "runs": list(comparison.summaries),
        "pairs": comparison.pairs,
        "alone": list(comparison.alone),
        "differences": [asdict(difference) for difference in comparison.differences],
        "circumstances": [
            {"name": name, "first": one, "second": two} for name, one, two in comparison.circumstances if one != two
        ],
    }


def paired(first: Sequence[Outcome], second: Sequence[Outcome]) -> list[Pair]:
    """The tasks of two runs that ask the same about the same scene; where several do, in the order of creation."""
    waiting: defaultdict[tuple[str, float, str], list[Outcome]] = defaultdict(list)
    for outcome in sorted(second, key=lambda each: each.created_at_s, reverse=True):
        waiting[_scene(outcome)].append(outcome)
    pairs: list[Pair] = []
    for outcome in sorted(first, key=lambda each: each.created_at_s):
        # A task that only a restarted vehicle's journal remembered tells no scene.
        if outcome.clip and (partners := waiting.get(_scene(outcome))):
            pairs.append((outcome, partners.pop()))
    return pairs


def _scene(outcome: Outcome) -> tuple[str, float, str]:
    return outcome.clip, round(outcome.moment_s, 3), outcome.kind


def _difference(
    measure: _Measure, first: Sequence[Outcome], second: Sequence[Outcome], pairs: Sequence[Pair]
) -> Difference:
    if pairs:
        both = [(measure.value(one), measure.value(two)) for one, two in pairs]
        values = [(one, two) for one, two in both if one is not None and two is not None]
        ones, twos = [one for one, _ in values], [two for _, two in values]
        n: tuple[int, ...] = (len(values),)
    else:
        ones = [value for outcome in first if (value := measure.value(outcome)) is not None]
        twos = [value for outcome in second if (value := measure.value(outcome)) is not None]
        n = len(ones), len(twos)
    if len(ones) < 2 or len(twos) < 2:
        sentence = f"{measure.name}: too few values to compare."
        return Difference(measure.name, measure.unit, None, None, None, n, "none", "", sentence)
    if measure.percentile is not None:
        interval, method = _bootstrap(ones, twos, measure.percentile, as_pairs=bool(pairs))
        values_shown = _percentile(ones, measure.percentile), _percentile(twos, measure.percentile)
    else:
        interval, method = _means(ones, twos, as_pairs=bool(pairs), shares=measure.is_share)
        values_shown = statistics.fmean(ones), statistics.fmean(twos)
    verdict = _verdict(measure, interval)
    sentence = _sentence(measure, values_shown, interval)
    return Difference(measure.name, measure.unit, *values_shown, interval, n, method, verdict, sentence)


def _means(ones: Sequence[float], twos: Sequence[float], *, as_pairs: bool, shares: bool) -> tuple[Interval, str]:
    if as_pairs:
        estimate = mean_95([two - one for one, two in zip(ones, twos, strict=True)])
        assert estimate is not None
        assert estimate.half_width is not None
        half = estimate.half_width
        return Interval(estimate.value, estimate.value - half, estimate.value + half), "paired t"
    difference = statistics.fmean(twos) - statistics.fmean(ones)
    if shares:
        one, two = share_95(round(sum(ones)), len(ones)), share_95(round(sum(twos)), len(twos))
        assert one is not None
        assert two is not None
        below = math.hypot(two.value - two.low, one.high - one.value)
        above = math.hypot(two.high - two.value, one.value - one.low)
        return Interval(difference, difference - below, difference + above), "Newcombe's score interval"
    parts = [statistics.variance(values) / len(values) for values in (ones, twos)]
    variance = sum(parts)
    if variance == 0:
        return Interval(difference, difference, difference), "Welch's t"
    weights = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (ones, twos), strict=True))
    half = t_95(max(1, int(variance**2 / weights))) * math.sqrt(variance)
    return Interval(difference, difference - half, difference + half), "Welch's t"


def _bootstrap(
    ones: Sequence[float], twos: Sequence[float], percentile: float, *, as_pairs: bool
) -> tuple[Interval, str]:
    """The 2.5th and 97.5th percentile of the difference over resampled tasks; the same for the same runs."""
    random = np.random.default_rng(_SEED)
    first, second = np.asarray(ones), np.asarray(twos)
    resamples = int(min(_MOST_RESAMPLES, max(_FEWEST_RESAMPLES, _MOST_DRAWS / (len(first) + len(second)))))
    found = np.empty(resamples)
    # Many resamples at once, as far as they fit into memory.
    at_once = max(1, int(_DRAWS_AT_ONCE / max(len(first), len(second))))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        chosen = random.integers(0, len(first), (count, len(first)))
        others = chosen if as_pairs else random.integers(0, len(second), (count, len(second)))
        lower, upper = percentiles(first[chosen], percentile), percentiles(second[others], percentile)
        found[start : start + count] = upper - lower
    low, high = np.quantile(found, (0.025, 0.975))
    value = _percentile(second, percentile) - _percentile(first, percentile)
    what = "pairs" if as_pairs else "each run's tasks"
    return Interval(value, min(value, float(low)), max(value, float(high))), f"bootstrap of {what}, {resamples} times"


def _percentile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """As report.percentile: the smallest observed value that at least `share` of them do not exceed."""
    return float(percentiles(np.asarray(values)[None, :], share)[0])


def percentiles(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """As `report.percentile`, of each row of [resamples, tasks]."""
    rank = math.ceil(share * values.shape[1]) - 1
    return np.partition(values, rank, axis=1)[:, rank]


def _verdict(measure: _Measure, interval: Interval) -> str:
    if interval.holds_zero:
        return ""
    if measure.higher_is_better is None:
        return "differs"
    return "better" if (interval.value > 0) == measure.higher_is_better else "worse"


def _sentence(measure: _Measure, values: tuple[float, float], interval: Interval) -> str:
    shown = f"{written(values[0], measure.unit)} in the first, {written(values[1], measure.unit)} in the second"
    between = f"95%: {ends(interval, measure.unit)}"
    if interval.low == interval.high == 0:
        return f"{measure.name}: {shown}; the same in every task."
    if interval.holds_zero:
        return f"{measure.name}: {shown}; no difference shown ({between})."
    which = "higher" if interval.value > 0 else "lower"
    by = written(abs(interval.value), _unit_of_difference(measure.unit))
    return f"{measure.name}: {shown}; {which} in the second by {by} ({between})."


def written(value: float, unit: str) -> str:
    """A value with its unit, shares in percent."""
    if unit == "%":
        return f"{value:.1%}"
    if unit == "points":
        return f"{100 * value:.1f} points"
    return (f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:,.2f} {unit}").rstrip()


def signed(value: float, unit: str) -> str:
    """A difference, with its sign; of shares in points of a percent."""
    return f"{'-' if value < 0 else '+'}{written(abs(value), _unit_of_difference(unit))}"


def ends(interval: Interval, unit: str) -> str:
    """Both ends of a difference's interval, the unit once."""
    unit = _unit_of_difference(unit)
    low, high = signed(interval.low, unit), signed(interval.high, unit)
    return f"{low.removesuffix(unit).rstrip()} to {high}"


def _unit_of_difference(unit: str) -> str:
    return "points" if unit == "%" else unit


def _latency_ms(outcome: Outcome) -> float | None:
    return outcome.latency_ms if outcome.state in VISIBLE else None


def _first_answer_ms(outcome: Outcome) -> float | None:
    return outcome.first_answer_ms if outcome.state in VISIBLE else None


def _energy_j(outcome: Outcome) -> float | None:
    return outcome.energy_j if outcome.state in VISIBLE else None


def _correct(part: str) -> _Value:
    def value(outcome: Outcome) -> float | None:
        verdict = None if outcome.truth is None else getattr(outcome.truth, part)
        return None if verdict is None or outcome.state not in VISIBLE else float(verdict)

    return value


def _at(place: str) -> _Value:
    return lambda outcome: float(outcome.state == "result" and outcome.place == place)


def _kilobytes_up(outcome: Outcome) -> float:
    return outcome.context.bytes_up / 1e3 if outcome.context else 0.0


def _cloud_requests(outcome: Outcome) -> float:
    return float(outcome.context.cloud_requests) if outcome.context else 0.0


_MEASURES = (
    _Measure("answered in time", "%", lambda o: float(is_in_time(o)), is_share=True, higher_is_better=True),
    _Measure("fallbacks", "%", lambda o: float(o.state == "fallback"), is_share=True, higher_is_better=False),
    _Measure("latency, mean", "ms", _latency_ms, higher_is_better=False),
    _Measure("latency, p50", "ms", _latency_ms, percentile=0.5, higher_is_better=False),
    _Measure("latency, p90", "ms", _latency_ms, percentile=0.9, higher_is_better=False),
    _Measure("latency, p99", "ms", _latency_ms, percentile=0.99, higher_is_better=False),
    _Measure("first answer, p50", "ms", _first_answer_ms, percentile=0.5, higher_is_better=False),
    _Measure("energy per answer", "J", _energy_j, higher_is_better=False),
    _Measure("right action", "%", _correct("action_correct"), is_share=True, higher_is_better=True),
    _Measure("right reason", "%", _correct("justification_correct"), is_share=True, higher_is_better=True),
    *(_Measure(f"answered at {place}", "%", _at(place), is_share=True) for place in PLACES),
    _Measure("context sent up per task", "kB", _kilobytes_up),
    _Measure("cloud requests per task", "", _cloud_requests),
)
