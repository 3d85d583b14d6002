"""Edge and cloud together, as CE-CoLLM does it (section III, Algorithm 1).

Every position's hidden state at the first exit goes up once, and nobody waits for it. A token is spoken by the first
exit that is sure; where neither is, the cloud is asked for this one token. With thresholds above 1 no exit is ever
sure, and the answer is the unsplit model's, token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..decoding import Ask, Drafted, Generation, Limits, Spoke, Steps, Upload, Wait
from ..partitions import EdgePartition, EdgeSession, Said
from ..precision import to_float16
from . import standalone


@torch.inference_mode()
def decode(edge: EdgePartition, prompt: Tensor, limits: Limits, *, draft: bool = True) -> Steps[Generation]:
    """Greedy answer from a prompt's embeddings [1, positions, hidden_size].

    draft: while the cloud is asked for the first time, the edge, which would idle, completes the answer as it would
        alone; the driver may be shown that meanwhile. Once the cloud is silent, the edge says the rest by itself.
    """
    generation, session = Generation(), edge.session()
    hidden, alone = prompt, False
    while True:
        position = session.positions
        after_first = session.read(hidden)
        if not alone:
            yield Upload(position, to_float16(after_first[0]))
        said = session.speak(after_first, limits.thresholds)
        if not said.sure and not alone:
            yield Ask(session.positions)
            if draft:
                yield from _draft(edge, session, generation, said, limits)
                draft = False
            reply = yield Wait()
            if reply is None:
                alone = True
            else:
                said = Said(reply.token, "full", reply.confidence, True)
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke()
        hidden = edge.encoder.embed(said.token)


def _draft(
    edge: EdgePartition, session: EdgeSession, said_so_far: Generation, guess: Said, limits: Limits
) -> Steps[None]:
    """Complete the answer from the edge's own guess, tell it, and leave the session as it was."""
    generation, positions = said_so_far.copy(), session.positions
    generation.add(guess.token, guess.speaker, guess.confidence)
    if not limits.reached(generation):
        yield Spoke()
        yield from standalone.go_on(edge, session, generation, edge.encoder.embed(guess.token), limits)
        session.roll_back(positions)
    yield Drafted(tuple(generation.tokens), tuple(generation.made_by), generation.mean_confidence)
