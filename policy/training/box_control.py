"""DDPG on any Gymnasium environment of vectors: what the algorithm is tested on, against another implementation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .ddpg import Actor, Critic, Tensors
from .exploration import Denoiser
from .replay import Observation


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class BoxActor(Actor):
    """Actions within [-1, 1]."""

    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        self._net = mlp(observation_size, hidden, action_size)

    def forward(self, observation: Tensors) -> Tensor:
        return torch.tanh(self._net(observation[0]))

    def execute(self, raw: Tensor, observation: Tensors) -> Tensor:
        return raw.clamp(-1, 1)

    def relax(self, raw: Tensor, observation: Tensors, generator: torch.Generator) -> Tensor:
        return raw


class BoxCritic(Critic):
    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        self._net = mlp(observation_size + action_size, hidden, 1)

    def forward(self, observation: Tensors, action: Tensor) -> Tensor:
        return self._net(torch.cat([observation[0], action], dim=1)).squeeze(1)


class BoxDenoiser(Denoiser):
    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        self._net = mlp(observation_size + action_size + 1, hidden, action_size)
        # It begins by correcting nothing.
        nn.init.zeros_(self._net[-1].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self._net[-1].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, noisy: Tensor, level: Tensor, observation: Tensors) -> Tensor:
        return self._net(torch.cat([observation[0], noisy, level[:, None]], dim=1))


class BoxDomain:
    """A Gymnasium environment whose observations are vectors and whose actions are stretched to its limits."""

    def __init__(self, name: str) -> None:
        self._environment: gymnasium.Env[Any, Any] = gymnasium.make(name)
        space = self._environment.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._centre = (space.high + space.low) / 2
        self._reach = (space.high - space.low) / 2
        shape = self._environment.observation_space.shape
        assert shape is not None
        self.observation_size, self.action_size = shape[0], len(self._centre)

    def reset(self, rng: np.random.Generator) -> Observation:
        observation, _ = self._environment.reset(seed=int(rng.integers(2**31)))
        return (np.asarray(observation, np.float32),)

    def guide(self, rng: np.random.Generator) -> NDArray[np.float32]:
        return rng.uniform(-1, 1, self.action_size).astype(np.float32)

    def step(self, action: NDArray[np.float32]) -> tuple[float, Observation, bool, bool]:
        stretched = self._centre + self._reach * action
        observation, reward, terminated, truncated, _ = self._environment.step(stretched)
        return float(reward), (np.asarray(observation, np.float32),), terminated, truncated
