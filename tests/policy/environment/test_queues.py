"""The exact queues against a slow simulation, event by event."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.policy.environment.queues import Server

times = st.floats(0, 20, allow_subnormal=False)
tasks = st.lists(st.tuples(times, st.floats(0, 5, allow_subnormal=False)), min_size=1, max_size=40)


def event_driven(arrivals: list[tuple[float, float]], slots: int) -> list[float]:
    """When each task is done, from a calendar of arrivals and departures and a line in which tasks wait."""
    calendar = [(arrival_s, 1, number) for number, (arrival_s, _) in enumerate(arrivals)]
    heapq.heapify(calendar)
    waiting: list[int] = []
    free, done_s = slots, [0.0] * len(arrivals)
    while calendar:
        now_s, arrives, number = heapq.heappop(calendar)
        if arrives:
            waiting.append(number)
        else:
            free += 1
        while free and waiting:
            taken = waiting.pop(0)
            free -= 1
            done_s[taken] = now_s + arrivals[taken][1]
            heapq.heappush(calendar, (done_s[taken], 0, taken))
    return done_s


@given(tasks, st.integers(1, 5))
def test_the_recursion_is_what_happens_event_by_event(unordered, slots):
    arrivals = sorted(unordered, key=lambda task: task[0])
    server = Server(slots)
    assert [server.serve(*task) for task in arrivals] == pytest.approx(event_driven(arrivals, slots))


def test_a_copy_goes_its_own_way():
    server = Server(2)
    server.serve(0.0, 3.0)
    server.serve(0.0, 5.0)
    twin = server.copy()
    assert twin.serve(1.0, 1.0) == 4.0
    assert server.free_s == 3.0
    assert server.serve(1.0, 1.0) == 4.0
