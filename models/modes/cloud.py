"""The edge as a relay: the question goes on to the cloud, which answers it by itself.

Raw pixels leave the edge. It computes nothing, unless the cloud falls silent: then it says the rest.
"""

from __future__ import annotations

from ..decoding import Ask, Generation, Limits, Spoke, Steps, UploadPrompt, Wait
from ..speakers import Edge, Inputs, Prompt
from . import standalone
from .sharing import BY_DEFAULT, Sharing


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt. sharing: of no account; the question goes up as it is."""
    del sharing
    generation = Generation()
    yield UploadPrompt(prompt.positions)
    yield Ask(prompt.positions, generate=limits.max_tokens)
    while True:
        reply = yield Wait()
        if reply is None:
            yield from _end_alone(edge, prompt, generation, limits)
            return generation
        # Pieces may come twice or, where one was lost, too far ahead: only what follows is taken.
        known = prompt.positions + len(generation.tokens) - reply.up_to
        if not 0 <= known < len(reply.tokens) == len(reply.confidences):
            continue
        for token, confidence in zip(reply.tokens[known:], reply.confidences[known:], strict=True):
            generation.add(token, "full", confidence)
            if limits.reached(generation):
                return generation
        yield Spoke(reply.tokens[known:])


def _end_alone(edge: Edge[Inputs], prompt: Prompt[Inputs], generation: Generation, limits: Limits) -> Steps[None]:
    """Read what there is of the answer, and say the rest as the edge alone."""
    session = edge.session(limits.sampling)
    read = session.read(prompt.inputs())
    if not generation.tokens:
        said = session.speak(read, limits.thresholds)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return
        yield Spoke((said.token,))
    else:
        for token in generation.tokens[:-1]:
            session.read(edge.embed(token))
    yield from standalone.go_on(edge, session, generation, limits)
