"""From logits to a token: the most likely one, or one that is sampled with the noise which all tiers share."""

from __future__ import annotations

import torch
from torch import Tensor

from .exits import most_likely
from .sampling import Sampling


def choose(logits: Tensor, sampling: Sampling | None, position: int) -> tuple[int, float]:
    """The token after the first `position` positions from its logits [1, vocabulary], and its softmax probability."""
    if sampling is None:
        return most_likely(logits)
    token = sampling.pick(logits[0].float().numpy(), position)
    return token, float(torch.softmax(logits[0].float(), dim=-1)[token])
