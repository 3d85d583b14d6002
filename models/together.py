"""Edge and cloud in one process: drives a collaborative decoding against the other half of the same model.

What this says of an answer and of what went up holds for a fleet too, what it takes in time does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .decoding import Ask, CloudReply, Poll, RollBack, Steps, Upload, UploadPrompt, UploadTokens, Wait
from .local_cloud import LocalCloud

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Together(Generic[T]):
    """What came of it. positions: whose hidden states went up; bytes_up: of those, without any framing."""

    result: T
    cloud_requests: int
    positions: int
    bytes_up: int


def decode_together(
    steps: Steps[T], cloud: LocalCloud, *, answers_when_polled: Callable[[], bool] = lambda: False
) -> Together[T]:
    """Drive a mode's steps to their end. Blocking.

    A question is answered when the edge waits for it. answers_when_polled: whether the oldest one is answered as well
        where the edge only looks; else a mode that drafts ahead does so as far as it can.
    """
    open_questions: list[Ask] = []
    reply: CloudReply | None = None
    cloud_requests = 0
    while True:
        try:
            event = steps.send(reply)
        except StopIteration as end:
            return Together(end.value, cloud_requests, cloud.positions_up, cloud.bytes_up)
        reply = None
        match event:
            case Upload() | UploadTokens() | UploadPrompt():
                cloud.take(event)
            case RollBack():
                cloud.take(event)
                open_questions.clear()
            case Ask():
                cloud_requests += 1
                open_questions.append(event)
            case Wait():
                reply = cloud.answer(open_questions.pop(0))
            case Poll() if open_questions and answers_when_polled():
                reply = cloud.answer(open_questions.pop(0))
            case _:
                # A token, or a draft for the driver: nothing that a cloud hears of.
                pass
