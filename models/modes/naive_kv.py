"""The fairer naive split: no early exits, but each hidden state goes up once, and the cloud keeps its cache."""

from __future__ import annotations

from ..decoding import Ask, Generation, Limits, Spoke, Steps, Wait
from ..speakers import Edge, Inputs, Prompt
from . import standalone
from .sharing import BY_DEFAULT, SharedSequence, Sharing


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt, each token by the cloud."""
    generation, sequence = Generation(), SharedSequence(edge, prompt, limits, sharing)
    yield from sequence.read_prompt()
    while True:
        yield Ask(sequence.session.positions)
        reply = yield Wait()
        if reply is None:
            yield from standalone.end_alone(sequence, generation, [sequence.speak()], limits)
            return generation
        generation.add(reply.tokens[0], "full", reply.confidences[0])
        if limits.reached(generation):
            return generation
        yield Spoke(reply.tokens)
        yield from sequence.read(reply.tokens[0])
