"""Intervals that cover the truth as often as they say."""

from __future__ import annotations

import random

import pytest
from roadside.qos.intervals import Estimate, mean_95, slope_95, t_95


def test_known_quantiles() -> None:
    # From any table of Student's t distribution; 40, 60 and 120 stand beyond the one in the module.
    for degrees_of_freedom, quantile in {1: 12.706, 4: 2.776, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}.items():
        assert t_95(degrees_of_freedom) == pytest.approx(quantile, abs=2e-3)


def test_a_mean_by_hand() -> None:
    estimate = mean_95([1.0, 2.0, 3.0])
    assert estimate is not None
    assert estimate.value == 2.0
    assert estimate.half_width == pytest.approx(4.303 / 3**0.5)


def test_too_little_to_be_sure() -> None:
    assert mean_95([]) is None
    assert mean_95([5.0]) == Estimate(5.0, None)
    with pytest.raises(ValueError, match="three"):
        slope_95([0.0, 1.0], [0.0, 1.0])


def test_a_straight_line_has_no_doubt() -> None:
    estimate = slope_95([0.0, 1.0, 2.0, 5.0], [1.0, 3.0, 5.0, 11.0])
    assert estimate.value == pytest.approx(2.0)
    assert estimate.half_width == pytest.approx(0.0, abs=1e-9)


def test_the_intervals_cover_what_they_promise() -> None:
    generator = random.Random(1)
    x = [float(number) for number in range(12)]
    covered = {"mean": 0, "slope": 0}
    for _ in range(1000):
        noise = [generator.gauss(0.0, 2.0) for _ in x]
        mean = mean_95([7.0 + each for each in noise])
        slope = slope_95(x, [3.0 - 0.5 * at + each for at, each in zip(x, noise, strict=True)])
        assert mean is not None
        assert mean.half_width is not None
        assert slope.half_width is not None
        covered["mean"] += abs(mean.value - 7.0) <= mean.half_width
        covered["slope"] += abs(slope.value + 0.5) <= slope.half_width
    # 950 of 1,000 are to be expected, give or take 4 standard deviations; the seed is fixed.
    assert all(922 <= count <= 978 for count in covered.values()), covered
