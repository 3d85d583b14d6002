"""How sure a mean or a slope is: two-sided 95% intervals from Student's t distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95% quantiles of Student's t by degrees of freedom, 1 to 30; any table has them.
_T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """value, give or take half_width: None where there is too little to say how sure it is."""

    value: float
    half_width: float | None


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the two ends of its 95% interval, which need not lie around it evenly."""

    value: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        return self.low <= 0.0 <= self.high


def share_95(successes: int, trials: int) -> Interval | None:
    """The share of independent trials that succeeded, with Wilson's score interval; None of no trials.

    Unlike value plus or minus a standard error it stays within 0 and 1, and is no point where all or none succeeded.
    """
    if trials == 0:
        return None
    share = successes / trials
    z2 = _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = _Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(share, min(share, max(0.0, centre - spread)), max(share, min(1.0, centre + spread)))


def t_95(degrees_of_freedom: int) -> float:
    """The quantile; above 30 degrees of freedom by the first terms of its expansion around the normal one."""
    if degrees_of_freedom <= len(_T_95):
        return _T_95[degrees_of_freedom - 1]
    return _Z_95 + (_Z_95**3 + _Z_95) / (4 * degrees_of_freedom)


def mean_95(values: Sequence[float]) -> Estimate | None:
    """The mean of independent values; None of nothing."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(statistics.fmean(values), t_95(len(values) - 1) * error)


def slope_95(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """The slope of the least-squares line through points whose deviations from it are independent.

    Readings that follow each other closely are not: average them over stretches longer than what they remember
    first. Raises ValueError for fewer than three points or where all x are the same.
    """
    if len(x) < 3:
        raise ValueError("a slope and its interval need at least three points")
    line = statistics.linear_regression(x, y)
    residuals = [each_y - line.intercept - line.slope * each_x for each_x, each_y in zip(x, y, strict=True)]
    degrees_of_freedom = len(x) - 2
    variance = math.fsum(residual**2 for residual in residuals) / degrees_of_freedom
    centre = statistics.fmean(x)
    spread = math.fsum((each - centre) ** 2 for each in x)
    return Estimate(line.slope, t_95(degrees_of_freedom) * math.sqrt(variance / spread))
