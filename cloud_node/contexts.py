"""The context manager: which edge may keep which contexts here, how much memory they take, and for how long.

Pure state, without network; whoever calls says what time it is. One lease per edge, and sessions within a lease:
nobody can speak of a session without being the edge that holds its lease (CE-CoLLM, section III-C).
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import MessageRefused
from ..bus.messages import ContextChunk, Lease, LeaseRefused, LeaseRequest, NackReason
from ..bus.tensors import TensorPayload, unpack
from ..models.stages import Stage
from .context import Batch, Computed, Context
from .settings import ContextSettings

# A session's number may come this far behind the highest of its lease; older ones count as used.
_NUMBERS_REMEMBERED = 1024


@dataclass(slots=True)
class _EdgeLease:
    """ended: numbers of sessions that are over, as far back as `_NUMBERS_REMEMBERED`."""

    lease: str
    highest: int = 0
    ended: set[int] = field(default_factory=set)

    def may_begin(self, number: int) -> bool:
        return number > self.highest - _NUMBERS_REMEMBERED and number not in self.ended

    def begin(self, number: int) -> None:
        self.highest = max(self.highest, number)

    def end(self, number: int) -> None:
        self.ended.add(number)
        if len(self.ended) > 2 * _NUMBERS_REMEMBERED:
            self.ended = {each for each in self.ended if each > self.highest - _NUMBERS_REMEMBERED}


@dataclass(slots=True)
class _Kept:
    context: Context
    used_s: float


class ContextManager:
    """The contexts of all edges.

    rest: the layers behind the first exit. model_hash: what an edge's must be.
    counters: counts leases and lease_refused.<reason>; sessions, and those of them closed, evicted, expired, voided and
        given_up.<reason>; chunks.<new, duplicate, stale or conflict>.
    """

    def __init__(self, *, rest: Stage, model_hash: str, settings: ContextSettings, counters: Counter[str]) -> None:
        self._rest = rest
        self._model_hash = model_hash
        self._settings = settings
        # Both in the order of last use, the longest silent first.
        self._leases: OrderedDict[str, _EdgeLease] = OrderedDict()
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()
        self._counters = counters

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def memory_bytes(self) -> int:
        return sum(kept.context.memory_bytes for kept in self._kept.values())

    def lease(self, edge: str, request: LeaseRequest) -> Lease | LeaseRefused:
        """Let an edge keep contexts here. Its earlier lease is void: it has restarted, and will not close its sessions.

        Refused with reason "model", "split" or "hidden-size" where edge and cloud could not understand each other.
        """
        if (reason := self._difference(request)) is not None:
            self._counters[f"lease_refused.{reason}"] += 1
            return LeaseRefused(reason=reason)
        self._void(edge)
        while len(self._leases) >= self._settings.edges:
            self._void(next(iter(self._leases)))
        granted = _EdgeLease(secrets.token_hex(16))
        self._leases[edge] = granted
        self._counters["leases"] += 1
        return Lease(lease=granted.lease, session_ttl_ms=self._settings.session_ttl_s * 1000)

    def find(self, edge: str, session: str, now_s: float) -> Context | None:
        """The context of an edge's session, which begins with the first word about it.

        None for a session that is over, or was never this edge's.
        """
        named = self._own_number(edge, session)
        if named is None:
            return None
        granted, number = named
        kept = self._kept.get((edge, number))
        if kept is None:
            if not granted.may_begin(number) or not self._make_room_for_one(edge):
                return None
            granted.begin(number)
            kept = self._kept[edge, number] = _Kept(Context(self._rest.session()), now_s)
            self._counters["sessions"] += 1
        kept.used_s = now_s
        self._kept.move_to_end((edge, number))
        self._leases.move_to_end(edge)
        return kept.context

    def take(self, edge: str, chunk: ContextChunk, now_s: float) -> NackReason | None:
        """Keep a chunk's hidden states. Says why the session had to be given up for it, where it had to.

        Raises MessageRefused where the chunk is not one of this edge's and this model's: "session", "dtype", "shape"
        or "not-finite". Its session, if it has one, is none the worse for that.
        """
        context = self.find(edge, chunk.session, now_s)
        if context is None or context.refused is not None:
            raise MessageRefused("session", f"{chunk.session} is over, or not {edge}'s")
        hidden = self._checked(chunk.hidden)
        if chunk.position + len(hidden) > self._settings.max_positions:
            return self._give_up(context, "too-large")
        taken = context.take(hidden, position=chunk.position, rollback=chunk.rollback, kept=chunk.kept)
        self._counters[f"chunks.{taken}"] += 1
        if taken == "conflict":
            return self._give_up(context, "conflict")
        if context.memory_bytes > self._settings.session_bytes:
            return self._give_up(context, "too-large")
        self._keep_to_budget(context)
        return None

    def finish(self, context: Context, batch: Batch, computed: Computed | None) -> None:
        """A batch that the context began was run, or (None) never will be. Its cache has grown meanwhile."""
        context.finish(batch, computed)
        if context.memory_bytes > self._settings.session_bytes:
            self._give_up(context, "too-large")
        self._keep_to_budget(context)

    def close(self, edge: str, session: str) -> None:
        """The answer is complete."""
        named = self._own_number(edge, session)
        if named is not None:
            granted, number = named
            # Also where it never began: a chunk that comes after this would begin it.
            granted.begin(number)
            granted.end(number)
            if (edge, number) in self._kept:
                self._end((edge, number), "closed")

    def expire(self, now_s: float) -> None:
        """Forget the sessions that were silent for too long."""
        silent = [key for key, kept in self._kept.items() if now_s - kept.used_s >= self._settings.session_ttl_s]
        for key in silent:
            self._end(key, "expired")

    def free_all(self) -> None:
        """Zero and forget everything."""
        for edge in list(self._leases):
            self._void(edge)

    def _difference(self, request: LeaseRequest) -> str | None:
        if request.model_hash != self._model_hash:
            return "model"
        if request.first_exit_layer != self._rest.first_layer:
            return "split"
        if request.hidden_size != self._rest.hidden_size:
            return "hidden-size"
        return None

    def _checked(self, payload: TensorPayload) -> NDArray[np.float16]:
        if payload.dtype != "float16":
            raise MessageRefused("dtype", f"hidden states of {payload.dtype}, not float16")
        if len(payload.shape) != 2 or payload.shape[1] != self._rest.hidden_size:
            raise MessageRefused("shape", f"{payload.shape}, not [positions, {self._rest.hidden_size}]")
        hidden: Any = unpack(payload)
        return hidden

    def _own_number(self, edge: str, session: str) -> tuple[_EdgeLease, int] | None:
        """The edge's lease and the session's number in it; None for a session that is not of this lease."""
        lease, _, number = session.rpartition(".")
        granted = self._leases.get(edge)
        if granted is None or granted.lease != lease or not number.isdecimal() or str(int(number)) != number:
            return None
        return granted, int(number)

    def _give_up(self, context: Context, reason: NackReason) -> NackReason:
        context.refuse(reason)
        self._counters[f"given_up.{reason}"] += 1
        return reason

    def _make_room_for_one(self, edge: str) -> bool:
        """Whether one more session of this edge may begin."""
        own = [key for key in self._kept if key[0] == edge]
        if len(own) < self._settings.sessions_per_edge:
            return True
        idle = [key for key in own if not self._kept[key].context.computing]
        if idle:
            self._end(idle[0], "evicted")
        return bool(idle)

    def _keep_to_budget(self, newest: Context) -> None:
        while self.memory_bytes > self._settings.budget_bytes:
            idle = [key for key, kept in self._kept.items() if not kept.context.computing]
            if not idle:
                return  # the one that is finished first comes back here
            held_bytes = Counter[str]()
            for (edge, _), kept in self._kept.items():
                held_bytes[edge] += kept.context.memory_bytes
            others = [key for key in idle if self._kept[key].context is not newest]
            self._end(max(others or idle, key=lambda key: held_bytes[key[0]]), "evicted")

    def _void(self, edge: str) -> None:
        self._leases.pop(edge, None)
        for key in [key for key in self._kept if key[0] == edge]:
            self._end(key, "voided")

    def _end(self, key: tuple[str, int], why: str) -> None:
        self._kept.pop(key).context.free()
        granted = self._leases.get(key[0])
        if granted is not None:
            granted.end(key[1])
        self._counters[why] += 1
