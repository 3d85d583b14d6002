"""The naive split of CE-CoLLM's comparison: no early exits, and a cloud that remembers nothing between two tokens.

For every token the hidden states of the whole context so far go up again, in float32 (section IV; the precision is
that of the session, see `registry`).
"""

from __future__ import annotations

from ..decoding import Ask, Generation, Limits, RollBack, Spoke, Steps, Upload, Wait
from ..speakers import Edge, Inputs, Prompt
from . import standalone
from .sharing import BY_DEFAULT, SharedSequence, Sharing, joined


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt. sharing: of no account; hidden states go up."""
    del sharing
    generation, sequence = Generation(), SharedSequence(edge, prompt, limits, BY_DEFAULT)
    uploads: list[Upload] = [sequence.read_prompt_hidden()]
    while True:
        yield joined(uploads)
        yield Ask(sequence.session.positions)
        reply = yield Wait()
        if reply is None:
            yield from standalone.end_alone(sequence, generation, [sequence.speak()], limits)
            return generation
        generation.add(reply.tokens[0], "full", reply.confidences[0])
        if limits.reached(generation):
            return generation
        yield Spoke(reply.tokens)
        uploads.append(sequence.read_hidden(reply.tokens[0]))
        yield RollBack(0)
