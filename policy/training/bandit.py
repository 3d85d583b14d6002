"""The neural bandit: DDPG's rival of the same strength, which looks at the reward of one task and no further.

The network of set_networks.py learns what choosing each candidate brings, from the candidate that was chosen:

    minimise (r_hat(s, a) - r)^2,   r_hat = expected utility + correction;   act: argmax of r_hat

It is DDPG's critic at a discount of 0, with the best candidate by that critic in place of an actor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .ddpg import DdpgOptions, as_tensors, batch_of_one
from .replay import Batch, Observation
from .set_networks import SetActor


class Bandit:
    """An agent for `ddpg.Training`: the options' discount must be 0 and its returns of one step."""

    def __init__(self, model: SetActor, options: DdpgOptions) -> None:
        """model: scores in units of utility, so its prior weight is 1: a score is what the candidate should bring."""
        if options.discount or options.steps != 1:
            raise ValueError("a bandit looks one step ahead: discount 0, steps 1")
        self.options = options
        self.model = model
        self._optimiser = torch.optim.Adam(self.model.parameters(), options.critic_learning_rate)

    def raw(self, observation: Observation) -> NDArray[np.float32]:
        return self.model.raw(observation)

    @torch.no_grad()
    def execute(self, raw: NDArray[np.float32], observation: Observation) -> NDArray[np.float32]:
        return self.model.execute(torch.from_numpy(raw)[None], batch_of_one(observation))[0].numpy()

    def update(self, batch: Batch, generator: torch.Generator) -> tuple[float, float]:
        """One step; the loss, and the mean of what the best candidate is expected to bring."""
        del generator
        observation = as_tensors(batch.observation)
        expected = self.model(observation)
        chosen = (expected * torch.from_numpy(batch.action)).sum(1)
        loss = nn.functional.mse_loss(chosen, torch.from_numpy(batch.returns))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        best = expected.detach().masked_fill(~observation[1], -np.inf).amax(1)
        return loss.item(), best.mean().item()

    def advantage(self, batch: Batch) -> NDArray[np.float32]:
        raise NotImplementedError("a bandit explores with noise that needs no advantage")

    def set_rate(self, share: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = share * self.options.critic_learning_rate

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
