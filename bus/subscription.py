"""What arrived and waits to be read: one bounded queue per subscription."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from .messages import Envelope
from .topics import Topic

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """One valid message. names: what stands in its address, `fleet` included ({"vehicle": "car-1", ...})."""

    topic: Topic
    names: dict[str, str]
    envelope: Envelope[Any]

    @property
    def body(self) -> Any:
        return self.envelope.body


class Subscription:
    """An asynchronous iterator over what arrives on one topic; it ends when its bus is closed.

    limit: how many messages may wait to be read. What happens to one more stands in the topic table:
        "drop-oldest" forgets the oldest that waits; "refuse" keeps those and hands the new one to `on_overflow`,
        which must answer it (called soon, from the event loop). Both are counted as `dropped.<topic>` or
        `overflow.<topic>`; a refused one without `on_overflow` is logged as an error.
    active: set once the broker has confirmed the subscription for the first time.
    """

    def __init__(
        self,
        *,
        topic: Topic,
        address_filter: str,
        names: dict[str, str],
        limit: int,
        on_overflow: Callable[[Received], None] | None,
        counters: Counter[str],
    ) -> None:
        self.topic = topic
        self.address_filter = address_filter
        self.active = asyncio.Event()
        self._names = names
        self._limit = limit
        self._on_overflow = on_overflow
        self._counters = counters
        self._waiting: deque[Received] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        """How many messages wait to be read."""
        return len(self._waiting)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Received:
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def wants(self, topic: Topic, names: dict[str, str]) -> bool:
        """Whether a message on this topic, with these names in its address, is for this subscription."""
        return topic is self.topic and all(names[key] == value for key, value in self._names.items())

    def offer(self, received: Received) -> None:
        """Queue a message, or do what the topic's overflow rule says."""
        if len(self._waiting) < self._limit:
            self._waiting.append(received)
            self._changed.set()
        elif self.topic.overflow == "drop-oldest":
            self._waiting.popleft()
            self._waiting.append(received)
            self._counters[f"dropped.{self.topic.name}"] += 1
        else:
            self._refuse(received)

    def _refuse(self, received: Received) -> None:
        self._counters[f"overflow.{self.topic.name}"] += 1
        if self._on_overflow is None:
            _log.error("message lost, its queue is full", topic=self.topic.name, limit=self._limit)
        else:
            # Not called from here: an error in it must reach the loop's handler, not the connection.
            asyncio.get_running_loop().call_soon(self._on_overflow, received)

    def end(self, error: BaseException | None = None) -> None:
        """No more will come: the iteration stops after what waits, with `error` where there is one."""
        self._ended = True
        self._error = error
        self._changed.set()
