"""The cloud's half of collaborative decoding on the bus: it takes contexts in, and says one token when asked for it.

The two kinds of message come on topics of their own and may overtake each other, so a request waits a moment for
positions that are on their way before it is answered with what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog
from torch import nn

from ..bus import topics
from ..bus.errors import MessageRefused, OutboxFull, SplitError
from ..bus.messages import (
    CloseContext,
    ContextChunk,
    InferRequest,
    LeaseRequest,
    Message,
    Nack,
    NackReason,
    TokenReply,
)
from ..bus.transport import Bus, Received, Subscription
from ..models.stages import Stage
from .context import Batch, Computed, Context, Missing, Refused, Standing
from .contexts import ContextManager
from .settings import CollaborationSettings

# An edge asks for one token of an answer at a time, twice if the first request may have been lost.
_REQUESTS_PER_SESSION = 4
# How often the silent sessions are looked for, as a part of the time after which they are forgotten.
_EXPIRY_SHARE = 0.25

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Compute(Protocol):
    """Runs a function on the node's inference thread, ahead of whole answers, and returns what it returns."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


class ContextServer:
    """Serves the edges that collaborate with one cloud node.

    rest, head: the layers behind the first exit, and what makes logits of the last one's residual stream.
    slot_power_w: electric power of the busy inference slot.

    active: set once edges can speak to it. `counters` counts, beside what `ContextManager` does: tokens (computed),
    requests.<repeated, dropped, stale or overtaken>, nacks.<reason>, chunks.refused.<reason>,
    replies_unsent.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        name: str,
        rest: Stage,
        head: nn.Module,
        model_hash: str,
        compute: Compute,
        slot_power_w: float,
        settings: CollaborationSettings | None = None,
    ) -> None:
        settings = settings or CollaborationSettings()
        self.active = asyncio.Event()
        self.counters: Counter[str] = Counter()
        self.contexts = ContextManager(
            rest=rest, model_hash=model_hash, settings=settings.contexts, counters=self.counters
        )
        self._bus = bus
        self._name = name
        self._head = head
        self._compute = compute
        self._slot_power_w = slot_power_w
        self._max_positions = settings.contexts.max_positions
        self._grace_s = settings.grace_ms / 1000
        self._expiry_interval_s = settings.contexts.session_ttl_s * _EXPIRY_SHARE
        self._under_way: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
        self._changes = _Changes()

    def gauges(self) -> dict[str, float]:
        """What the contexts take now, by their metrics' names."""
        return {"contexts": len(self.contexts), "context_bytes": self.contexts.memory_bytes}

    async def run(self) -> None:
        """Serve until cancelled, then forget every context."""
        context = self._bus.subscribe(topics.CONTEXT, on_overflow=_let_it_be_asked_for_again, node=self._name)
        requests = self._bus.subscribe(topics.INFER, on_overflow=self._refuse_overflow, node=self._name)
        for subscription in (context, requests):
            await subscription.active.wait()
        self.active.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive_context(context))
                group.create_task(self._receive_requests(requests, group))
                group.create_task(self._expire())
        finally:
            self.contexts.free_all()

    # What edges send ahead

    async def _receive_context(self, subscription: Subscription) -> None:
        async for received in subscription:
            edge, body = received.names["edge"], received.body
            match body:
                case LeaseRequest():
                    self._say(edge, self.contexts.lease(edge, body))
                case ContextChunk():
                    self._take(edge, body)
                case CloseContext():
                    self.contexts.close(edge, body.session)
                    self._changes.tell((edge, body.session))

    def _take(self, edge: str, chunk: ContextChunk) -> None:
        try:
            given_up = self.contexts.take(edge, chunk, time.monotonic())
        except MessageRefused as refusal:
            self.counters[f"chunks.refused.{refusal.reason}"] += 1
            return
        if given_up is not None:
            # Said at once, so that the edge need not send more.
            self._nack(edge, chunk.session, chunk.rollback, given_up)
        self._changes.tell((edge, chunk.session))

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(self._expiry_interval_s)
            self.contexts.expire(time.monotonic())

    # What edges ask

    async def _receive_requests(self, subscription: Subscription, group: asyncio.TaskGroup) -> None:
        async for received in subscription:
            edge, request = received.names["edge"], received.body
            under_way = self._under_way[edge, request.session]
            question = request.rollback, request.up_to
            if question in under_way:
                self.counters["requests.repeated"] += 1  # one answer will do for both
            elif len(under_way) >= _REQUESTS_PER_SESSION:
                self.counters["requests.dropped"] += 1
            else:
                under_way.add(question)
                # A task of its own: a session that waits for its positions holds up no other.
                group.create_task(self._serve(edge, request, time.monotonic()))

    async def _serve(self, edge: str, request: InferRequest, arrived_s: float) -> None:
        key = edge, request.session
        try:
            await self._answer(edge, request, arrived_s)
        finally:
            self._under_way[key].discard((request.rollback, request.up_to))
            if not self._under_way[key]:
                del self._under_way[key]

    async def _answer(self, edge: str, request: InferRequest, arrived_s: float) -> None:
        key = edge, request.session
        deadline_s = arrived_s + request.remaining_ms / 1000
        grace_ends_s = min(arrived_s + self._grace_s, deadline_s)
        while (now_s := time.monotonic()) < deadline_s:
            context = self.contexts.find(edge, request.session, now_s)
            match self._standing(context, request):
                case Computed() as computed:
                    self.counters["requests.repeated"] += 1
                    self._reply(edge, request, computed)
                    return
                case Refused(reason):
                    self._nack(edge, request.session, request.rollback, reason)
                    return
                case Missing() as missing:
                    if now_s >= grace_ends_s:
                        self._nack(edge, request.session, request.rollback, "missing", missing)
                        return
                    await self._changes.until_next(key, grace_ends_s - now_s)
                case "busy":
                    await self._changes.until_next(key, deadline_s - now_s)
                case "ready":
                    assert context is not None, "only a context can be ready"
                    computed = await self._token(key, context, request.up_to, deadline_s)
                    if computed is not None:
                        self._reply(edge, request, computed)
                        return
                case "stale" | "overtaken" as past:
                    # The edge has moved on, and a Nack would end an answer that is well under way.
                    self.counters[f"requests.{past}"] += 1
                    return
        self._nack(edge, request.session, request.rollback, "too-late")

    def _standing(self, context: Context | None, request: InferRequest) -> Standing:
        if context is None:
            return Refused("unknown-session")
        if request.up_to > self._max_positions:
            return Refused("too-large")
        return context.look(rollback=request.rollback, up_to=request.up_to)

    async def _token(self, key: tuple[str, str], context: Context, up_to: int, deadline_s: float) -> Computed | None:
        """None where it was too late to begin, or the model cannot go back to where the context was cut."""
        batch = context.begin(up_to)
        ready_s = time.monotonic()
        computed = None
        try:
            computed = await self._compute(lambda: _run(batch, self._head, ready_s, deadline_s))
        except SplitError as error:
            _log.warning("context forgotten", edge=key[0], why=str(error))
            self.contexts.close(*key)
        self.contexts.finish(context, batch, computed)
        self._changes.tell(key)
        self.counters["tokens"] += computed is not None
        return computed

    # What is said to edges

    def _reply(self, edge: str, request: InferRequest, computed: Computed) -> None:
        reply = TokenReply(
            session=request.session,
            rollback=request.rollback,
            up_to=request.up_to,
            tokens=(computed.token,),
            n_accepted=0,
            confidences=(computed.confidence,),
            queue_ms=computed.queue_ms,
            compute_ms=computed.compute_ms,
            energy_j=self._slot_power_w * computed.compute_ms / 1000,
        )
        self._say(edge, reply)

    def _nack(self, edge: str, session: str, rollback: int, reason: NackReason, missing: Missing | None = None) -> None:
        missing = missing or Missing(0, 0)
        self.counters[f"nacks.{reason}"] += 1
        self._say(edge, Nack(session=session, rollback=rollback, reason=reason, first=missing.first, end=missing.end))

    def _refuse_overflow(self, received: Received) -> None:
        request = received.body
        self._nack(received.names["edge"], request.session, request.rollback, "too-late")

    def _say(self, edge: str, body: Message) -> None:
        try:
            self._bus.post(topics.TOKEN, body, edge=edge, node=self._name)
        except OutboxFull:
            # As good as lost on the way: the edge asks again, or does without.
            self.counters["replies_unsent"] += 1


class _Changes:
    """Wakes who waits for something to happen to a session."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}

    def tell(self, key: tuple[str, str]) -> None:
        for waiter in self._waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def until_next(self, key: tuple[str, str], longest_s: float) -> None:
        """Until the session's next change, or for so many seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        await asyncio.wait({waiter}, timeout=longest_s)
        if not waiter.done():
            self._waiting[key].remove(waiter)
            if not self._waiting[key]:
                del self._waiting[key]


def _run(batch: Batch, head: nn.Module, ready_s: float, deadline_s: float) -> Computed | None:
    """On the inference thread; None where its turn came too late."""
    started_s = time.monotonic()
    if started_s >= deadline_s:
        return None
    token, confidence = batch.run(head)
    return Computed(token, confidence, (started_s - ready_s) * 1000, (time.monotonic() - started_s) * 1000)


def _let_it_be_asked_for_again(received: Received) -> None:
    """More than can be read: the bus counts it, and what is missed of it comes again after a Nack, or a repetition."""
    del received
