"""Trainings of placement: they improve, they can be stopped and taken up again, and they say what cannot be done."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment, run_episode
from roadside.policy.served import ServedPolicy, knobs_of
from roadside.policy.training import run
from roadside.policy.training.exploration import DiffusionNoise, GaussianNoise, OrnsteinUhlenbeckNoise
from roadside.policy.training.placement import PlacementDomain, Variety
from roadside.policy.training.recipes import recipe_of
from roadside.policy.training.replay import Batch
from roadside.policy.training.run import PolicyTraining, train
from roadside.policy.training.set_networks import SetDenoiser
from roadside.policy.weights import Weights, load_weights

STALE = Variety(
    edges=(3,), heartbeats_s=(2.0,), rates=(20.0, 20.0), drifts=(0.3, 0.3), together=0.0, tasks=300, others=0.0
)


def tiny(policy: str, *, total_steps: int, **changes):
    recipe = recipe_of(policy)
    ddpg = replace(recipe.ddpg, warm_up_steps=200, guided_steps=600, batch_size=64, train_every_steps=4)
    return replace(recipe, total_steps=total_steps, scaling_steps=200, ddpg=ddpg, variety=STALE, **changes)


def utility(weights: Weights) -> float:
    environment = Environment(load_constants(), edges=3, heartbeat_s=2.0, tasks=600, seed=501)
    return run_episode(environment, ServedPolicy("trained", weights)).utility


@pytest.fixture
def one_validation(monkeypatch):
    monkeypatch.setattr(run, "VALIDATION_CELLS", ((3, 2.0),))
    monkeypatch.setattr(run, "VALIDATION_SEEDS", (590,))


@pytest.mark.parametrize("policy", ["ddpg", "bandit"])
def test_a_little_training_is_much_better_than_greed_where_reports_are_old(policy, tmp_path, one_validation):
    recipe = tiny(policy, total_steps=2400)
    training = PolicyTraining(policy, recipe, 0, load_constants(), tmp_path)
    start = utility(training.weights())
    while not training.finished:
        training.advance()
    assert utility(load_weights(tmp_path / run.BEST_FILE)) > start + 0.05


def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, one_validation):
    recipe = tiny("ddpg", total_steps=900, validate_every_steps=300)
    constants = load_constants()
    weights = []
    for name, stops_after in (("whole", None), ("stopped", 300)):
        folder = tmp_path / name
        folder.mkdir()
        training = PolicyTraining("ddpg", recipe, 7, constants, folder)
        while not training.finished:
            training.advance()
            if training.training.steps == stops_after:
                training = PolicyTraining("ddpg", recipe, 7, constants, folder)
                assert training.training.steps == stops_after
        weights.append(training.weights().arrays)
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_training_leaves_weights_and_a_curve_and_nothing_else(tmp_path, one_validation):
    out = tmp_path / "mine.npz"
    notes = train(out, "bandit", tiny("bandit", total_steps=400))
    assert load_weights(out).notes["steps"] == notes["steps"] == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.npz", "mine.png"]
    with pytest.raises(ConfigurationError, match="exists already"):
        train(out, "bandit", tiny("bandit", total_steps=400))


def test_a_training_that_was_begun_otherwise_is_not_mixed_up(tmp_path):
    partial = tmp_path / "mine.npz.partial"
    partial.mkdir()
    (partial / run.SETTINGS_FILE).write_text("{}")
    with pytest.raises(ConfigurationError, match="other options"):
        train(tmp_path / "mine.npz", "ddpg", tiny("ddpg", total_steps=400))


def test_an_unknown_recipe_is_told_with_those_that_exist():
    with pytest.raises(ConfigurationError, match="ddpg-1-step"):
        recipe_of("dqn")


@pytest.mark.parametrize("scenario", ["headline", "collaborative"])
def test_the_guide_and_any_action_lead_through_an_episode(scenario):
    variety = replace(STALE, tasks=50, together=1.0)
    domain = PlacementDomain(load_constants(scenario=scenario), variety, knobs=2, discount=0.0)
    rng = np.random.default_rng(0)
    observation, over, steps = domain.reset(rng), False, 0
    while not over:
        inputs, allowed = observation
        action = domain.guide(rng).reshape(len(inputs), 3)
        assert action[:, 0].sum() == 1
        assert allowed[action[:, 0].argmax()]
        assert np.isfinite(inputs).all()
        reward, observation, terminated, over = domain.step(action.ravel())
        assert -2 < reward < 1
        assert not terminated
        steps += 1
    assert steps == 50


@given(threshold=st.floats(0, 1), scale=st.floats(0, 1))
def test_knobs_are_ones_that_the_guard_lets_through(threshold, scale):
    values = np.array([threshold, scale], np.float32)
    knobs = knobs_of(values, "edge+cloud")
    assert knobs.exit_threshold is not None
    assert 0 <= knobs.exit_threshold <= 1
    assert 0 < knobs.frame_scale <= 1
    assert knobs_of(values, "edge").exit_threshold is None
    assert knobs_of(values, "vehicle").frame_scale == 1


def observe(rows: int = 5):
    domain = PlacementDomain(load_constants(), replace(STALE, edges=(rows - 2,), tasks=5), knobs=0, discount=0.0)
    return domain.reset(np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["gaussian", "ornstein-uhlenbeck", "diffusion"])
def test_noise_has_the_deviation_that_was_asked_for_from_the_start(kind):
    torch.manual_seed(0)
    noise = {
        "gaussian": lambda: GaussianNoise(0.5),
        "ornstein-uhlenbeck": lambda: OrnsteinUhlenbeckNoise(0.5, pull=0.5),
        "diffusion": lambda: DiffusionNoise(SetDenoiser(), 0.5),
    }[kind]()
    rng, observation = np.random.default_rng(0), observe()
    drawn = np.array([noise.sample(observation, 5, rng) for _ in range(600)])
    assert drawn.std() == pytest.approx(0.5, rel=0.15)
    assert abs(drawn.mean()) < 0.05


def test_ornstein_uhlenbeck_noise_follows_itself_within_an_episode():
    noise, rng = OrnsteinUhlenbeckNoise(1.0, pull=0.1), np.random.default_rng(0)
    walk = np.array([noise.sample((), 1, rng)[0] for _ in range(3000)])
    assert np.corrcoef(walk[:-1], walk[1:])[0, 1] == pytest.approx(0.9, abs=0.03)
    noise.reset()
    assert abs(noise.sample((), 1, np.random.default_rng(1))[0] - walk[-1]) > 1e-6


def test_diffusion_comes_to_draw_what_had_the_better_of_it():
    torch.manual_seed(0)
    noise = DiffusionNoise(SetDenoiser(), 1.0, learning_rate=3e-3)
    observation = observe()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    many = tuple(np.repeat(array[None], 64, 0) for array in observation)
    for _ in range(250):
        perturbation = rng.standard_normal((64, 5), np.float32)
        batch = Batch(many, perturbation, perturbation, np.zeros(64, np.float32), np.zeros(64, np.float32), many)
        # The third candidate was underrated: the more it was lifted, the better.
        noise.learn(batch, lambda drawn: drawn.perturbation[:, 2], generator)
    drawn = np.array([noise.sample(observation, 5, rng) for _ in range(400)])
    assert drawn[:, 2].mean() > 0.2
    assert abs(drawn[:, [0, 1, 3, 4]].mean()) < 0.15


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(3, 12), seed=st.integers(0, 1000))
def test_noise_fits_any_number_of_candidates(rows, seed):
    torch.manual_seed(seed)
    sample = DiffusionNoise(SetDenoiser(), 0.5).sample(observe(rows), rows, np.random.default_rng(seed))
    assert sample.shape == (rows,)
    assert sample.dtype == np.float32
    assert np.abs(sample).max() <= 2.5
