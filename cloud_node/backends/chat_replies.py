"""What a chat-completions server says: an answer, or a refusal with its reason. Pure, without network.

Servers agree on the form of an answer and on status codes, and on little else: a refusal's reason stands in its words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from ...bus.errors import BackendError

LONGEST_TEXT = 1000
_LONGEST_QUOTE = 200
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_ABOUT_IMAGES = re.compile(r"\b(images?|image_url|vision|multi-?modal)\b", re.IGNORECASE)
_ABOUT_THE_MODEL = re.compile(
    r"\bmodels?\b.*\b(does not exist|not found|unknown|not available|not exist|invalid)\b"
    r"|\b(unknown|invalid|no such) model\b|\bpinned to\b|\bmodel_not_found\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer as the server gave it.

    text: fit for a message (`clean`). prompt_tokens, completion_tokens: as the server counts and bills them, an image's
    included; None where it does not say.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def read_completion(body: bytes, url: str) -> Completion:
    """The answer in the body of a reply with status 200.

    Raises BackendError with reason "not-an-answer" (no JSON, or JSON of another shape) or "empty" (no words in it).
    """
    try:
        reply = msgspec.json.decode(body, type=_Reply)
        choice = reply.choices[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError) as error:
        raise BackendError(
            "not-an-answer",
            f"{url} answers, but not as a chat-completions server does ({error}): check the URL",
        ) from None
    text = clean(choice.message.content or "")
    if not text:
        told = f" and stopped for {choice.finish_reason!r}" if choice.finish_reason else ""
        raise BackendError(
            "empty",
            f"the model at {url} said nothing{told}: if it thinks before it speaks, raise max_tokens or turn that off",
        )
    usage = reply.usage
    if usage is None:
        return Completion(text, None, None)
    return Completion(text, max(0, usage.prompt_tokens), max(0, usage.completion_tokens))


def clean(text: str) -> str:
    """Words fit for a message and a screen: one line, no control characters, no thoughts, and not too long."""
    spoken = _THOUGHTS.sub(" ", text)
    visible = "".join(" " if unicodedata.category(each).startswith("C") else each for each in spoken)
    line = " ".join(visible.split())
    if len(line) <= LONGEST_TEXT:
        return line
    return line[:LONGEST_TEXT].rsplit(" ", 1)[0]


def refusal(status: int, body: bytes, *, url: str, model: str, with_key: bool) -> BackendError:
    """What a reply with any other status than 200 means, and what there is to do about it.

    url: without password. Its reason is "unauthorised", "unknown-model", "no-images", "wrong-url", "overloaded",
    "server-error" or "refused".
    """
    said = _quote(body)
    if status in (401, 403):
        todo = (
            "correct the key in the variable that api_key_env names" if with_key else "name its variable: api_key_env"
        )
        return BackendError("unauthorised", f"{url} wants another API key (status {status}): {todo}")
    if status == 429:
        return BackendError("overloaded", f"{url} refuses more requests for now: {said}")
    # Before the rest, for servers say this with any status.
    if _ABOUT_IMAGES.search(said):
        return BackendError("no-images", f"the model {model} at {url} takes no pictures ({said}): serve one that does")
    if status in (400, 404, 422) and _ABOUT_THE_MODEL.search(said):
        return BackendError(
            "unknown-model", f"{url} does not serve a model {model!r} ({said}): name one that it serves"
        )
    if 300 <= status < 400 or status in (404, 405):
        return BackendError(
            "wrong-url",
            f"there is no chat-completions server at {url} (status {status}): its address mostly ends in /v1",
        )
    if status >= 500:
        return BackendError("server-error", f"{url} failed (status {status}): {said}")
    return BackendError("refused", f"{url} refuses the request (status {status}): {said}")


def _quote(body: bytes) -> str:
    """The beginning of what a server said, fit for a line of a log."""
    return clean(body[: 4 * _LONGEST_QUOTE].decode(errors="replace"))[:_LONGEST_QUOTE] or "it gives no reason"
