"""What one vehicle that floods a node costs the others, in a node's queue on a clock of its own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter

from roadside.bus.kinds import KINDS
from roadside.bus.messages import Task
from roadside.models.admission import AdmissionQueue, Job

SERVICE_MS = 35.0
CAPACITY_HZ = 1000 / SERVICE_MS


def in_time_shares(rates_hz: dict[str, float], *, for_s: float = 60.0, limit: int = 16) -> dict[str, float]:
    """The share of each vehicle's tasks that one node answers in time; open load, and answers of varying length."""
    draw = random.Random(7)
    arrivals: list[tuple[float, str]] = []
    for vehicle, rate_hz in rates_hz.items():
        at_s = draw.expovariate(rate_hz)
        while at_s < for_s:
            arrivals.append((at_s, vehicle))
            at_s += draw.expovariate(rate_hz)
    jobs = AdmissionQueue(limit=limit)
    for kind in KINDS:
        jobs.service.observe("cloud", kind, SERVICE_MS)
    answered, asked = Counter[str](), Counter[str]()
    numbers = itertools.count()
    events: list[tuple[float, int, str | Job]] = [(at_s, next(numbers), vehicle) for at_s, vehicle in arrivals]
    heapq.heapify(events)
    while events:
        now_s, number, event = heapq.heappop(events)
        if isinstance(event, Job):
            busy_ms = (now_s - event.started_s) * 1000
            jobs.service.observe("cloud", event.task.kind, busy_ms)
            jobs.finish(event, busy_ms)
            answered[event.vehicle] += now_s <= event.deadline_s
        else:
            asked[event] += 1
            jobs.admit(event, a_task(number, draw.choice(list(KINDS))), now_s)
        while (job := jobs.start_next(now_s)) is not None:
            if jobs.give_up(job, now_s) is not None:
                jobs.finish(job, 0.0)
            else:
                takes_s = SERVICE_MS / 1000 * draw.lognormvariate(-0.045, 0.3)
                heapq.heappush(events, (now_s + takes_s, next(numbers), job))
    return {vehicle: answered[vehicle] / asked[vehicle] for vehicle in rates_hz}


def a_task(number: int, kind: str) -> Task:
    deadline_ms = KINDS[kind].deadline_ms
    return Task(str(number), 1, kind, "?", (b"1234",), {}, deadline_ms, deadline_ms, 0.5, "cloud")


def rates(flood: float, load: float = 0.7) -> dict[str, float]:
    share_hz = load * CAPACITY_HZ / 4
    return {"flooding": flood * share_hz, "a": share_hz, "b": share_hz, "c": share_hz}


def test_a_flooding_vehicle_costs_the_others_nothing() -> None:
    even, flooded = in_time_shares(rates(1.0)), in_time_shares(rates(5.0))
    assert min(even.values()) > 0.99
    assert min(flooded[name] for name in "abc") > 0.99
    # 1.4 times what the node can: what the others leave it is what the flood gets.
    left_hz = CAPACITY_HZ - 3 * rates(5.0)["a"]
    assert 0.9 * left_hz < flooded["flooding"] * rates(5.0)["flooding"] < 1.02 * left_hz


def test_under_twice_the_load_all_lose_alike_and_the_node_stays_as_good_as_at_its_peak() -> None:
    shares = in_time_shares(rates(1.0, load=2.0))
    assert max(shares.values()) - min(shares.values()) < 0.05
    goodput_hz = sum(share * rates(1.0, load=2.0)[vehicle] for vehicle, share in shares.items())
    assert goodput_hz > 0.95 * CAPACITY_HZ


def test_a_full_queue_is_shared_too() -> None:
    """It is full before any deadline but the shortest is near, and the longest line gives way."""
    flooded = in_time_shares(rates(5.0), limit=8)
    assert min(flooded[name] for name in "abc") > 0.97
    assert flooded["flooding"] < 0.7
