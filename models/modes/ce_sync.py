"""CE-CoLLM with synchronous uploads: what the cloud needs goes up when it is asked, and not before (section III-B).

The words are those of `ce`. Positions that the cloud is never asked about stay at the edge, and each question waits
until all that is missing has gone up.
"""

from __future__ import annotations

from ..decoding import Ask, CloudReply, Generation, Limits, Steps, Upload, UploadPrompt, UploadTokens
from ..speakers import Edge, Inputs, Prompt
from . import ce
from .sharing import BY_DEFAULT, Sharing, joined


def decode(
    edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing = BY_DEFAULT
) -> Steps[Generation]:
    """The answer to a prompt; see `ce.decode`."""
    steps = ce.decode(edge, prompt, limits, sharing)
    held: list[Upload | UploadTokens | UploadPrompt] = []
    reply: CloudReply | None = None
    while True:
        try:
            event = steps.send(reply)
        except StopIteration as end:
            return end.value
        reply = None
        match event:
            case Upload() | UploadTokens() | UploadPrompt():
                held.append(event)
            case Ask():
                yield from _in_one(held)
                held.clear()
                reply = yield event
            case _:
                reply = yield event


def _in_one(held: list[Upload | UploadTokens | UploadPrompt]) -> Steps[None]:
    """As few uploads as can be: a prompt that the cloud encodes, and then all tokens that follow it."""
    prompts = [event for event in held if isinstance(event, UploadPrompt)]
    hidden = [event for event in held if isinstance(event, Upload)]
    tokens = [event for event in held if isinstance(event, UploadTokens)]
    yield from prompts
    if hidden:
        yield joined(hidden)
    if tokens:
        yield UploadTokens(tokens[0].position, tuple(token for event in tokens for token in event.tokens))
