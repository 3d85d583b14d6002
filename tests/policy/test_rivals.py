"""The rival policies: what each computes, against the same computed another way."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.places import PLACES, Place
from roadside.policy.active_inference import ActiveInferencePolicy, ActiveInferenceSettings
from roadside.policy.base import Policy, PolicyOptions
from roadside.policy.candidates import Candidates, candidates_of
from roadside.policy.cs_ucb import CsUcbPolicy, CsUcbSettings
from roadside.policy.experience import Experience, Knobs
from roadside.policy.features import Observed, TaskFacts
from roadside.policy.greedy_delay import GreedyDelayPolicy
from roadside.policy.jsq import JsqPolicy, JsqSettings
from roadside.policy.linucb import LinUcbPolicy, LinUcbSettings
from roadside.policy.perllm.bound import fluid_bound
from roadside.policy.perllm.constants import perllm_file
from roadside.policy.perllm.environment import PerllmEnvironment
from roadside.policy.registry import make_policy
from roadside.policy.shadow_price import ShadowPricePolicy
from roadside.policy.softmax import draw_by_softmax
from roadside.policy.softmax_greedy import SoftmaxGreedyPolicy
from roadside.policy.utility import UtilityModel

TASK = TaskFacts("explain", 2000.0, 2000.0, 0.0, 1_000_000, 25.0)
OPTIONS = PolicyOptions(seed=3)
RIVALS = (
    "jsq",
    "greedy-delay",
    "softmax-greedy",
    "shadow-price",
    "linucb",
    "cs-ucb",
    "cs-ucb-predicted",
    "active-inference",
)


def table(seed: int, edges: int = 3, **columns: list[float]) -> Candidates:
    """A vehicle, so many edges and a cloud, drawn; `columns` of what is observed replace what was drawn."""
    draw = np.random.default_rng(seed)
    places: tuple[Place, ...] = ("vehicle", *("edge" for _ in range(edges)), "cloud")
    rows = len(places)
    drawn = {
        "upload_ms": draw.uniform(20, 400, rows),
        "round_trip_ms": draw.uniform(5, 70, rows),
        "link_wait_ms": draw.uniform(0, 500, rows),
        "compute_wait_ms": draw.uniform(0, 3000, rows),
        "age_ms": np.zeros(rows),
        "unreported": np.zeros(rows),
        "service_ms": draw.uniform(200, 1500, rows),
        "power_w": draw.uniform(35, 60, rows),
        "quality": draw.uniform(0.4, 0.9, rows),
        "in_flight": draw.integers(0, 6, rows).astype(float),
        "slots": draw.integers(1, 6, rows).astype(float),
    } | {name: np.array(values, float) for name, values in columns.items()}
    observed = Observed(place=np.array([PLACES.index(place) for place in places], np.intp), **drawn)
    nodes = ("vehicle", *(f"edge-{n}" for n in range(1, edges + 1)), "cloud")
    return candidates_of(TASK, observed, UtilityModel(), nodes=nodes, places=places, masked=("",) * rows)


def experience(candidates: Candidates, chosen: int, *, utility: float = 0.5, latency_ms: float = 800.0) -> Experience:
    return Experience(
        task=TASK,
        features=candidates.features,
        allowed=np.ones(len(candidates), np.bool_),
        chosen=chosen,
        node=candidates.nodes[chosen],
        place=candidates.places[chosen],
        knobs=Knobs(),
        propensity=1.0,
        latency_ms=latency_ms,
        energy_j=30.0,
        in_time=latency_ms <= TASK.deadline_ms,
        right=1.0,
        utility=utility,
        decided_s=0.0,
        ended_s=1.0,
    )


def decide(policy: Policy, candidates: Candidates, allowed: list[bool] | None = None):
    mask = np.ones(len(candidates), np.bool_) if allowed is None else np.array(allowed)
    return policy.decide(TASK, candidates, mask, 0.0)


@settings(deadline=None)
@given(
    name=st.sampled_from(RIVALS), seed=st.integers(0, 50), masks=st.lists(st.integers(0, 30), min_size=1, max_size=6)
)
def test_a_rival_by_itself_keeps_to_the_mask_and_gives_a_number_for_every_row(name, seed, masks):
    policy = make_policy(name, PolicyOptions(seed=seed))
    for step, bits in enumerate(masks):
        candidates = table(seed + step)
        allowed = [bool(bits >> row & 1) for row in range(len(candidates))]
        allowed[step % len(allowed)] = True
        choice = decide(policy, candidates, allowed)
        assert allowed[choice.index]
        assert np.isfinite(choice.scores).all()
        assert len(choice.scores) == len(candidates)
        assert 0 < choice.propensity <= 1
        policy.observe(experience(candidates, choice.index))


def test_greedy_delay_takes_the_shortest_delay():
    candidates = table(1)
    assert decide(GreedyDelayPolicy(OPTIONS), candidates).index == int(candidates.latency_ms.argmin())


@given(
    lengths=st.lists(st.integers(0, 3), min_size=2, max_size=5),
    choices=st.integers(0, 5),
    seed=st.integers(0, 20),
)
def test_jsq_states_the_probability_of_its_choice(lengths, choices, seed):
    """Against every sample that it might have drawn, written out."""
    rows = len(lengths) + 2
    candidates = table(1, len(lengths), in_flight=[9.0, *lengths, 9.0], slots=[1] * rows, service_ms=[100] * rows)
    allowed = [False, *([True] * len(lengths)), False]
    choice = decide(JsqPolicy(PolicyOptions(seed=seed), JsqSettings(choices=choices)), candidates, allowed)
    drawn = min(choices, len(lengths)) or len(lengths)
    samples = list(combinations(range(len(lengths)), drawn))
    expected = 0.0
    for sample in samples:
        shortest = [row for row in sample if lengths[row] == min(lengths[each] for each in sample)]
        expected += (choice.index - 1 in shortest) / len(shortest) / len(samples)
    assert choice.propensity == pytest.approx(expected)


def test_jsq_draws_among_equals():
    candidates = table(1, in_flight=[9, 1, 1, 1, 9], slots=[1] * 5, service_ms=[100] * 5)
    policy = JsqPolicy(OPTIONS, JsqSettings(choices=0))
    drawn = Counter(decide(policy, candidates).index for _ in range(600))
    assert drawn.keys() == {1, 2, 3}
    assert min(drawn.values()) > 150


@given(
    scores=st.lists(st.floats(-2, 2), min_size=1, max_size=6),
    temperature=st.floats(0.01, 2),
    seed=st.integers(0, 99),
    bits=st.integers(1, 63),
)
def test_a_row_is_drawn_with_the_probability_of_a_softmax_over_the_allowed_ones(scores, temperature, seed, bits):
    allowed = np.array([bool(bits >> row & 1) for row in range(len(scores))])
    allowed[0] |= not allowed.any()
    index, propensity = draw_by_softmax(np.array(scores), allowed, temperature, np.random.default_rng(seed))
    top = max(score for score, free in zip(scores, allowed, strict=True) if free)
    weights = [math.exp((score - top) / temperature) * free for score, free in zip(scores, allowed, strict=True)]
    assert allowed[index]
    assert propensity == pytest.approx(weights[index] / sum(weights))


def test_softmax_greedy_visits_rows_as_often_as_it_says():
    candidates, policy = table(2), SoftmaxGreedyPolicy(OPTIONS)
    choices = [decide(policy, candidates) for _ in range(4000)]
    counts = Counter(choice.index for choice in choices)
    for choice in choices[:50]:
        assert counts[choice.index] / 4000 == pytest.approx(choice.propensity, abs=0.04)


@given(seed=st.integers(0, 99), ridge=st.sampled_from([0.1, 1.0, 10.0]))
@settings(deadline=None, max_examples=20)
def test_linucb_is_ridge_regression_with_the_width_of_its_confidence(seed, ridge):
    draw = np.random.default_rng(seed)
    policy = LinUcbPolicy(OPTIONS, LinUcbSettings(alpha=0.7, ridge=ridge))
    rows, rewards = [], []
    for step in range(30):
        candidates, chosen, reward = table(seed + step), int(draw.integers(5)), float(draw.normal())
        policy.observe(experience(candidates, chosen, utility=reward))
        rows.append(np.append(candidates.features[chosen], 1.0))
        rewards.append(reward)
    seen, new = np.array(rows), table(seed + 1000)
    matrix = ridge * np.eye(seen.shape[1]) + seen.T @ seen
    theta = np.linalg.solve(matrix, seen.T @ np.array(rewards))
    x = np.column_stack((new.features, np.ones(len(new))))
    width = np.sqrt(np.einsum("ij,ij->i", x, np.linalg.solve(matrix, x.T).T))
    assert decide(policy, new).scores == pytest.approx(x @ theta + 0.7 * width, abs=1e-6)


def _tried(policy: CsUcbPolicy, candidates: Candidates, rewards: list[float]) -> None:
    for row, reward in enumerate(rewards):
        policy.observe(experience(candidates, row, utility=reward))


def test_cs_ucb_compares_satisfied_arms_by_equation_6():
    quiet: dict[str, Any] = {"in_flight": [0.0] * 5, "link_wait_ms": [0.0] * 5, "slots": [2.0] * 5}
    candidates = table(4, **quiet)
    policy = CsUcbPolicy(OPTIONS, CsUcbSettings(delta=0.3, slots_limit=3.0))
    _tried(policy, candidates, [0.1, 0.2, 0.3, 0.4, 0.35])
    _tried(policy, candidates, [0.1, 0.2, 0.3])
    choice = decide(policy, candidates)
    # Eight outcomes are known; those that were tried once are more in doubt.
    assert choice.index == 3
    bonus = [0.3 * math.sqrt(math.log(8) / tries) for tries in (2, 2, 2, 1, 1)]
    means = [0.1, 0.2, 0.3, 0.4, 0.35]
    assert choice.scores == pytest.approx([m + b for m, b in zip(means, bonus, strict=True)])
    assert decide(policy, candidates).scores == pytest.approx(choice.scores), "to ask changes nothing"


def test_cs_ucb_leaves_out_what_violates_a_constraint_and_takes_the_least_violation_where_all_do():
    settings_ = CsUcbSettings(slots_limit=2.0, link_limit_s=1.0)
    candidates = table(4, in_flight=[0, 4, 1, 0, 0], slots=[2] * 5, link_wait_ms=[0, 0, 0, 1500, 0])
    policy = CsUcbPolicy(OPTIONS, settings_)
    _tried(policy, candidates, [0.0, 0.9, 0.5, 0.9, 0.1])
    assert decide(policy, candidates).index == 2, "row 1 is full, row 3's link is"
    full = table(4, in_flight=[9, 8, 7, 6, 5], slots=[2] * 5, link_wait_ms=[0] * 5)
    assert decide(policy, full).index == 4


def test_only_the_predicting_cs_ucb_sees_a_deadline_missed_before_it_is():
    candidates = table(
        4, in_flight=[0] * 5, slots=[2] * 5, link_wait_ms=[0] * 5, compute_wait_ms=[0, 0, 5000, 0, 0], age_ms=[0] * 5
    )
    for predicts, expected in ((False, 2), (True, 3)):
        policy = CsUcbPolicy(OPTIONS, CsUcbSettings(slots_limit=3.0), predicts_delay=predicts)
        _tried(policy, candidates, [0.1, 0.2, 0.9, 0.4, 0.3])
        assert decide(policy, candidates).index == expected


def test_cs_ucb_tries_every_arm_and_learns_equation_4():
    candidates = table(4, in_flight=[0] * 5, slots=[2] * 5, link_wait_ms=[0] * 5)
    policy = CsUcbPolicy(
        OPTIONS, CsUcbSettings(reward="equation-4", lambda_=2.0, slots_limit=3.0, reference_energy_j=60.0)
    )
    tried = set()
    for _ in range(5):
        choice = decide(policy, candidates)
        tried.add(choice.index)
        policy.observe(experience(candidates, choice.index, latency_ms=500.0))
    assert tried == set(range(5))
    assert policy.state_dict()["arms"]["edge-1 edge"] == [1, pytest.approx(2.0 * (1 - 500 / 2000) - 30 / 60)]


def test_active_inference_comes_to_prefer_what_comes_in_time():
    """Where doubt is all there is, it draws; once one row has been late and another not, it knows."""
    same: dict[str, Any] = {"quality": [0.8] * 5, "compute_wait_ms": [0.0] * 5, "link_wait_ms": [0.0] * 5}
    candidates = table(5, **same)
    policy = ActiveInferencePolicy(OPTIONS, ActiveInferenceSettings(precision=8.0, energy_cost=0.0))
    before = Counter(decide(policy, candidates).index for _ in range(500))
    assert len(before) == 5
    for _ in range(40):
        for row in range(5):
            policy.observe(experience(candidates, row, latency_ms=500.0 if row == 2 else 5000.0))
    after = Counter(decide(policy, candidates).index for _ in range(500))
    assert after[2] > 490


def test_active_inference_believes_by_the_beta_distribution_of_the_state_it_saw():
    candidates = table(5, quality=[1.0] * 5, compute_wait_ms=[0.0] * 5, link_wait_ms=[0.0] * 5)
    settings_ = ActiveInferenceSettings(preference=2.0, energy_cost=0.0, curiosity=1.0)
    policy = ActiveInferencePolicy(OPTIONS, settings_)
    for latency_ms in (500.0, 600.0, 5000.0):
        policy.observe(experience(candidates, 1, latency_ms=latency_ms))
    in_time = 3 / 5
    scores = decide(policy, candidates).scores
    assert scores[1] == pytest.approx(2.0 * (2 * in_time - 1) + 1 / 5)
    assert scores[2] == pytest.approx(2.0 * 0 + 1 / 2)


def test_shadow_prices_are_the_duals_of_the_fluid_problem():
    """Learnt from the requests one by one, against what the linear program says of all of them."""
    pytest.importorskip("scipy", reason="SciPy solves the linear program; it comes with roadside[train]")
    environment = PerllmEnvironment(perllm_file().headline, seed=7)
    policy = ShadowPricePolicy(PolicyOptions())
    situation = environment.reset()
    for _ in range(1500):
        choice = policy.decide(situation.task, situation.candidates, situation.allowed, situation.now_s)
        step = environment.step(choice.index)
        assert step.situation is not None
        situation = step.situation
    cloud_link, cloud_slots, edge_slots, edge_links = fluid_bound(environment.constants, environment.requests).price
    prices = policy.state_dict()["prices"]
    assert prices["cloud"] == pytest.approx([cloud_link, cloud_slots], abs=0.03)
    assert prices["edge"] == pytest.approx([edge_links, edge_slots], abs=0.03)
    assert prices["edge+cloud"] == [0.0, 0.0]


def test_shadow_prices_start_anew_when_a_place_appears():
    policy = ShadowPricePolicy(PolicyOptions())
    candidates = table(1)
    only_edges = [True, True, True, True, False]
    for _ in range(50):
        decide(policy, candidates, only_edges)
    assert policy.state_dict()["prices"]["cloud"] == [0.0, 0.0]
    for _ in range(300):
        decide(policy, candidates)
    prices = policy.state_dict()["prices"]
    assert sum(map(sum, prices.values())) == pytest.approx(1.0)
    assert sum(prices["cloud"]) > 0.1
