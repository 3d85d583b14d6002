"""What a policy remembers of nodes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment
from roadside.policy.experience import Experience
from roadside.policy.features import FEATURES
from roadside.policy.node_memory import INPUTS, NodeMemory

SLOWNESS, DOUBT = INPUTS.index("slowness"), INPUTS.index("slowness_doubt")


@pytest.fixture(scope="module")
def experience() -> Experience:
    """Of a task that an edge answered, as the simulator makes it."""
    environment = Environment(load_constants(), seed=3, tasks=1)
    (made,) = environment.step(int(np.flatnonzero(environment.situation.allowed)[1])).experiences
    assert made.place == "edge"
    return made


def promised_ms(experience: Experience) -> float:
    share = experience.features[experience.chosen, FEATURES.index("service_per_deadline")]
    return float(share) * experience.task.remaining_ms


def test_a_node_that_takes_twice_as_long_as_it_says_comes_to_be_known_for_it(experience):
    memory, candidates = NodeMemory(), Environment(load_constants(), seed=3, tasks=1).situation.candidates
    before = memory.inputs(candidates)
    assert np.array_equal(before[:, : len(FEATURES)], candidates.features)
    assert not before[:, SLOWNESS].any()
    for _ in range(100):
        memory.observe(replace(experience, service_ms=2 * promised_ms(experience)))
    after = memory.inputs(candidates)
    assert after[experience.chosen, SLOWNESS] == pytest.approx(math.log(2), rel=0.02)
    assert after[experience.chosen, DOUBT] < before[experience.chosen, DOUBT] / 2
    others = np.arange(len(candidates)) != experience.chosen
    assert np.array_equal(after[others], before[others])


def test_no_answer_says_nothing_of_speed(experience):
    memory = NodeMemory()
    memory.observe(replace(experience, service_ms=0.0))
    assert memory.state_dict() == {}


@given(service_ms=st.floats(0, 1e12))
def test_one_outcome_never_says_too_much(experience, service_ms):
    memory = NodeMemory()
    memory.observe(replace(experience, service_ms=service_ms))
    inputs = memory.inputs_of(experience.features, experience.rows)
    assert np.isfinite(inputs).all()
    assert abs(inputs[:, SLOWNESS]).max() <= 0.5
