"""The last minute's rates and percentiles, from outcomes as they are heard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.messages import Outcome
from roadside.qos.last_minute import LIMIT, WINDOW_S, LastMinute


def test_rates_and_percentiles_are_of_the_minute_alone(an_outcome: Callable[..., Outcome]):
    minute = LastMinute(0.0)
    minute.add("car", an_outcome(task_id="old", latency_ms=9000.0), 1.0)
    for number in range(100):
        minute.add("car", an_outcome(task_id=f"t-{number}", latency_ms=float(number + 1)), 70.0)
    minute.add("bus", an_outcome(task_id="late", state="fallback", latency_ms=1975.0), 71.0)
    rates = minute.rates(72.0)
    assert (rates.tasks, rates.tasks_per_s) == (101, pytest.approx(101 / WINDOW_S))
    assert (rates.p50_ms, rates.p99_ms) == (51.0, 100.0)
    assert rates.in_time_share == pytest.approx(100 / 101)
    assert minute.rates(72.0, vehicle="bus").in_time_share == 0.0
    assert minute.answers_per_s(72.0) == {"cloud-1": pytest.approx(100 / WINDOW_S)}
    assert minute.newest(72.0)["bus"].outcome.task_id == "late"
    assert minute.rates(200.0).p50_ms is None


def test_a_rate_is_of_the_time_for_which_somebody_listened(an_outcome: Callable[..., Outcome]):
    minute = LastMinute(100.0)
    for number in range(10):
        minute.add("car", an_outcome(task_id=f"t-{number}"), 104.0)
    assert minute.rates(105.0).tasks_per_s == pytest.approx(2.0)


def test_an_ending_that_is_told_twice_counts_once_and_the_oldest_give_way(an_outcome: Callable[..., Outcome]):
    minute = LastMinute(0.0)
    outcome = an_outcome()
    for _ in range(3):
        minute.add("car", outcome, 1.0)
    assert minute.rates(1.0).tasks == 1
    for number in range(LIMIT + 5):
        minute.add("car", an_outcome(task_id=f"t-{number}"), 2.0)
    assert minute.rates(2.0).tasks == LIMIT


@given(
    heard=st.lists(st.floats(0, 300), max_size=40).map(sorted),
    later_s=st.floats(0, 100),
    bins=st.integers(1, 40),
)
def test_each_of_the_minute_s_tasks_is_in_one_bin(
    an_outcome: Callable[..., Outcome], heard: list[float], later_s: float, bins: int
):
    minute = LastMinute(0.0)
    for number, at_s in enumerate(heard):
        minute.add("car", an_outcome(task_id=f"t-{number}", latency_ms=float(number)), at_s)
    now_s = (heard[-1] if heard else 0.0) + later_s
    within = [number for number, at_s in enumerate(heard) if now_s - at_s <= WINDOW_S]
    medians = minute.p50_over_time(now_s, bins)
    assert len(medians) == bins
    told = [median for median in medians if median is not None]
    assert set(told) <= {float(number) for number in within}
    assert bool(told) == bool(within)
    assert minute.rates(now_s).tasks == len(within)
