"""The edge by itself: each token is spoken by the first exit that is sure, or else by the deepest.

CE-CoLLM's standalone edge inference (section III-A, mode 1): the rule of its early exits, with nobody to ask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..decoding import Generation, Limits, Spoke, Steps
from ..partitions import EdgePartition, EdgeSession


def decode(edge: EdgePartition, prompt: Tensor, limits: Limits) -> Steps[Generation]:
    """Greedy answer from a prompt's embeddings [1, positions, hidden_size]."""
    generation = Generation()
    yield from go_on(edge, edge.session(), generation, prompt, limits)
    return generation


@torch.inference_mode()
def go_on(
    edge: EdgePartition, session: EdgeSession, generation: Generation, hidden: Tensor, limits: Limits
) -> Steps[None]:
    """Complete an answer whose next inputs are `hidden`."""
    while True:
        said = session.speak(session.read(hidden), limits.thresholds)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return
        yield Spoke()
        hidden = edge.encoder.embed(said.token)
