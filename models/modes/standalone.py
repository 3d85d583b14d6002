"""The edge by itself: each token is spoken by the first exit that is sure, or else by the deepest.

CE-CoLLM's standalone edge inference (section III-A, mode 1): the rule of its early exits, with nobody to ask.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..decoding import Generation, Limits, Spoke, Steps
from ..speakers import Edge, EdgeSession, Inputs, Prompt, Said
from .sharing import BY_DEFAULT, SharedSequence, Sharing


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt. sharing: of no account; nothing is shared."""
    del sharing
    generation, session = Generation(), edge.session(limits.sampling)
    said = session.speak(session.read(prompt.inputs()), limits.thresholds)
    generation.add(said.token, said.speaker, said.confidence)
    if not limits.reached(generation):
        yield Spoke((said.token,))
        yield from go_on(edge, session, generation, limits)
    return generation


def go_on(
    edge: Edge[Inputs], session: EdgeSession[Inputs], generation: Generation, limits: Limits, *, for_good: bool = True
) -> Steps[None]:
    """Complete an answer whose last token was not read yet. for_good: what is said stands; else it is only a draft."""
    while True:
        read = session.read(edge.embed(generation.tokens[-1]))
        said = session.speak(read, limits.thresholds)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return
        yield Spoke((said.token,) if for_good else ())


def end_alone(
    sequence: SharedSequence[Inputs], generation: Generation, drafted: Sequence[Said], limits: Limits
) -> Steps[None]:
    """Complete an answer whose cloud has fallen silent: what was drafted stands, and the edge says the rest.

    drafted: what follows the generation; the sequence has read all of it but the last token.
    """
    for said in drafted:
        generation.add(said.token, said.speaker, said.confidence)
    if not limits.reached(generation):
        yield Spoke(tuple(said.token for said in drafted))
        yield from go_on(sequence.edge, sequence.session, generation, limits)
