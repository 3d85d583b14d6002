"""Drafting through: the whole model's answer, token by token, at little more than the edge's own pace.

The edge drafts with its early exits and does not stop for the cloud. The cloud gets every position anyway, so it
verifies all that has arrived in one batch. Where it would have said another token, the edge goes back to there, and the
cloud's token stands. Whatever the exits' thresholds, no token is said that the whole model would not have said
(speculative decoding, Leviathan et al., 2023, with exits as the draft model and greedy or shared-noise sampling).
"""

from __future__ import annotations

from ..decoding import Ask, CloudReply, Generation, Limits, Poll, Spoke, Steps, Wait
from ..speakers import Edge, Inputs, Prompt
from .drafting import DraftedAnswer
from .sharing import BY_DEFAULT, Sharing


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt. Tokens of a cloud, or verified by it, are made by "full"; after it fell silent, by exits.

    The cloud is asked for the first token, before the edge has said it, so that both read the prompt at the same time.
    Then it is asked about each token of which no exit is sure, and when the edge cannot go on; each time about all that
    it has not confirmed yet, so that a lost question costs nothing.
    """
    answer = DraftedAnswer(edge, prompt, limits, sharing)
    # By how many positions were asked about: how many tokens stood then.
    asked: dict[int, int] = {prompt.positions: 0}
    yield from answer.sequence.read_prompt(ask=True)
    while True:
        said = answer.draft()
        up_to = answer.sequence.session.positions
        if up_to not in asked and (not said.sure or answer.must_wait):
            asked[up_to] = len(answer.generation.tokens)
            yield Ask(up_to, claimed=answer.claims)
        yield Spoke()
        while True:
            yield from answer.tell()
            waiting = answer.must_wait
            reply = yield Wait() if waiting else Poll()
            if reply is None:
                if waiting:
                    return (yield from answer.end_alone())
                break
            if reply.up_to not in asked:
                continue
            stood = len(answer.generation.tokens)
            corrected = yield from _take(answer, reply, asked.pop(reply.up_to))
            if answer.is_complete:
                return answer.generation
            if corrected:
                asked.clear()
            yield Spoke(tuple(answer.generation.tokens[stood:]))
        yield from answer.read_on()


def _take(answer: DraftedAnswer[Inputs], reply: CloudReply, first: int) -> Steps[bool]:
    """Whether the cloud has corrected the draft. first: which of the answer's tokens the reply begins with."""
    known = len(answer.generation.tokens) - first
    for token, confidence in list(zip(reply.tokens, reply.confidences, strict=False))[known:]:
        if not answer.pending:
            break  # more than was asked about
        if token != answer.pending[0].token:
            yield from answer.correct(token, confidence)
            return True
        answer.confirm(confidence)
    return False
