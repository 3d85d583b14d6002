"""The cloud's half of collaborative decoding on the bus: it takes contexts in, and says tokens when asked for them.

The two kinds of message come on topics of their own and may overtake each other, so a request waits a moment for
positions that are on their way before it is answered with what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from typing import Literal, Protocol, TypeAlias

import structlog
from msgspec import structs

from ..bus import topics
from ..bus.errors import MessageRefused, OutboxFull
from ..bus.history import NO_HISTORY, History
from ..bus.messages import (
    CloseContext,
    ContextChunk,
    ContextTokens,
    InferRequest,
    LeaseRequest,
    Message,
    Nack,
    NackReason,
    PromptContext,
    TokenReply,
)
from ..bus.transport import Bus, Received, Subscription
from ..models.questions import Question
from ..models.sampling import Sampling
from .batcher import Batcher, Compute
from .context import Context, Missing, Ready, Refused, Standing, Verdict
from .contexts import ContextManager
from .parts import CloudParts
from .settings import CollaborationSettings

# An edge that decodes ahead asks about every unsure token, and again where a request may have been lost.
_REQUESTS_PER_SESSION = 64
# How often the silent sessions are looked for, as a part of the time after which they are forgotten.
_EXPIRY_SHARE = 0.25

# What ends a request: see `Standing`.
Settled: TypeAlias = Verdict | Missing | Refused | Literal["stale", "overtaken"]

_log = structlog.get_logger(__name__)


class _Session(Protocol):
    """What a message says of the session that it is about."""

    @property
    def session(self) -> str: ...

    @property
    def rollback(self) -> int: ...


class ContextServer:
    """Serves the edges that collaborate with one cloud node.

    parts: of the model. compute: the node's inference thread. slot_power_w: electric power while it is busy.

    active: set once edges can speak to it. `counters` counts, beside what `ContextManager` and `Batcher` do:
    requests.<repeated, dropped, stale or overtaken>, nacks.<reason>, chunks.refused.<reason>, prompts.<encoded or
    refused>, generations.<finished or stopped>, replies_unsent.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        name: str,
        parts: CloudParts,
        model_hash: str,
        compute: Compute,
        slot_power_w: float,
        settings: CollaborationSettings | None = None,
        history: History = NO_HISTORY,
    ) -> None:
        settings = settings or CollaborationSettings()
        self.active = asyncio.Event()
        self.counters: Counter[str] = Counter()
        self.contexts = ContextManager(
            parts=parts,
            model_hash=model_hash,
            settings=settings.contexts,
            counters=self.counters,
            history=history,
        )
        self._history = history
        self._batcher = Batcher(
            contexts=self.contexts,
            parts=parts,
            compute=compute,
            max_batch=settings.max_batch,
            slot_power_w=slot_power_w,
            counters=self.counters,
        )
        self._bus = bus
        self._name = name
        self._beginning = parts.beginning
        self._compute = compute
        self._max_positions = settings.contexts.max_positions
        self._grace_s = settings.grace_ms / 1000
        self._expiry_interval_s = settings.contexts.session_ttl_s * _EXPIRY_SHARE
        # By session, in the order in which they came.
        self._under_way: dict[tuple[str, str], list[InferRequest]] = defaultdict(list)
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
                group.create_task(self._receive_context(context, group))
                group.create_task(self._receive_requests(requests, group))
                group.create_task(self._batcher.run())
                group.create_task(self._expire())
        finally:
            self.contexts.free_all()

    # What edges send ahead

    async def _receive_context(self, subscription: Subscription, group: asyncio.TaskGroup) -> None:
        async for received in subscription:
            edge, body = received.names["edge"], received.body
            match body:
                case LeaseRequest():
                    self._say(edge, self.contexts.lease(edge, body))
                case ContextChunk() | ContextTokens() | PromptContext():
                    self._take(edge, body, group)
                case CloseContext():
                    self.contexts.close(edge, body.session)
                    self._changes.tell((edge, body.session))

    def _take(self, edge: str, body: ContextChunk | ContextTokens | PromptContext, group: asyncio.TaskGroup) -> None:
        try:
            taken = self.contexts.take(edge, body, time.monotonic())
        except MessageRefused as refusal:
            self.counters[f"chunks.refused.{refusal.reason}"] += 1
            return
        if isinstance(taken, Refused):
            # Said at once, so that the edge need not send more.
            self._nack(edge, body, taken)
        elif taken == "new" and isinstance(body, PromptContext):
            # At once, before anybody asks: it is the longest single piece of work that an answer brings.
            group.create_task(self._encode(edge, body))
        self._changes.tell((edge, body.session))

    async def _encode(self, edge: str, body: PromptContext) -> None:
        beginning = self._beginning
        assert beginning is not None, "else the prompt would not have been taken"
        question = Question(body.prompt, body.frames, body.telemetry)
        try:
            prompt = await self._compute(lambda: beginning.encode(question))
        except (MessageRefused, IndexError, RuntimeError, ValueError) as refusal:
            # The last three are the library's own words for inputs that a model cannot run.
            self.counters["prompts.refused"] += 1
            _log.warning("prompt refused", edge=edge, why=str(refusal)[:200])
            prompt = None
        context = self.contexts.find(edge, body.session, time.monotonic())
        if context is not None and context.refused is None:
            if prompt is None:
                self.contexts.give_up(context, "unusable")
            else:
                self.counters["prompts.encoded"] += 1
                self.contexts.encoded(context, prompt, rollback=body.rollback, positions=body.positions)
        self._changes.tell((edge, body.session))

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(self._expiry_interval_s)
            self.contexts.expire(time.monotonic())

    # What edges ask

    async def _receive_requests(self, subscription: Subscription, group: asyncio.TaskGroup) -> None:
        async for received in subscription:
            edge, request = received.names["edge"], received.body
            self._history.note(
                "token.asked", edge=edge, session=request.session, rollback=request.rollback, up_to=request.up_to
            )
            under_way = self._under_way[edge, request.session]
            if any(_same_question(request, other) for other in under_way):
                self.counters["requests.repeated"] += 1  # one answer will do for both
            elif len(under_way) >= _REQUESTS_PER_SESSION:
                self.counters["requests.dropped"] += 1
            else:
                under_way.append(request)
                # A task of its own: a session that waits for its positions holds up no other.
                group.create_task(self._serve(edge, request, time.monotonic()))

    async def _serve(self, edge: str, request: InferRequest, arrived_s: float) -> None:
        key = edge, request.session
        try:
            if request.generate:
                await self._generate(edge, request, arrived_s)
            else:
                await self._answer(edge, request, arrived_s)
        finally:
            self._under_way[key].remove(request)
            if not self._under_way[key]:
                del self._under_way[key]

    async def _answer(self, edge: str, request: InferRequest, arrived_s: float) -> None:
        self._tell(edge, request, await self._settled(edge, request, arrived_s))

    async def _generate(self, edge: str, request: InferRequest, arrived_s: float) -> None:
        """Say token after token, each as soon as it is known, until the answer ends or the edge closes it."""
        if self._beginning is None:
            self._nack(edge, request, Refused("unusable"))
            return
        for number in range(request.generate):
            step = structs.replace(request, up_to=request.up_to + number)
            settled = await self._settled(edge, step, arrived_s)
            if self._newest_generation(edge, request) is not request:
                self.counters["requests.overtaken"] += 1  # its edge has lost pieces, and asked for the rest anew
                return
            self._tell(edge, step, settled)
            if not isinstance(settled, Verdict):
                self.counters["generations.stopped"] += 1
                return
            (token,) = settled.tokens
            if token == self._beginning.end_token or number + 1 == request.generate:
                break
            context = self.contexts.find(edge, request.session, time.monotonic())
            if context is not None and context.append(token, step.up_to) == "conflict":
                self.contexts.give_up(context, "conflict")
        self.counters["generations.finished"] += 1

    def _newest_generation(self, edge: str, request: InferRequest) -> InferRequest:
        return [other for other in self._under_way[edge, request.session] if other.generate][-1]

    async def _settled(self, edge: str, request: InferRequest, arrived_s: float) -> Settled:
        """What there is to say to a request, after as long as it may take."""
        key = edge, request.session
        deadline_s = arrived_s + request.remaining_ms / 1000
        grace_ends_s = min(time.monotonic() + self._grace_s, deadline_s)
        while (now_s := time.monotonic()) < deadline_s:
            context = self.contexts.find(edge, request.session, now_s)
            match self._standing(context, request):
                case Missing() if now_s < grace_ends_s:
                    await self._changes.until_next(key, grace_ends_s - now_s)
                case "busy":
                    await self._changes.until_next(key, deadline_s - now_s)
                case Ready() | Verdict() if context is not None and self._is_overtaken(key, context, request):
                    return "overtaken"
                case Ready() as ready:
                    assert context is not None, "only a context can be ready"
                    await self._batcher.compute(edge, context, ready, deadline_s)
                    self._changes.tell(key)
                case settled:
                    return settled
        return Refused("too-late")

    def _standing(self, context: Context | None, request: InferRequest) -> Standing:
        if context is None:
            return Refused("unknown-session")
        if request.up_to > self._max_positions:
            return Refused("too-large")
        sampling = Sampling(request.temperature, request.seed) if request.temperature else None
        if not context.samples_with(sampling):
            return Refused("conflict")
        return context.look(rollback=request.rollback, up_to=request.up_to, claimed=request.claimed)

    def _is_overtaken(self, key: tuple[str, str], context: Context, request: InferRequest) -> bool:
        """Whether a newer request of the session, which can be answered as soon, asks for this one's token as well."""
        under_way = self._under_way[key]
        newer = under_way[under_way.index(request) + 1 :] if request in under_way else []
        return any(
            _covers(other, request) and isinstance(self._standing(context, other), (Ready, Verdict)) for other in newer
        )

    # What is said to edges

    def _tell(self, edge: str, request: InferRequest, settled: Settled) -> None:
        if not isinstance(settled, Verdict):
            self._history.note("token.unsaid", edge=edge, session=request.session, up_to=request.up_to)
        match settled:
            case Verdict():
                self._reply(edge, request, settled)
            case Missing() | Refused():
                self._nack(edge, request, settled)
            case past:
                # The edge has moved on, and a Nack would end an answer that is well under way.
                self.counters[f"requests.{past}"] += 1

    def _reply(self, edge: str, request: InferRequest, verdict: Verdict) -> None:
        context = self.contexts.find(edge, request.session, time.monotonic())
        reply = TokenReply(
            session=request.session,
            rollback=request.rollback,
            up_to=request.up_to,
            tokens=verdict.tokens,
            n_accepted=verdict.n_accepted,
            confidences=verdict.confidences,
            queue_ms=verdict.queue_ms,
            compute_ms=verdict.compute_ms,
            energy_j=context.take_energy_j() if context is not None else 0.0,
        )
        self._say(edge, reply)
        self._history.note(
            "token.said",
            edge=edge,
            session=request.session,
            rollback=request.rollback,
            up_to=request.up_to - max(0, len(request.claimed) - 1),
            tokens=verdict.tokens,
            ran_on=verdict.ran_on,
            generating=request.generate > 0,
        )

    def _nack(self, edge: str, about: _Session, why: Missing | Refused) -> None:
        reason: NackReason = why.reason if isinstance(why, Refused) else "missing"
        missing = why if isinstance(why, Missing) else Missing(0, 0)
        self.counters[f"nacks.{reason}"] += 1
        nack = Nack(session=about.session, rollback=about.rollback, reason=reason, first=missing.first, end=missing.end)
        self._say(edge, nack)

    def _refuse_overflow(self, received: Received) -> None:
        self._nack(received.names["edge"], received.body, Refused("too-late"))

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


def _same_question(one: InferRequest, other: InferRequest) -> bool:
    return structs.replace(one, remaining_ms=other.remaining_ms) == other


def _covers(newer: InferRequest, older: InferRequest) -> bool:
    """Whether what is said to the newer request tells the older one's last token as well."""
    if newer.rollback != older.rollback or older.generate or newer.generate:
        return False
    return newer.up_to - len(newer.claimed) < older.up_to <= newer.up_to


def _let_it_be_asked_for_again(received: Received) -> None:
    """More than can be read: the bus counts it, and what is missed of it comes again after a Nack, or a repetition."""
    del received
