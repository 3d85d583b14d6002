"""The whole model in one place: what the cloud does with a task that was sent to it."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch

from ..decoding import Generation, Limits, Spoke, Steps
from ..partitions import Said

Reads = TypeVar("Reads")


class Session(Protocol[Reads]):
    """One sequence."""

    def say(self, inputs: Reads, /) -> Said: ...


class Whole(Protocol[Reads]):
    """A model with every layer. It reads embeddings, or the inputs that its processor makes."""

    def session(self) -> Session[Reads]: ...

    def embed(self, token: int, /) -> Reads: ...


@torch.inference_mode()
def decode(model: Whole[Reads], prompt: Reads, limits: Limits) -> Steps[Generation]:
    """Greedy answer to a prompt through every layer."""
    generation, session = Generation(), model.session()
    inputs = prompt
    while True:
        said = session.say(inputs)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke()
        inputs = model.embed(said.token)
