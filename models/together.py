"""Edge and cloud in one process: drives a collaborative decoding against the other half of the same model.

It is for evaluation, benches and tests. The context goes over in float16, as on the wire, and every question is
answered at once: what it says of an answer and of what went up holds for a fleet too, what it takes in time does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from .decoding import Ask, CloudReply, Steps, Upload, Wait
from .exits import most_likely
from .partitions import WholeModel
from .precision import to_float16, to_float32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Together(Generic[T]):
    """What came of it. positions: whose hidden states went up; bytes_up: of those, without any framing."""

    result: T
    cloud_requests: int
    positions: int
    bytes_up: int


@torch.inference_mode()
def decode_together(steps: Steps[T], whole: WholeModel) -> Together[T]:
    """Drive a mode's steps to their end, the cloud's part computed here by `whole`. Blocking."""
    cloud = whole.rest.session()
    reply: CloudReply | None = None
    cloud_requests = positions = bytes_up = 0
    while True:
        try:
            event = steps.send(reply)
        except StopIteration as end:
            return Together(end.value, cloud_requests, positions, bytes_up)
        reply = None
        match event:
            case Upload():
                positions += len(event.hidden)
                hidden = to_float16(torch.from_numpy(event.hidden))
                bytes_up += hidden.nbytes
                cloud.feed(to_float32(hidden)[None])
            case Ask():
                cloud_requests += 1
            case Wait():
                token, confidence = most_likely(whole.head(cloud.catch_up()[:, -1]))
                reply = CloudReply(cloud.positions_run, (token,), 0, (confidence,))
            case _:
                # A token, or a draft for the driver: nothing that a cloud hears of.
                pass
