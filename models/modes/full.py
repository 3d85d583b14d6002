"""The whole model in one place: what the cloud does with a task that was sent to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..exits import most_likely
from ..prompt_encoder import PromptEncoder
from ..stages import Stage
from .generation import Generation


@torch.inference_mode()
def generate(
    encoder: PromptEncoder,
    first: Stage,
    rest: Stage,
    head: nn.Module,
    prompt: Tensor,
    *,
    max_tokens: int,
    end_token: int,
    cancelled: Callable[[], bool],
) -> Generation:
    """Decode greedily from a prompt's embeddings [1, positions, hidden_size] through every layer. Blocking."""
    generation = Generation()
    first_session, rest_session = first.session(), rest.session()
    hidden = prompt
    while len(generation.tokens) < max_tokens:
        if cancelled():
            generation.cancelled = True
            break
        first_session.feed(hidden)
        rest_session.feed(first_session.catch_up())
        # Only the last position is asked for a word; the head over the whole prompt would cost for nothing.
        token, confidence = most_likely(head(rest_session.catch_up()[:, -1]))
        generation.add(token, "full", confidence)
        if token == end_token:
            break
        hidden = encoder.embed(token)
    return generation
