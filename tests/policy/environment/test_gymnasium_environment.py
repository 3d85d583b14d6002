"""The environment under Gymnasium's interface, checked by Gymnasium itself."""

import warnings

import numpy as np
import pytest
from roadside.bus.errors import ConfigurationError
from roadside.policy.environment.constants import load_constants

pytest.importorskip("gymnasium", reason="the train extra is not installed: the Gymnasium wrapper is not tested")

from gymnasium.utils.env_checker import check_env
from roadside.policy.environment.environment import Environment
from roadside.policy.environment.gymnasium_environment import PlacementEnvironment

CONSTANTS = load_constants()


@pytest.mark.parametrize("rows", [0, 12])
def test_gymnasium_has_nothing_to_say_against_it(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It has no picture to render, and a specification only where somebody registers it.
        warnings.filterwarnings("ignore", message=".*spec.*")
        check_env(PlacementEnvironment(CONSTANTS, rows=rows, tasks=50), skip_render_check=True)


def test_it_is_the_same_environment_padded():
    wrapped, plain = PlacementEnvironment(CONSTANTS, rows=9, tasks=30), Environment(CONSTANTS, tasks=30)
    (seen, _), situation = wrapped.reset(seed=4), plain.reset(4)
    for _ in range(29):
        assert (seen["features"][:7] == situation.candidates.features).all()
        assert seen["allowed"].tolist() == [*situation.allowed, 0, 0]
        assert not seen["features"][7:].any()
        seen, reward, terminated, truncated, info = wrapped.step(np.int64(6))
        step = plain.step(6)
        assert (reward, terminated, truncated, info) == (step.reward, False, False, {"replaced": False})
        assert step.situation is not None
        situation = step.situation
    assert wrapped.step(np.int64(6))[2:4] == (False, True)


def test_a_row_that_is_not_there_is_replaced_and_said_so():
    environment = PlacementEnvironment(CONSTANTS, rows=9, tasks=30)
    environment.reset(seed=4)
    assert environment.step(np.int64(8))[4] == {"replaced": True}
    assert environment.step(np.int64(0))[4] == {"replaced": False}


def test_resets_without_a_seed_differ_and_repeat_after_one_with_it():
    environment = PlacementEnvironment(CONSTANTS, tasks=30)
    runs = []
    for _ in range(2):
        environment.reset(seed=9)
        runs.append([environment.reset()[0]["features"] for _ in range(2)])
    assert (runs[0][0] == runs[1][0]).all()
    assert (runs[0][1] == runs[1][1]).all()
    assert (runs[0][0] != runs[0][1]).any()


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigurationError, match="7 places"):
        PlacementEnvironment(CONSTANTS, rows=5)
