"""The edge by itself: each token is spoken by the first exit that is sure, or else by the deepest.

CE-CoLLM's standalone edge inference (section III-A, mode 1): the rule of its early exits, with nobody to ask.
"""

from __future__ import annotations

from ..decoding import Generation, Limits, Spoke, Steps
from ..speakers import Edge, EdgeSession, Inputs, Prompt


def decode(edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits) -> Steps[Generation]:
    """The answer to a prompt."""
    generation = Generation()
    yield from go_on(edge, edge.session(limits.sampling), generation, prompt.inputs(), limits)
    return generation


def go_on(
    edge: Edge[Inputs],
    session: EdgeSession[Inputs],
    generation: Generation,
    inputs: Inputs,
    limits: Limits,
    *,
    for_good: bool = True,
) -> Steps[None]:
    """Complete an answer whose next inputs are `inputs`. for_good: what is said stands; else it is only a draft."""
    while True:
        said = session.speak(session.read(inputs), limits.thresholds)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return
        yield Spoke((said.token,) if for_good else ())
        inputs = edge.embed(said.token)
