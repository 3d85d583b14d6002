"""Batching: what several contexts wait for is computed in one pass, as soon as the inference thread is free.

One batch is under way at a time. What becomes ready meanwhile waits for the next one, so a busy cloud fills its batches
by itself and an idle one keeps nobody waiting. The most urgent go first; but where more wait than a batch takes, every
edge has one context in it before any has two.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import structlog

from .context import Context, Ready, Refused
from .contexts import ContextManager
from .parts import Batch, Chosen, CloudParts, Ran, run_together

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Compute(Protocol):
    """Runs a function on the node's inference thread, ahead of whole answers, and returns what it returns."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


@dataclass(slots=True)
class _Waiting:
    """A context that is ready. wanted: after how many positions a token is, by all who wait for it.

    urgent_s, latest_s: the first and the last deadline of those.
    """

    edge: str
    context: Context
    since_s: float
    urgent_s: float
    latest_s: float
    wanted: set[int] = field(default_factory=set)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """compute: the inference thread. max_batch: how many contexts share a batch. slot_power_w: while it computes.

    counters: counts tokens (computed), batches, batched (contexts in them), ran_alone (of those, which could not share
    a pass), and out_of_time (contexts whose turn came too late).
    """

    def __init__(
        self,
        *,
        contexts: ContextManager,
        parts: CloudParts,
        compute: Compute,
        max_batch: int,
        slot_power_w: float,
        counters: Counter[str],
    ) -> None:
        self._contexts = contexts
        self._parts = parts
        self._compute = compute
        self._max_batch = max_batch
        self._slot_power_w = slot_power_w
        self._counters = counters
        # By the context's identity, in the order in which they became ready.
        self._waiting: dict[int, _Waiting] = {}
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                await self._run_one(self._next())

    async def compute(self, edge: str, context: Context, ready: Ready, deadline_s: float) -> None:
        """Wait until a batch with these tokens was run, or could not be; `Context.look` says which."""
        waiting = self._waiting.get(id(context))
        if waiting is None:
            waiting = _Waiting(edge, context, time.monotonic(), deadline_s, deadline_s)
            self._waiting[id(context)] = waiting
        waiting.wanted.update(ready.wanted)
        waiting.urgent_s = min(waiting.urgent_s, deadline_s)
        waiting.latest_s = max(waiting.latest_s, deadline_s)
        self._woken.set()
        await asyncio.shield(waiting.done)

    def _next(self) -> list[_Waiting]:
        """Those that make up the next batch."""
        in_line: Counter[str] = Counter()
        ranks: dict[int, int] = {}
        by_urgency = sorted(self._waiting.values(), key=lambda each: each.urgent_s)
        for waiting in by_urgency:
            ranks[id(waiting.context)] = in_line[waiting.edge]
            in_line[waiting.edge] += 1
        # Sorting is stable: within a rank they stay in the order of urgency.
        chosen = sorted(by_urgency, key=lambda each: ranks[id(each.context)])[: self._max_batch]
        for waiting in chosen:
            del self._waiting[id(waiting.context)]
        return chosen

    async def _run_one(self, chosen: list[_Waiting]) -> None:
        begun: list[tuple[_Waiting, Batch]] = []
        for waiting in chosen:
            batch = self._begin(waiting)
            if batch is not None:
                begun.append((waiting, batch))
        try:
            if begun:
                await self._run_begun(begun)
        finally:
            for waiting in chosen:
                if not waiting.done.done():
                    waiting.done.set_result(None)

    def _begin(self, waiting: _Waiting) -> Batch | None:
        """None for what has changed since it was ready: who asked looks again."""
        context = waiting.context
        # Those that were run meanwhile, or cut off, are no business of this batch.
        wanted = context.still_wanted(waiting.wanted)
        if not wanted or not isinstance(context.look(rollback=context.rollback, up_to=wanted[-1]), Ready):
            return None
        if isinstance(self._contexts.admit(waiting.edge, context, wanted), Refused):
            return None
        return context.begin(wanted)

    async def _run_begun(self, begun: list[tuple[_Waiting, Batch]]) -> None:
        latest_s = max(waiting.latest_s for waiting, _ in begun)
        timed: _Timed | None = None
        try:
            timed = await self._compute(lambda: _run([batch for _, batch in begun], self._parts, latest_s))
        except (IndexError, RuntimeError, ValueError) as error:
            # The library's own words for inputs that a model cannot run; nothing tells whose they were.
            _log.warning("batch failed", why=str(error)[:200])
            timed = _Timed(Ran([None] * len(begun), 0), time.monotonic(), 0.0)
        finally:
            if timed is None:
                for waiting, batch in begun:
                    waiting.context.finish(batch, None)
        if timed is None:
            self._counters["out_of_time"] += len(begun)
            return
        self._counters["batches"] += 1
        self._counters["batched"] += len(begun)
        self._counters["ran_alone"] += timed.ran.alone
        for (waiting, batch), chosen in zip(begun, timed.ran.by_batch, strict=True):
            self._finish(waiting, batch, chosen, timed, self._slot_power_w * timed.took_ms / 1000 / len(begun))

    def _finish(
        self, waiting: _Waiting, batch: Batch, chosen: Sequence[Chosen] | None, timed: _Timed, energy_j: float
    ) -> None:
        queue_ms = max(0.0, (timed.started_s - waiting.since_s) * 1000)
        waiting.context.energy_j += energy_j
        waiting.context.finish(batch, chosen, queue_ms=queue_ms, compute_ms=timed.took_ms)
        if chosen is not None:
            self._counters["tokens"] += len(chosen)
            return
        _log.warning("context given up", edge=waiting.edge, why="it cannot be run, go back, or its numbers overflow")
        self._contexts.give_up(waiting.context, "unusable")


@dataclass(frozen=True, slots=True)
class _Timed:
    ran: Ran
    started_s: float
    took_ms: float


def _run(batches: list[Batch], parts: CloudParts, latest_s: float) -> _Timed | None:
    """On the inference thread; None where its turn came when nobody waits any more."""
    started_s = time.monotonic()
    if started_s >= latest_s:
        return None
    ran = run_together(batches, parts)
    return _Timed(ran, started_s, (time.monotonic() - started_s) * 1000)
