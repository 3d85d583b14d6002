"""The whole model in one place: what the cloud does with a task that was sent to it."""

from __future__ import annotations

from ..decoding import Generation, Limits, Spoke, Steps
from ..speakers import Inputs, Prompt, Whole


def decode(model: Whole[Inputs], prompt: Prompt[Inputs], limits: Limits) -> Steps[Generation]:
    """The answer to a prompt through every layer."""
    generation, session = Generation(), model.session(limits.sampling)
    inputs = prompt.inputs()
    while True:
        said = session.say(inputs)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke((said.token,))
        inputs = model.embed(said.token)
