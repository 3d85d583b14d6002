"""Edge and cloud together, as CE-CoLLM does it (section III, Algorithm 1).

Every position's hidden state at the first exit goes up once, and nobody waits for it. A token is spoken by the first
exit that is sure; where neither is, the cloud is asked for this one token. With thresholds above 1 no exit is ever
sure, and the answer is the unsplit model's, token by token.
"""

from __future__ import annotations

from ..decoding import Ask, Drafted, Generation, Limits, Spoke, Steps, Upload, Wait
from ..speakers import Edge, EdgeSession, Inputs, Prompt, Said
from . import standalone


def decode(edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, *, draft: bool = True) -> Steps[Generation]:
    """The answer to a prompt.

    draft: while the cloud is asked for the first time, the edge, which would idle, completes the answer as it would
        alone; the driver may be shown that meanwhile. Once the cloud is silent, the edge says the rest by itself.
    """
    generation, session = Generation(), edge.session(limits.sampling)
    inputs, alone = prompt.inputs(), False
    while True:
        position = session.positions
        read = session.read(inputs)
        if not alone:
            yield Upload(position, read.hidden, read.position_ids)
        said = session.speak(read, limits.thresholds)
        if not said.sure and not alone:
            yield Ask(session.positions)
            if draft:
                yield from _draft(edge, session, generation, said, limits)
                draft = False
            reply = yield Wait()
            if reply is None:
                alone = True
            else:
                said = Said(reply.tokens[0], "full", reply.confidences[0], True)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke((said.token,))
        inputs = edge.embed(said.token)


def _draft(
    edge: Edge[Inputs], session: EdgeSession[Inputs], said_so_far: Generation, guess: Said, limits: Limits
) -> Steps[None]:
    """Complete the answer from the edge's own guess, tell it, and leave the session as it was."""
    generation, positions = said_so_far.copy(), session.positions
    generation.add(guess.token, guess.speaker, guess.confidence)
    if not limits.reached(generation):
        yield Spoke()
        yield from standalone.go_on(edge, session, generation, edge.embed(guess.token), limits, for_good=False)
        session.roll_back(positions)
    yield Drafted(tuple(generation.tokens), tuple(generation.made_by), generation.mean_confidence)
