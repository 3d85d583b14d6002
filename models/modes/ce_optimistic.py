"""CE-CoLLM without waiting: the answers of `ce`, by its rule, in less time.

Where no exit is sure the cloud is asked, as there; but meanwhile the edge goes on from its own guess. Where the cloud
would have said another token, the edge goes back to there. What a sure exit says stands, as in `ce`, once all before
it does.
"""

from __future__ import annotations

from ..decoding import Ask, Generation, Limits, Poll, Spoke, Steps, Wait
from ..speakers import Edge, Inputs, Prompt
from .drafting import DraftedAnswer
from .sharing import BY_DEFAULT, Sharing


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt.

    Where that goes up as an image the cloud is asked for the first token at once, so that it encodes and reads the
    prompt while the edge does.
    """
    answer = DraftedAnswer(edge, prompt, limits, sharing)
    # What the cloud says instead of, or as well as, the edge's guesses: token and confidence by position.
    verdicts: dict[int, tuple[int, float]] = {}
    asks_at_once = sharing.prompt == "image"
    yield from answer.sequence.read_prompt(ask=asks_at_once)
    while True:
        said = answer.draft()
        if not said.sure and not (asks_at_once and answer.length == 1):
            yield Ask(answer.sequence.session.positions, claimed=(said.token,))
        while True:
            stood = len(answer.generation.tokens)
            corrected = yield from _settle(answer, verdicts)
            if answer.is_complete:
                return answer.generation
            yield Spoke(tuple(answer.generation.tokens[stood:]))
            if corrected:
                break
            yield from answer.tell()
            waiting = answer.must_wait
            reply = yield Wait() if waiting else Poll()
            if reply is None:
                if waiting:
                    return (yield from answer.end_alone())
                break
            verdicts[reply.up_to] = reply.tokens[0], reply.confidences[0]
        yield from answer.read_on()


def _settle(answer: DraftedAnswer[Inputs], verdicts: dict[int, tuple[int, float]]) -> Steps[bool]:
    """Let everything stand that can. Whether the cloud has corrected the draft."""
    while answer.pending:
        guess = answer.pending[0]
        if guess.sure:
            answer.trust()
        elif answer.up_to not in verdicts:
            break
        else:
            token, confidence = verdicts.pop(answer.up_to)
            if token != guess.token:
                verdicts.clear()
                yield from answer.correct(token, confidence)
                return True
            answer.confirm(confidence)
    return False
