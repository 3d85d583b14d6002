"""The fleets that are learnt from: any draw makes an environment, and they span what is to be served."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.places import PLACES
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment
from roadside.policy.features import FEATURES
from roadside.policy.training.fleets import FleetBounds, draw_fleet
from roadside.policy.training.placement import PlacementDomain, Variety

COMMITTED = load_constants(scenario=None)
OTHERS = Variety(others=1.0, tasks_of_others=40)
_LIVE_STATE = Path(__file__).parent.parent / "environment" / "live_state.json"


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_drawn_is_a_fleet_that_can_be_driven(seed):
    fleet = draw_fleet(COMMITTED, FleetBounds(), np.random.default_rng(seed))
    # As if it had been read from a file: every bound of the constants holds.
    msgspec.convert(msgspec.to_builtins(fleet.constants), type(COMMITTED))
    environment = Environment(fleet.constants, edges=fleet.edges, rate=fleet.rate_hz, tasks=3, seed=seed)
    for _ in range(3):
        step = environment.step(int(np.flatnonzero(environment.situation.allowed)[0]))
        assert np.isfinite(step.reward)


def test_the_same_seed_draws_the_same_fleet_and_another_another():
    draw = [draw_fleet(COMMITTED, FleetBounds(), np.random.default_rng(seed)).constants.sha256 for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]


def rows_met(episodes: int) -> np.ndarray:
    domain, rng = PlacementDomain(COMMITTED, OTHERS, knobs=0, discount=0.95), np.random.default_rng(0)
    rows = []
    for _ in range(episodes):
        (inputs, allowed), over = domain.reset(rng), False
        while not over:
            rows.append(inputs[allowed][:, : len(FEATURES)])
            _, (inputs, allowed), _, over = domain.step(domain.guide(rng))
    return np.concatenate(rows)


def test_they_span_a_moment_of_a_real_fleet():
    rows = rows_met(60)
    live = np.array(msgspec.json.decode(_LIVE_STATE.read_bytes())["features"])
    nodes = live[live[:, FEATURES.index("is_vehicle")] == 0]
    assert (rows.min(axis=0) <= nodes.min(axis=0) + 1e-6).all()
    assert (rows.max(axis=0) >= nodes.max(axis=0) - 1e-6).all()
    assert rows[:, : len(PLACES)].max(axis=0).tolist() == [1.0] * len(PLACES), "every place is met"


def test_floors_keep_tasks_from_a_narrator_while_a_node_is_left():
    domain, rng = PlacementDomain(COMMITTED, OTHERS, knobs=0, discount=0.95), np.random.default_rng(3)
    narrators = [observation[1] for observation in (domain.reset(rng) for _ in range(40)) if not observation[1][0]]
    assert narrators, "some fleets have floors"
    assert all(allowed.any() for allowed in narrators)


@pytest.mark.parametrize(("others", "shares"), [(0.0, 0.0), (0.5, 5 / 6), (1.0, 1.0)])
def test_a_share_of_the_decisions_not_of_the_episodes(others, shares):
    assert replace(OTHERS, others=others, tasks=200, tasks_of_others=40).other_episodes == pytest.approx(shares)
