"""Whose turn it is: shares, order within a line, and what a newcomer finds."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.models.fair_lines import FairLines


@dataclass(frozen=True)
class Work:
    vehicle: str
    number: int
    deadline_s: float = 1.0
    takes_ms: float = 10.0


def lines(*jobs: Work) -> FairLines[Work]:
    made: FairLines[Work] = FairLines(lambda job: job.takes_ms)
    for job in jobs:
        made.add(job)
    return made


def served(waiting: FairLines[Work], count: int | None = None) -> list[str]:
    return [waiting.pop().vehicle for _ in range(len(waiting) if count is None else count)]


def test_a_long_line_does_not_hold_up_a_short_one():
    waiting = lines(*(Work("flood", number) for number in range(20)))
    served(waiting, 5)
    for number in range(20, 23):
        waiting.add(Work("quiet", number))
    assert served(waiting, 6).count("quiet") == 3


def test_shares_are_of_work_not_of_jobs():
    waiting = lines(*(Work("long", n, takes_ms=40.0) for n in range(50)), *(Work("short", 50 + n) for n in range(50)))
    assert Counter(served(waiting, 50)) == {"short": 40, "long": 10}


def test_whoever_was_away_does_not_save_up_turns():
    waiting = lines(Work("away", 0), *(Work("there", number) for number in range(1, 40)))
    served(waiting, 20)
    for number in range(40, 60):
        waiting.add(Work("away", number))
    assert Counter(served(waiting, 10)) == {"away": 5, "there": 5}


def test_within_a_line_the_earliest_deadline_is_next():
    waiting = lines(Work("v", 0, 4.0), Work("v", 1, 0.7), Work("v", 2, 2.0), Work("v", 3, 0.7))
    assert [waiting.pop().number for _ in range(4)] == [1, 3, 2, 0]


def test_what_a_job_took_beyond_its_prediction_is_charged():
    waiting = lines(*(Work(name, 2 * n + i) for n in range(20) for i, name in enumerate(("slow", "fast"))))
    given_ms = {"slow": 0.0, "fast": 0.0}
    for _ in range(20):
        job = waiting.pop()
        took_ms = 40.0 if job.vehicle == "slow" else 10.0
        waiting.settle(job.vehicle, took_ms - job.takes_ms)
        given_ms[job.vehicle] += took_ms
    assert abs(given_ms["slow"] - given_ms["fast"]) <= 50


def test_the_longest_line_gives_way_and_only_to_a_shorter_one():
    waiting = lines(*(Work("flood", number, deadline_s=number) for number in range(5)), Work("quiet", 5))
    assert waiting.gives_way_to(Work("flood", 6)) is None
    pushed_out = waiting.gives_way_to(Work("quiet", 7))
    assert pushed_out is not None
    assert (pushed_out.vehicle, pushed_out.number) == ("flood", 4)
    assert waiting.gives_way_to(Work("quiet", 8, takes_ms=60.0)) is None
    assert lines().gives_way_to(Work("quiet", 9)) is None


def test_however_many_vehicles_come_by_few_are_remembered():
    waiting = lines()
    for number in range(1000):
        waiting.add(Work(f"vehicle-{number}", number))
        waiting.pop()
    assert len(waiting._lines) <= 65


JOBS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 5.0), st.floats(1.0, 50.0)), max_size=40)


@given(JOBS)
def test_the_order_told_is_the_order_served(specification):
    jobs = [Work(name, number, due_s, takes) for number, (name, due_s, takes) in enumerate(specification)]
    waiting = lines(*jobs)
    told = list(waiting.in_order())
    assert [waiting.pop() for _ in range(len(waiting))] == told
    assert sorted(told, key=lambda job: job.number) == jobs


@given(JOBS, JOBS)
def test_what_is_served_before_a_newcomer_is_what_was_told(earlier, later):
    waiting = lines(*(Work(name, number, due_s, takes) for number, (name, due_s, takes) in enumerate(earlier)))
    served(waiting, len(earlier) // 2)
    for number, (name, due_s, takes) in enumerate(later, start=len(earlier)):
        waiting.add(Work(name, number, due_s, takes))
    told = waiting.before_next_of("a")
    newcomer = Work("a", 10_000, 99.0)
    order = list(waiting.in_order(also=newcomer))
    assert order[: order.index(newcomer)] == told


@given(
    first=st.lists(st.floats(1.0, 50.0), min_size=30, max_size=30),
    second=st.lists(st.floats(1.0, 50.0), min_size=30, max_size=30),
    away=st.integers(0, 20),
)
def test_of_two_that_wait_neither_gets_more_than_a_job_of_each_ahead(first, second, away):
    """SFQ's theorem 1, over every interval that ends with both still waiting."""
    waiting = lines(*(Work("a", number, takes_ms=takes) for number, takes in enumerate(first)))
    served(waiting, away)
    for number, takes in enumerate(second, start=100):
        waiting.add(Work("b", number, takes_ms=takes))
    bound_ms = max(first) + max(second)
    ahead_ms, low, high = 0.0, 0.0, 0.0
    left = Counter({"a": len(first) - away, "b": len(second)})
    while left["a"] and left["b"]:
        job = waiting.pop()
        left[job.vehicle] -= 1
        ahead_ms += job.takes_ms if job.vehicle == "a" else -job.takes_ms
        low, high = min(low, ahead_ms), max(high, ahead_ms)
        assert high - low <= bound_ms + 1e-6


def test_nothing_waits_in_empty_lines():
    with pytest.raises(ValueError, match="empty"):
        lines().pop()
