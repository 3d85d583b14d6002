"""Networks over sets of candidates: actor, critic and denoiser for placement.

An observation is (inputs [B, n, len(INPUTS)], allowed [B, n]). An action is [B, n * (1 + knobs)]: for each candidate
its share of the choice (of what is executed, one candidate has 1 and the others 0) and its knobs, each within 0 and 1.
The order of the candidates makes no difference, and n may change from batch to batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..features import FEATURES
from ..node_memory import INPUTS
from ..scorer import SetScorer
from ..weights import Weights
from .ddpg import Actor, Critic, Tensors
from .exploration import Denoiser
from .replay import Observation

_UTILITY = FEATURES.index("utility")
_NEVER = -1e9


class SetNetwork(nn.Module):
    """The network of policy/scorer.py, which says what it computes, in torch.

    outputs: for each candidate; extras: further numbers for each candidate that the head alone sees.
    """

    mean: Tensor
    scale: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, outputs: int, *, extras: int = 0, width: int = 64) -> None:
        super().__init__()
        inputs = len(INPUTS)
        self.body1, self.body2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.head1, self.head2 = nn.Linear(2 * width + extras, width), nn.Linear(width, outputs)
        self._parts = [width, width, extras]
        # It begins by saying nothing, which leaves the score to the expected utility.
        nn.init.zeros_(self.head2.weight)
        nn.init.zeros_(self.head2.bias)
        for name, value in {"mean": 0.0, "scale": 1.0, "lowest": -1e9, "highest": 1e9}.items():
            self.register_buffer(name, torch.full((inputs,), value))

    def set_scaler(self, rows: NDArray[np.float32]) -> None:
        """Scale as these inputs ask for, [m, len(INPUTS)], and clip to what they span."""
        deviation = rows.std(axis=0)
        # What has never differed has told nothing yet, and is passed on as it is.
        for buffer, values in (
            (self.mean, np.where(deviation > 1e-6, rows.mean(axis=0), 0.0)),
            (self.scale, np.where(deviation > 1e-6, np.maximum(deviation, 0.05), 1.0)),
            (self.lowest, rows.min(axis=0)),
            (self.highest, rows.max(axis=0)),
        ):
            buffer.copy_(torch.from_numpy(values))

    def widen(self, lowest: NDArray[np.float32], highest: NDArray[np.float32]) -> None:
        """Take inputs between these, [len(INPUTS)], as they are from now on, besides those that already were."""
        self.lowest.copy_(torch.minimum(self.lowest, torch.from_numpy(lowest)))
        self.highest.copy_(torch.maximum(self.highest, torch.from_numpy(highest)))

    def forward(self, observation: Tensors, extras: Tensor | None = None) -> Tensor:
        """[B, n, outputs]"""
        inputs, allowed = observation
        rows = (torch.minimum(torch.maximum(inputs, self.lowest), self.highest) - self.mean) / self.scale
        hidden = torch.relu(self.body2(torch.relu(self.body1(rows))))
        free = allowed.unsqueeze(-1).float()
        pooled = (hidden * free).sum(1, keepdim=True) / free.sum(1, keepdim=True).clamp(min=1)
        # head1 of [hidden, pooled, extras], with the product for what all candidates share taken once.
        own, shared, further = self.head1.weight.split(self._parts, 1)
        head = nn.functional.linear(hidden, own) + nn.functional.linear(pooled, shared, self.head1.bias)
        if extras is not None:
            head = head + nn.functional.linear(extras, further)
        return self.head2(torch.relu(head))


class SetActor(Actor):
    """Scores for the candidates, and the knobs of each. knobs: how many; none where nothing else is to be decided.

    prior_weight: of the expected utility in the score, so that learning begins from what greed would do.
    relaxed by: the probabilities of a softmax over the scores.
    """

    def __init__(self, knobs: int = 0, *, prior_weight: float = 10.0) -> None:
        super().__init__()
        self.net = SetNetwork(1 + knobs)
        self.knobs, self.prior_weight = knobs, prior_weight

    def forward(self, observation: Tensors) -> Tensor:
        out = self.net(observation)
        scores = out[..., :1] + self.prior_weight * observation[0][..., _UTILITY, None]
        return torch.cat([scores, out[..., 1:]], -1).flatten(1)

    def raw(self, observation: Observation) -> NDArray[np.float32]:
        # One small set at a time is quicker in NumPy, even with the weights taken over anew.
        scores, logits = SetScorer(self.weights("", {})).outputs(*observation)
        return np.concatenate((scores[:, None], logits), 1).ravel()

    def execute(self, raw: Tensor, observation: Tensors) -> Tensor:
        scores, knobs = self._split(raw, observation)
        chosen = nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(raw.dtype)
        return torch.cat([chosen.unsqueeze(-1), knobs], -1).flatten(1)

    def relax(self, raw: Tensor, observation: Tensors, generator: torch.Generator) -> Tensor:
        del generator
        scores, knobs = self._split(raw, observation)
        shares = torch.softmax(scores, 1)
        return torch.cat([shares.unsqueeze(-1), knobs], -1).flatten(1)

    def cost(self, raw: Tensor, observation: Tensors) -> Tensor:
        """Negative entropy of the softmax: what is chosen for sure is never found out to be wrong."""
        scores, _ = self._split(raw, observation)
        logs = torch.log_softmax(scores, 1)
        return (logs.exp() * logs.clamp(min=-20)).sum(1).mean()

    def weights(self, environment: str, notes: dict[str, Any]) -> Weights:
        """As they are served."""
        return export(self.net, self.prior_weight, environment, notes)

    def _split(self, raw: Tensor, observation: Tensors) -> tuple[Tensor, Tensor]:
        rows = raw.unflatten(1, (-1, 1 + self.knobs))
        return rows[..., 0].masked_fill(~observation[1], _NEVER), torch.sigmoid(rows[..., 1:])


class SetCritic(Critic):
    """Q(s, a) = sum over candidates of the share that the action gives it times the value of choosing it.

    Linear in the shares: of a softmax's probabilities it is the expected value, whose gradient is exact.
    """

    def __init__(self, knobs: int = 0) -> None:
        super().__init__()
        self.net = SetNetwork(1, extras=knobs)
        self._knobs = knobs

    def forward(self, observation: Tensors, action: Tensor) -> Tensor:
        rows = action.unflatten(1, (-1, 1 + self._knobs))
        values = self.net(observation, rows[..., 1:]).squeeze(-1) + observation[0][..., _UTILITY]
        return (rows[..., 0] * values).sum(1)


class SetDenoiser(Denoiser):
    """Sees each candidate, its part of the noisy perturbation, and how noisy that is."""

    def __init__(self, knobs: int = 0) -> None:
        super().__init__()
        self.net = SetNetwork(1 + knobs, extras=2 + knobs)
        self._knobs = knobs

    def forward(self, noisy: Tensor, level: Tensor, observation: Tensors) -> Tensor:
        rows = noisy.unflatten(1, (-1, 1 + self._knobs))
        levels = level[:, None, None].expand(*rows.shape[:2], 1)
        return self.net(observation, torch.cat([rows, levels], -1)).flatten(1)


def export(net: SetNetwork, prior_weight: float, environment: str, notes: dict[str, Any]) -> Weights:
    """A network without extras as policy/scorer.py computes it."""
    arrays = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    return Weights(arrays, prior_weight, environment, notes=notes)


def restore(net: SetNetwork, weights: Weights) -> None:
    """Put served weights back into a network, to learn on from them."""
    net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.arrays.items()})
