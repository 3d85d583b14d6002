"""The one thread of a node that computes: what is most urgent first, one piece of work at a time.

The event loop never computes, and two answers never fight over one core. A long answer gives way between two tokens
to whatever is more urgent, such as another tier's request for a single token.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

# Work with a lower rank goes first; an answer's rank is its number, so that older answers are finished first.
URGENT = -1


@dataclass(order=True, slots=True)
class _Work:
    rank: int
    sequence: int
    function: Callable[[], Any] = field(compare=False)
    done: Future[Any] = field(compare=False)


class Worker(Protocol):
    """What an answer's steps are computed on."""

    async def run(self, function: Callable[[], T], *, rank: int) -> T: ...

    def should_give_way(self, rank: int) -> bool: ...


class InferenceWorker:
    """Made and used from one event loop; `close` waits for the work at hand and drops what waits."""

    def __init__(self) -> None:
        self._waiting: list[_Work] = []
        self._changed = threading.Condition()
        self._sequence = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], T], *, rank: int) -> T:
        """What `function` returns or raises. Within a rank it is first come, first served."""
        done: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the inference worker is closed")
            heapq.heappush(self._waiting, _Work(rank, next(self._sequence), function, done))
            self._changed.notify()
        return await asyncio.wrap_future(done)

    async def run_urgently(self, function: Callable[[], T]) -> T:
        """As `run`, ahead of all answers."""
        return await self.run(function, rank=URGENT)

    def should_give_way(self, rank: int) -> bool:
        """For work of some rank that can pause: whether something more urgent waits."""
        with self._changed:
            return bool(self._waiting) and self._waiting[0].rank < rank

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for work in self._waiting:
                work.done.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (work := self._next()) is not None:
            # False where whoever asked was cancelled meanwhile.
            if not work.done.set_running_or_notify_cancel():
                continue
            try:
                result = work.function()
            except BaseException as error:
                work.done.set_exception(error)
            else:
                work.done.set_result(result)

    def _next(self) -> _Work | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return heapq.heappop(self._waiting) if self._waiting else None
