"""The whole model in one place: what the cloud does with a task that was sent to it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..decoding import Generation, Limits, Spoke, Steps
from ..partitions import WholeModel


@torch.inference_mode()
def decode(model: WholeModel, prompt: Tensor, limits: Limits) -> Steps[Generation]:
    """Greedy answer from a prompt's embeddings [1, positions, hidden_size] through every layer."""
    generation, session = Generation(), model.session()
    hidden = prompt
    while True:
        said = session.say(hidden)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke()
        hidden = model.encoder.embed(said.token)
