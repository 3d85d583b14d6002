"""The edge by itself: each token is spoken by the first exit that is sure, or else by the deepest.

CE-CoLLM's standalone edge inference (section III-A, mode 1): the rule of its early exits, with nobody to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..exits import Exits
from ..prompt_encoder import PromptEncoder
from ..stages import Stage
from .generation import Generation


@torch.inference_mode()
def generate(
    encoder: PromptEncoder,
    first: Stage,
    second: Stage,
    exits: Exits,
    prompt: Tensor,
    *,
    thresholds: Sequence[float],
    max_tokens: int,
    end_token: int,
    cancelled: Callable[[], bool],
) -> Generation:
    """Decode greedily from a prompt's embeddings [1, positions, hidden_size]. Blocking.

    A token that exit 1 speaks costs the first stage only; its position waits before the second stage until a later
    token needs it there.
    """
    generation = Generation()
    first_session, second_session = first.session(), second.session()
    hidden = prompt
    while len(generation.tokens) < max_tokens:
        if cancelled():
            generation.cancelled = True
            break
        first_session.feed(hidden)
        after_first = first_session.catch_up()
        second_session.feed(after_first)
        token, confidence = exits.predict(0, after_first)
        speaker = "exit1"
        if confidence < thresholds[0]:
            token, confidence = exits.predict(1, second_session.catch_up())
            speaker = "exit2"
        generation.add(token, speaker, confidence)
        if token == end_token:
            break
        hidden = encoder.embed(token)
    return generation
