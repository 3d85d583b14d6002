"""One answer's session with a cloud, over the bus: uploads that nobody waits for, and questions with a time limit.

The decoding runs on the inference thread; everything here runs on the event loop, which the two entry points for that
thread hop onto. What was uploaded is kept until the session is closed, so that it can be sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..bus import topics
from ..bus.errors import OutboxFull
from ..bus.messages import CloseContext, ContextChunk, ContextUse, InferRequest, Message, Nack, TokenReply
from ..bus.tensors import pack
from ..models.decoding import Ask, CloudReply, ToCloud, Upload
from ..models.precision import to_float16

_BYTES_OF_FLOAT16 = 2


@dataclass(frozen=True, slots=True)
class CloudTerms:
    """What both sides must have in common: the model, and where it is cut."""

    model_hash: str
    first_exit_layer: int
    hidden_size: int


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """timeout_ms: how long one reply may take; chunk_bytes: the largest payload of one message.

    A request is sent once more after half of the time, in case it was lost.
    """

    timeout_ms: float = 400.0
    chunk_bytes: int = 120_000


class BusCloudSession:
    """See `CloudSession` in models/companions.py.

    post: sends to the cloud and says how many bytes that took. renamed: asks for a new name after the cloud has
    forgotten this session; closed: is told at the end.
    """

    def __init__(
        self,
        *,
        cloud: str,
        name: str,
        renamed: Callable[[BusCloudSession], str | None],
        closed: Callable[[BusCloudSession], None],
        post: Callable[[topics.Topic, Message], int],
        terms: CloudTerms,
        settings: SessionSettings,
        deadline_s: float,
        counters: Counter[str],
    ) -> None:
        self.name = name
        self.energy_j = 0.0
        self.timed_out = False
        self.lease_is_void = False
        self._cloud = cloud
        self._renamed = renamed
        self._tell_closed = closed
        self._send = post
        self._hidden_size = terms.hidden_size
        self._settings = settings
        self._deadline_s = deadline_s
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._uploaded: list[NDArray[np.float16]] = []
        self._positions = 0
        self._bytes_up = 0
        self._requests = 0
        self._resent_positions = 0
        self._was_renamed = False
        self._asked: _Question | None = None
        self._gone = False
        self._closed = False

    # For the inference thread

    def send(self, event: ToCloud) -> None:
        match event:
            case Upload():
                self._loop.call_soon_threadsafe(self._upload, event)
            case Ask():
                self._loop.call_soon_threadsafe(self._ask, event)
            case _:
                raise NotImplementedError(f"{type(event).__name__} does not go over the bus yet")

    def poll(self) -> CloudReply | None:
        return None

    # For the event loop

    async def reply(self) -> CloudReply | None:
        """None after the time limit, after the cloud has died, and where it cannot answer."""
        # The question was handed to the loop before this was: it is there by now.
        assert self._asked is not None, "a reply is awaited after a question"
        return await self._asked.answer

    def close(self) -> ContextUse:
        self._closed = True
        if self._asked is not None:
            self._asked.settle(None)
        if not self._gone:
            self._post(topics.CONTEXT, CloseContext(session=self.name))
        self._tell_closed(self)
        return ContextUse(
            cloud=self._cloud,
            positions=self._positions,
            hidden_size=self._hidden_size,
            payload_bytes_up=self._positions * self._hidden_size * _BYTES_OF_FLOAT16,
            bytes_up=self._bytes_up,
            cloud_requests=self._requests,
            resent_positions=self._resent_positions,
            ended_alone=self._gone,
        )

    def cloud_is_gone(self) -> None:
        """Nothing more will come of this session; whoever waits hears it at once."""
        self._gone = True
        if self._asked is not None:
            self._asked.settle(None)

    def take_reply(self, reply: TokenReply) -> float | None:
        """The round trip without the cloud's own time, in milliseconds; None for a reply that nobody waits for."""
        question = self._asked
        if question is None or question.is_settled or reply.up_to != question.up_to or reply.rollback:
            self._counters["late_replies"] += 1
            return None
        self.energy_j += reply.energy_j
        question.settle(CloudReply(reply.up_to, reply.tokens, reply.n_accepted, reply.confidences))
        took_ms = (time.monotonic() - question.asked_s) * 1000
        return max(0.0, took_ms - reply.queue_ms - reply.compute_ms)

    def take_nack(self, nack: Nack) -> None:
        """Send again what is missing, all of it where the session was forgotten, and give up on anything else."""
        self._counters[f"nack.{nack.reason}"] += 1
        if self._asked is None or self._asked.is_settled:
            return
        if nack.reason == "missing":
            self._send_again(nack.first, min(nack.end, self._positions))
        elif nack.reason == "unknown-session" and not self._was_renamed and self._rename():
            self._send_again(0, self._positions)
        else:
            # Forgotten again under a new name, the fault is not the session's: the cloud no longer knows the lease.
            self.lease_is_void = nack.reason == "unknown-session"
            self.cloud_is_gone()
            return
        self._request(self._asked)

    def _rename(self) -> bool:
        """Once: a cloud that forgets an answer twice is no help to it."""
        self._was_renamed = True
        name = self._renamed(self)
        if name is not None:
            self.name = name
        return name is not None

    def _upload(self, upload: Upload) -> None:
        assert upload.position == self._positions, "positions go up in order"
        rows = to_float16(torch.from_numpy(upload.hidden))
        self._uploaded.append(rows)
        self._positions += len(rows)
        self._send_rows(upload.position, rows)

    def _send_again(self, first: int, end: int) -> None:
        rows = np.concatenate(self._uploaded)[first:end]
        self._resent_positions += len(rows)
        self._send_rows(first, rows)

    def _send_rows(self, first: int, rows: NDArray[np.float16]) -> None:
        at_once = max(1, self._settings.chunk_bytes // (self._hidden_size * _BYTES_OF_FLOAT16))
        for start in range(0, len(rows), at_once):
            hidden = pack(rows[start : start + at_once], "float16")
            self._post(
                topics.CONTEXT, ContextChunk(session=self.name, rollback=0, position=first + start, hidden=hidden)
            )

    def _ask(self, ask: Ask) -> None:
        now_s = time.monotonic()
        # Half of what is left at most: the edge must still be able to end the answer by itself.
        timeout_s = min(self._settings.timeout_ms / 1000, (self._deadline_s - now_s) / 2)
        self._asked = question = _Question(ask.up_to, now_s, now_s + timeout_s, self._loop.create_future())
        if self._gone or timeout_s <= 0:
            question.settle(None)
            return
        self._requests += 1
        self._request(question)
        self._loop.call_later(timeout_s / 2, self._repeat, question)
        self._loop.call_later(timeout_s, self._time_out, question)

    def _request(self, question: _Question) -> None:
        remaining_ms = (question.until_s - time.monotonic()) * 1000
        if remaining_ms > 0:
            self._post(
                topics.INFER,
                InferRequest(session=self.name, rollback=0, up_to=question.up_to, remaining_ms=remaining_ms),
            )

    def _repeat(self, question: _Question) -> None:
        if not question.is_settled and not self._closed:
            self._counters["repeated_requests"] += 1
            self._request(question)

    def _time_out(self, question: _Question) -> None:
        if not question.is_settled and not self._closed:
            self._counters["timed_out"] += 1
            self.timed_out = True
            self.cloud_is_gone()

    def _post(self, topic: topics.Topic, body: Message) -> None:
        try:
            self._bytes_up += self._send(topic, body)
        except OutboxFull:
            # As good as lost: the question's time limit, or a Nack, will tell.
            self._counters["unsent"] += 1


@dataclass(slots=True)
class _Question:
    """One token asked for. Times are seconds of the monotonic clock."""

    up_to: int
    asked_s: float
    until_s: float
    answer: asyncio.Future[CloudReply | None]

    @property
    def is_settled(self) -> bool:
        return self.answer.done()

    def settle(self, token: CloudReply | None) -> None:
        if not self.answer.done():
            self.answer.set_result(token)
