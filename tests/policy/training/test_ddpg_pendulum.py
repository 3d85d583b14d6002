"""Our DDPG beside another implementation, on a task that neither of them was made for.

`make test-oracle` installs the other one and runs this; about eight minutes.
"""

import numpy as np
import pytest
import torch
from roadside.policy.training.box_control import BoxActor, BoxCritic, BoxDenoiser, BoxDomain
from roadside.policy.training.ddpg import Ddpg, DdpgOptions, Training
from roadside.policy.training.exploration import DiffusionNoise, GaussianNoise

gymnasium = pytest.importorskip("gymnasium")

STEPS = 10_000
SEEDS = (0, 1, 2)
TEST_EPISODES = 50


def mean_return(act) -> float:
    environment = gymnasium.make("Pendulum-v1")
    returns = []
    for seed in range(10_000, 10_000 + TEST_EPISODES):
        observation, _ = environment.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = environment.step(act(observation))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def train_ours(seed: int, *, diffusion: bool = False) -> float:
    torch.manual_seed(seed)
    domain = BoxDomain("Pendulum-v1")
    sizes = domain.observation_size, domain.action_size
    agent = Ddpg(BoxActor(*sizes), BoxCritic(*sizes), DdpgOptions())
    noise = DiffusionNoise(BoxDenoiser(*sizes), 0.1) if diffusion else GaussianNoise(0.1)
    training = Training(agent, domain, noise, total_steps=STEPS, seed=seed)
    while not training.finished:
        training.play_episode()
    return mean_return(lambda observation: 2 * agent.act((np.asarray(observation, np.float32),)))


def train_oracle(seed: int) -> float:
    from stable_baselines3 import DDPG  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.noise import NormalActionNoise  # pyright: ignore[reportMissingImports]

    model = DDPG(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        gamma=0.98,
        tau=0.005,
        buffer_size=200_000,
        learning_starts=1_000,
        batch_size=256,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
    )
    model.learn(STEPS)
    return mean_return(lambda observation: model.predict(observation, deterministic=True)[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pendulum_is_swung_up_as_well_as_by_stable_baselines3():
    pytest.importorskip("stable_baselines3", reason="make test-oracle installs it")
    ours = [train_ours(seed) for seed in SEEDS]
    theirs = [train_oracle(seed) for seed in SEEDS]
    print(f"Pendulum-v1, mean return of {TEST_EPISODES} episodes: ours {ours}, stable-baselines3 {theirs}")
    assert np.mean(ours) >= -200
    assert abs(np.mean(ours) - np.mean(theirs)) <= 15


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pendulum_is_swung_up_with_diffusion_generated_noise_too():
    assert train_ours(0, diffusion=True) >= -200
