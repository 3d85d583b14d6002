"""An edge's line to its clouds: which of them can be asked now, and the lease that each has granted.

An edge introduces itself (LeaseRequest) to every living cloud that says that it grants leases, and may then open
sessions there without asking again. For each answer it picks the cloud that would reply soonest. A cloud that has let a
request time out is passed over until it is heard of again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import structlog

from ..bus import topics
from ..bus.errors import OutboxFull
from ..bus.history import NO_HISTORY, History
from ..bus.messages import Lease, LeaseRefused, LeaseRequest, Message, Nack, NodeState, TokenReply
from ..bus.transport import Bus, Received, Subscription
from ..models.companions import ContextDtype, LinkEstimate
from ..models.context_codec import bytes_per_position
from ..models.questions import Question
from .cloud_session import BusCloudSession, CloudTerms, SessionSettings
from .link_meter import LinkMeter

log = structlog.get_logger()

# Their last replies have arrived by then.
_DEAD_FOR_S = 60.0
_LEASE_REPEAT_S = 1.0


@dataclass(slots=True)
class _Cloud:
    """boot_id: of the life that the lease was granted in; a restarted cloud has forgotten it."""

    state: NodeState
    boot_id: str
    heard_s: float
    lease: Lease | None = None
    asked_s: float = -_LEASE_REPEAT_S
    refused: bool = False
    meter: LinkMeter = field(default_factory=LinkMeter)
    timed_out: bool = False
    sessions: dict[str, BusCloudSession] = field(default_factory=dict)


class CloudLine:
    """See `CloudLine` in models/companions.py.

    terms: what edge and cloud must agree on. silent_after_s: a cloud not heard of for so long is not asked.
    preferred: the name of the one cloud to use; None: any.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        terms: CloudTerms,
        settings: SessionSettings,
        silent_after_s: float = 2.5,
        preferred: str | None = None,
        history: History = NO_HISTORY,
    ) -> None:
        self._history = history
        self._bus = bus
        self._terms = terms
        self._settings = settings
        self._silent_after_s = silent_after_s
        self._preferred = preferred
        self._clouds: dict[str, _Cloud] = {}
        self._numbers = itertools.count(1)
        self.active = asyncio.Event()
        self.counters: Counter[str] = Counter()

    async def run(self) -> None:
        """Keep the picture of the clouds and hand their replies to the sessions, until cancelled."""
        states = self._bus.subscribe(topics.NODE_STATE, limit=1024)
        tokens = self._bus.subscribe(topics.TOKEN, limit=1024, on_overflow=self._overflowed, edge=self._bus.name)
        for subscription in (states, tokens):
            await subscription.active.wait()
        self.active.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear_states(states))
            group.create_task(self._hear_tokens(tokens))

    @property
    def available(self) -> bool:
        return self._best(time.monotonic()) is not None

    def open(
        self, deadline_s: float, question: Question, *, dtype: ContextDtype | None = None
    ) -> BusCloudSession | None:
        """A session with the cloud that would reply soonest; None where none can be asked."""
        now_s = time.monotonic()
        if (name := self._best(now_s)) is None:
            return None
        cloud = self._clouds[name]
        assert cloud.lease is not None, "only a cloud with a lease is best"
        session = BusCloudSession(
            cloud=name,
            name=f"{cloud.lease.lease}.{next(self._numbers)}",
            question=question,
            dtype=dtype or self._settings.context_dtype,
            meter=cloud.meter,
            takes_prompts=cloud.lease.takes_prompts,
            renamed=lambda session: self._rename(name, session),
            closed=lambda session: self._closed(name, session),
            post=lambda topic, body: self._bus.post(topic, body, node=name, edge=self._bus.name),
            terms=self._terms,
            settings=self._settings,
            deadline_s=deadline_s,
            counters=self.counters,
            history=self._history,
        )
        cloud.sessions[session.name] = session
        self.counters["sessions"] += 1
        return session

    def link(self) -> LinkEstimate | None:
        """Of the cloud that `open` would choose now."""
        if (name := self._best(time.monotonic())) is None:
            return None
        cloud = self._clouds[name]
        meter, dtype = cloud.meter, self._settings.context_dtype
        return LinkEstimate(
            round_trip_ms=meter.round_trip_ms,
            uplink_bps=meter.uplink_bps,
            wait_ms=meter.wait_ms,
            compute_ms=meter.compute_ms,
            answer_ms=_answer_ms(cloud.state),
            takes_prompts=cloud.lease is not None and cloud.lease.takes_prompts,
            bytes_per_value=bytes_per_position(dtype, self._terms.hidden_size) / self._terms.hidden_size,
        )

    def _best(self, now_s: float) -> str | None:
        usable = {name: cloud for name, cloud in self._clouds.items() if self._is_usable(name, cloud, now_s)}
        return min(usable, key=lambda name: _expected_ms(usable[name]), default=None)

    def _is_usable(self, name: str, cloud: _Cloud, now_s: float) -> bool:
        return (
            cloud.state.alive
            and cloud.lease is not None
            and not cloud.timed_out
            and now_s - cloud.heard_s <= self._silent_after_s
            and self._preferred in (None, name)
        )

    async def _hear_states(self, states: Subscription) -> None:
        async for received in states:
            if received.body.role == "cloud":
                self._take_state(received.body, received.envelope.boot_id)

    def _take_state(self, state: NodeState, boot_id: str) -> None:
        now_s = time.monotonic()
        if state.node not in self._clouds:
            self._forget_the_dead(now_s)
            self._clouds[state.node] = _Cloud(state, boot_id, now_s)
        cloud = self._clouds[state.node]
        cloud.state, cloud.heard_s, cloud.timed_out = state, now_s, False
        if boot_id != cloud.boot_id:
            cloud.boot_id, cloud.lease, cloud.refused, cloud.asked_s = boot_id, None, False, -_LEASE_REPEAT_S
        if not state.alive:
            cloud.lease = None
            for session in list(cloud.sessions.values()):
                session.cloud_is_gone()
        elif state.grants_leases and _may_be_asked(cloud, now_s):
            cloud.asked_s = now_s
            request = LeaseRequest(
                model_hash=self._terms.model_hash,
                first_exit_layer=self._terms.first_exit_layer,
                hidden_size=self._terms.hidden_size,
            )
            self._post(topics.CONTEXT, request, state.node)

    def _forget_the_dead(self, now_s: float) -> None:
        """A fleet that renews its clouds under new names must not fill its edges."""
        for name, cloud in list(self._clouds.items()):
            if not cloud.state.alive and not cloud.sessions and now_s - cloud.heard_s > _DEAD_FOR_S:
                del self._clouds[name]

    def _post(self, topic: topics.Topic, body: Message, cloud: str) -> None:
        try:
            self._bus.post(topic, body, node=cloud, edge=self._bus.name)
        except OutboxFull:
            self.counters["unsent"] += 1

    async def _hear_tokens(self, tokens: Subscription) -> None:
        async for received in tokens:
            cloud = self._clouds.get(received.names["node"])
            if cloud is None:
                self.counters["unexpected"] += 1
                continue
            cloud.heard_s = time.monotonic()
            body = received.body
            match body:
                case Lease():
                    self._take_lease(cloud, body, received)
                case LeaseRefused():
                    cloud.refused = True
                    log.warning("cloud refuses to collaborate", cloud=received.names["node"], reason=body.reason)
                case TokenReply() | Nack():
                    self._hand_over(cloud, body)

    def _take_lease(self, cloud: _Cloud, lease: Lease, received: Received) -> None:
        # A lease of a life that is over is worth nothing, whenever it arrives.
        if received.envelope.boot_id == cloud.boot_id and cloud.state.alive:
            cloud.lease = lease
            log.info("cloud collaborates", cloud=received.names["node"])

    def _hand_over(self, cloud: _Cloud, body: TokenReply | Nack) -> None:
        session = cloud.sessions.get(body.session)
        if session is None:
            self.counters["late_replies"] += 1
            return
        if isinstance(body, Nack):
            session.take_nack(body)
        else:
            session.take_reply(body)

    def _rename(self, cloud_name: str, session: BusCloudSession) -> str | None:
        """A new name for a session that its cloud has forgotten; None where it has forgotten the lease as well."""
        cloud = self._clouds[cloud_name]
        cloud.sessions.pop(session.name, None)
        if cloud.lease is None or not session.name.startswith(f"{cloud.lease.lease}."):
            return None
        name = f"{cloud.lease.lease}.{next(self._numbers)}"
        cloud.sessions[name] = session
        return name

    def _closed(self, cloud_name: str, session: BusCloudSession) -> None:
        cloud = self._clouds[cloud_name]
        cloud.sessions.pop(session.name, None)
        if session.timed_out:
            cloud.timed_out = True
        if session.lease_is_void:
            cloud.lease = None

    def _overflowed(self, received: Received) -> None:
        """More replies than can be read: its session asks again, or does without."""
        del received
        self.counters["overflowed_replies"] += 1


def _may_be_asked(cloud: _Cloud, now_s: float) -> bool:
    """For a lease: one that has not answered yet is asked again from time to time."""
    return cloud.lease is None and not cloud.refused and now_s - cloud.asked_s >= _LEASE_REPEAT_S


def _expected_ms(cloud: _Cloud) -> float:
    load = cloud.state.load
    return cloud.meter.round_trip_ms + (load.wait_ms if load is not None else 0.0)


def _answer_ms(state: NodeState) -> float | None:
    """What a cloud's own answers took of late, over the kinds of task that it had; None where it had none."""
    if state.load is None or not (by_kind := state.load.service_ms.get("cloud")):
        return None
    return sum(by_kind.values()) / len(by_kind)
