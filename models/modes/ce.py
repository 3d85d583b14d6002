"""Edge and cloud together, as CE-CoLLM does it (section III, Algorithm 1).

Every position's hidden state at the first exit goes up once, and nobody waits for it. A token is spoken by the first
exit that is sure; where neither is, the cloud is asked for this one token. With thresholds above 1 no exit is ever
sure, and the answer is the unsplit model's, token by token.
"""

from __future__ import annotations

from ..decoding import Ask, Drafted, Generation, Limits, Spoke, Steps, Wait
from ..speakers import Edge, Inputs, Prompt, Said
from . import standalone
from .sharing import BY_DEFAULT, SharedSequence, Sharing


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt.

    Where it is to tell its draft, the edge, which would idle while the cloud is asked for the first time, completes
    the answer as it would alone. Once the cloud is silent, the edge says the rest by itself.
    """
    generation, sequence = Generation(), SharedSequence(edge, prompt, limits, sharing)
    draft = sharing.draft
    yield from sequence.read_prompt()
    while True:
        said = sequence.speak()
        if not said.sure:
            # The edge's guess is claimed only to learn how often it is right; the reply is the same without.
            yield Ask(sequence.session.positions, claimed=(said.token,))
            if draft:
                yield from _draft(sequence, generation, said, limits)
                draft = False
            reply = yield Wait()
            if reply is None:
                yield from standalone.end_alone(sequence, generation, [said], limits)
                return generation
            said = Said(reply.tokens[0], "full", reply.confidences[0], True)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke((said.token,))
        yield from sequence.read(said.token)


def _draft(sequence: SharedSequence[Inputs], said_so_far: Generation, guess: Said, limits: Limits) -> Steps[None]:
    """Complete the answer from the edge's own guess, tell it, and leave the session as it was."""
    generation, positions = said_so_far.copy(), sequence.session.positions
    generation.add(guess.token, guess.speaker, guess.confidence)
    if not limits.reached(generation):
        yield Spoke()
        yield from standalone.go_on(sequence.edge, sequence.session, generation, limits, for_good=False)
        sequence.session.roll_back(positions)
    yield Drafted(tuple(generation.tokens), tuple(generation.made_by), generation.mean_confidence)
