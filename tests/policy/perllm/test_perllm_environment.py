"""PerLLM's set-up: its queues against a simulation event by event, its books, and its bound."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.policy.environment.environment import run_episode
from roadside.policy.experience import Experience
from roadside.policy.perllm.bound import fluid_bound
from roadside.policy.perllm.constants import PerllmConstants, perllm_file
from roadside.policy.perllm.environment import PerllmEnvironment
from roadside.policy.perllm.requests import draw_requests
from roadside.policy.registry import PolicyOptions, make_policy

HEADLINE = perllm_file().headline


def constants(**changes: Any) -> PerllmConstants:
    return msgspec.structs.replace(HEADLINE, **{"requests": 300, **changes})


def play(environment: PerllmEnvironment, rows: list[int]) -> list[Experience]:
    """Request n goes to rows[n]; what became of each, in the order of asking."""
    environment.reset()
    experiences: list[Experience] = []
    for row in rows:
        experiences.extend(environment.step(row).experiences)
    return sorted(experiences, key=lambda each: each.decided_s)


def by_events(c: PerllmConstants, environment: PerllmEnvironment, rows: list[int]) -> list[tuple[float, float]]:
    """(asked, answered) of each request: links and slots as events in one calendar, with queues that are lists."""
    requests, counter = environment.requests, itertools.count()
    rates = [*[c.edge_link_bps] * c.edges, c.cloud_link_bps]
    speeds = [*[c.edge_tokens_per_s] * c.edges, c.cloud_tokens_per_s]
    free = [*[c.edge_slots] * c.edges, c.cloud_slots]
    around_s = [*[c.edge_round_trip_ms / 1000] * c.edges, c.cloud_round_trip_ms / 1000]
    on_link: list[list[int]] = [[] for _ in rates]
    waiting: list[list[int]] = [[] for _ in rates]
    asked: dict[int, float] = {}
    answered: dict[int, float] = {}
    calendar = [(float(at), next(counter), "ask", -1) for at in requests.first_s]
    heapq.heapify(calendar)

    def add(at_s: float, what: str, request: int) -> None:
        heapq.heappush(calendar, (at_s, next(counter), what, request))

    def send(server: int, now_s: float) -> None:
        request = on_link[server][0]
        add(now_s + 8 * requests.payload_bytes[request] / rates[server], "sent", request)

    def serve(server: int, now_s: float) -> None:
        while free[server] and waiting[server]:
            request = waiting[server].pop(0)
            free[server] -= 1
            took_s = requests.tokens[request] / speeds[server] * requests.service_factor[request]
            add(now_s + took_s, "served", request)

    while len(answered) < len(rows):
        now_s, _, what, request = heapq.heappop(calendar)
        if what == "ask":
            if (request := len(asked)) == len(rows):
                continue
            asked[request] = now_s
            server = rows[request]
            on_link[server].append(request)
            if len(on_link[server]) == 1:
                send(server, now_s)
            continue
        server = rows[request]
        if what == "sent":
            on_link[server].pop(0)
            if on_link[server]:
                send(server, now_s)
            waiting[server].append(request)
            serve(server, now_s)
        elif what == "served":
            free[server] += 1
            serve(server, now_s)
            add(now_s + around_s[server], "answered", request)
        else:
            answered[request] = now_s
            add(now_s, "ask", -1)
    return [(asked[n], answered[n]) for n in range(len(rows))]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999), users=st.integers(1, 40), cloud_bias=st.floats(0, 1))
def test_the_queues_are_those_of_a_simulation_event_by_event(seed, users, cloud_bias):
    c = constants(users=users, requests=150)
    environment = PerllmEnvironment(c, seed=seed)
    draw = np.random.default_rng(seed)
    rows = np.where(draw.random(150) < cloud_bias, c.edges, draw.integers(0, c.edges, 150)).tolist()
    ours = [(each.decided_s, each.ended_s) for each in play(environment, rows)]
    assert np.array(ours) == pytest.approx(np.array(by_events(c, environment, rows)))


def test_every_user_waits_for_one_answer_at_a_time():
    c = constants(users=7)
    environment = PerllmEnvironment(c, seed=3)
    experiences = play(environment, [n % 6 for n in range(c.requests)])
    for each in experiences[7:]:
        under_way = sum(other.decided_s < each.decided_s < other.ended_s for other in experiences)
        assert under_way == 6, "the seventh has just been answered"


def test_experiences_come_once_and_no_sooner_than_they_ended():
    environment = PerllmEnvironment(constants(), seed=2)
    seen: list[Experience] = []
    for n in range(300):
        step = environment.step(n % 6)
        seen.extend(step.experiences)
        now_s = math.inf if step.situation is None else step.situation.now_s
        assert all(each.ended_s <= now_s for each in step.experiences)
    assert len({id(each) for each in seen}) == len(seen) == 300


def test_what_is_expected_comes_true_where_nothing_is_left_to_chance():
    environment = PerllmEnvironment(constants(service_sigma=0.0), seed=5)
    expected: list[float] = []
    situation = environment.reset()
    draw = np.random.default_rng(5)
    experiences: list[Experience] = []
    for _ in range(300):
        assert situation is not None
        row = int(draw.integers(6))
        expected.append(float(situation.candidates.latency_ms[row]))
        step = environment.step(row)
        experiences.extend(step.experiences)
        situation = step.situation
    realised = [each.latency_ms for each in sorted(experiences, key=lambda each: each.decided_s)]
    assert realised == pytest.approx(expected)


def test_the_same_seed_asks_the_same_whatever_the_policy_and_the_links():
    stable, fluctuating = draw_requests(constants(), 4), draw_requests(constants(link_fluctuation=0.2), 4)
    for field in ("first_s", "payload_bytes", "tokens", "deadline_s", "service_factor"):
        assert (getattr(stable, field) == getattr(fluctuating, field)).all()
    assert (stable.link_factor == 1).all()
    assert fluctuating.link_factor.min() >= 0.8
    assert fluctuating.link_factor.max() <= 1.2
    environment = PerllmEnvironment(constants(), seed=4)
    again = [run_episode(environment, make_policy("random", PolicyOptions(seed=1))) for _ in range(2)]
    assert again[0] == again[1]


def test_a_link_whose_rate_changes_lets_through_what_its_rates_add_up_to():
    c = constants(link_fluctuation=0.2, users=1, requests=40)
    environment = PerllmEnvironment(c, seed=6)
    experiences = play(environment, [c.edges] * 40)
    factor = environment.requests.link_factor[c.edges]
    for n, each in enumerate(experiences):
        service_s = environment.requests.tokens[n] / c.cloud_tokens_per_s * environment.requests.service_factor[n]
        sent_s = each.ended_s - c.cloud_round_trip_ms / 1000 - service_s
        at_s = np.linspace(each.decided_s, sent_s, 20_001)
        middle_s = (at_s[:-1] + at_s[1:]) / 2
        bits = (c.cloud_link_bps * factor[middle_s.astype(int)]).sum() * (at_s[1] - at_s[0])
        assert bits == pytest.approx(8 * environment.requests.payload_bytes[n], rel=1e-3)


def test_joules_are_idle_power_and_what_each_request_adds_and_the_bill_is_more():
    c = constants()
    environment = PerllmEnvironment(c, seed=8)
    experiences = play(environment, [n % 6 for n in range(c.requests)])
    figures = environment.summary()
    last_s = max(each.ended_s for each in experiences)
    added_j = sum(each.energy_j for each in experiences)
    assert figures.joules_per_request == pytest.approx((c.idle_w * last_s + added_j) / c.requests)
    assert figures.latency_mean_s == pytest.approx(sum(each.latency_ms for each in experiences) / 1000 / c.requests)
    assert figures.success_share == pytest.approx(sum(each.in_time for each in experiences) / c.requests)
    assert figures.tokens_per_s == pytest.approx(environment.requests.tokens.sum() / last_s)
    alone = play(PerllmEnvironment(constants(users=1, requests=1), seed=8), [5])[0]
    environment = PerllmEnvironment(constants(users=1, requests=1), seed=8)
    environment.step(5)
    upload_s = 8 * environment.requests.payload_bytes[0] / c.cloud_link_bps
    billed_j = c.cloud_busy_w / c.cloud_slots * alone.latency_ms / 1000 + c.transmit_w * upload_s
    assert environment.summary().billed_joules_per_request == pytest.approx(billed_j)


def test_a_batch_starts_at_a_multiple_of_its_pause():
    c = constants(users=1, requests=20, service_sigma=0.0)
    environment = PerllmEnvironment(c, seed=9, cloud_batch_s=0.5)
    for n, each in enumerate(play(environment, [c.edges] * 20)):
        starts_s = each.ended_s - c.cloud_round_trip_ms / 1000 - environment.requests.tokens[n] / c.cloud_tokens_per_s
        assert starts_s / 0.5 == pytest.approx(round(starts_s / 0.5))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 999),
    users=st.integers(1, 60),
    edges=st.integers(1, 8),
    policy=st.sampled_from(["random", "greedy-delay", "shadow-price", "jsq"]),
)
def test_no_policy_beats_the_bound(seed, users, edges, policy):
    pytest.importorskip("scipy", reason="SciPy solves the linear program; it comes with roadside[train]")
    c = constants(users=users, edges=edges, requests=120, service_sigma=0.0)
    environment = PerllmEnvironment(c, seed=seed)
    bound = fluid_bound(c, environment.requests)
    figures = run_episode(environment, make_policy(policy, PolicyOptions(seed=seed)))
    assert figures.tokens_per_s <= bound.tokens_per_s
    assert figures.joules_per_request >= bound.joules_per_request
    assert figures.billed_joules_per_request >= bound.billed_joules_per_request


def test_the_bound_is_what_arithmetic_says_where_one_resource_decides():
    """Requests that are all alike: the cloud's link and the edges' slots are each full, and nothing else is."""
    pytest.importorskip("scipy", reason="SciPy solves the linear program; it comes with roadside[train]")
    c = constants(payload_bytes=(4e6, 4e6), tokens=(20.0, 20.0))
    bound = fluid_bound(c, draw_requests(c, 0))
    cloud_hz, edges_hz = c.cloud_link_bps / 32e6, c.edges * c.edge_slots * c.edge_tokens_per_s / 20
    assert bound.tokens_per_s == pytest.approx(20 * (cloud_hz + edges_hz))
    assert bound.cloud_share == pytest.approx(cloud_hz / (cloud_hz + edges_hz))


def test_the_headline_is_the_set_up_that_the_figures_were_made_with():
    assert perllm_file().sha256 == "e17227cba04818df", "other constants give other figures: make docs/policies.md anew"
