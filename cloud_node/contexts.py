"""The context manager: which edge may keep which contexts here, how much memory they take, and for how long.

Pure state, without network; whoever calls says what time it is. One lease per edge, and sessions within a lease:
nobody can speak of a session without being the edge that holds its lease (CE-CoLLM, section III-C).

Memory is counted before it is taken: what a chunk brings, what a prompt's embeddings need, and by how much the caches
will grow in a batch that is about to run. Where the budget would be passed, sessions are forgotten, the least recently
used first: those of edges that hold more than an equal share of the budget before any other, so that an edge which
opens many sessions pushes out its own. What is being computed is never forgotten; if that leaves no room, whoever
asked is refused, and its edge answers alone.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ..bus.context_digest import content_of_prompt
from ..bus.errors import MessageRefused
from ..bus.history import NO_HISTORY, History
from ..bus.messages import ContextChunk, ContextTokens, Lease, LeaseRefused, LeaseRequest, NackReason, PromptContext
from ..models.context_codec import channel_scales_of, unpack_rows
from ..models.prompt_layout import LaidOutPrompt
from .context import Context, Refused, Taken
from .parts import CloudParts
from .settings import ContextSettings

# A session's number may come this far behind the highest of its lease; older ones count as used.
_NUMBERS_REMEMBERED = 1024
_BYTES_PER_NUMBER = 4


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
    session: str
    used_s: float


class ContextManager:
    """The contexts of all edges.

    parts: of the model; model_hash: what an edge's must be.
    counters: counts leases and lease_refused.<reason>; sessions, and those of them closed, evicted, expired, voided and
        given_up.<reason>; chunks.<new, duplicate, stale or conflict>.
    """

    def __init__(
        self,
        *,
        parts: CloudParts,
        model_hash: str,
        settings: ContextSettings,
        counters: Counter[str],
        history: History = NO_HISTORY,
    ) -> None:
        self._parts = parts
        self._history = history
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

        Refused with reason "model", "split" or "hidden-size" where edge and cloud could not understand each other, and
        with "no-room" where the budget would not hold a single position.
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
        return Lease(
            lease=granted.lease,
            session_ttl_ms=self._settings.session_ttl_s * 1000,
            takes_prompts=self._parts.beginning is not None,
        )

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
            kept = self._kept[edge, number] = _Kept(
                Context(self._parts, tells_ran_on=self._history.is_on), session, now_s
            )
            self._counters["sessions"] += 1
            self._history.note("context.opened", edge=edge, session=session, ttl_s=self._settings.session_ttl_s)
        kept.used_s = now_s
        self._kept.move_to_end((edge, number))
        self._leases.move_to_end(edge)
        return kept.context

    def take(self, edge: str, body: ContextChunk | ContextTokens | PromptContext, now_s: float) -> Taken | Refused:
        """Keep what an edge sends of a session; Refused where the session had to be given up for it.

        A prompt that is "new" is to be encoded and brought to `Context.encoded`. Raises MessageRefused where the
        message is not one of this edge's and this model's: "session", "dtype", "shape", "not-finite", "scales" or
        "token". Its session, if it has one, is none the worse for that.
        """
        context = self.find(edge, body.session, now_s)
        if context is None or context.refused is not None:
            raise MessageRefused("session", f"{body.session} is over, or not {edge}'s")
        match body:
            case ContextChunk():
                taken = self._take_rows(edge, context, body)
            case ContextTokens():
                taken = self._take_tokens(edge, context, body)
            case PromptContext():
                taken = self._take_prompt(edge, context, body)
        if isinstance(taken, Refused):
            return taken
        self._counters[f"chunks.{taken}"] += 1
        self._history.note("context.stored", edge=edge, session=body.session, rollback=body.rollback, taken=taken)
        return self._give_up(context, "conflict") if taken == "conflict" else taken

    def _take_rows(self, edge: str, context: Context, chunk: ContextChunk) -> Taken | Refused:
        scales = channel_scales_of(chunk, self._parts.rest.hidden_size)
        known = context.channel_scales
        rows = unpack_rows(chunk, self._parts.rest.hidden_size, known if known is not None else scales)
        self._check_position_ids(context, chunk.position_ids, len(rows))
        if scales is not None and known is not None and not np.array_equal(scales, known):
            return "conflict"
        if (refused := self._room(edge, context, chunk.position + len(rows), rows.nbytes, len(rows))) is not None:
            return refused
        context.channel_scales = known if known is not None else scales
        context.position_axes = len(chunk.position_ids)
        return context.take_rows(
            rows,
            position=chunk.position,
            rollback=chunk.rollback,
            kept=chunk.kept,
            position_ids=chunk.position_ids,
        )

    def _take_tokens(self, edge: str, context: Context, body: ContextTokens) -> Taken | Refused:
        if self._parts.beginning is None:
            return self._give_up(context, "unusable")
        if max(body.tokens) >= self._parts.vocabulary:
            raise MessageRefused("token", f"token {max(body.tokens)} of {self._parts.vocabulary}")
        if (refused := self._room(edge, context, body.position + len(body.tokens), 0, len(body.tokens))) is not None:
            return refused
        return context.take_tokens(body.tokens, position=body.position, rollback=body.rollback, kept=body.kept)

    def _take_prompt(self, edge: str, context: Context, body: PromptContext) -> Taken | Refused:
        if self._parts.beginning is None:
            return self._give_up(context, "unusable")
        embedding_bytes = body.positions * self._parts.rest.hidden_size * _BYTES_PER_NUMBER
        if (refused := self._room(edge, context, body.positions, embedding_bytes, 0)) is not None:
            return refused
        content = content_of_prompt(body.prompt, body.telemetry, body.frames)
        return context.take_prompt(body.positions, content, rollback=body.rollback, kept=body.kept)

    def admit(self, edge: str, context: Context, wanted: Sequence[int]) -> Refused | None:
        """Make room for what a batch that computes these tokens of a context will add; Refused where there is none."""
        return self._room(edge, context, wanted[-1], context.growth_bytes(wanted[-1]), len(wanted))

    def encoded(self, context: Context, prompt: Tensor | LaidOutPrompt, *, rollback: int, positions: int) -> None:
        """A prompt was encoded, of a message with this `rollback` and these `positions`."""
        embeddings = prompt.embeddings if isinstance(prompt, LaidOutPrompt) else prompt
        if embeddings.shape[1] != positions:
            self._give_up(context, "conflict")
        else:
            context.encoded(prompt, rollback)

    def give_up(self, context: Context, reason: NackReason) -> None:
        """The context is of no use any more; whoever asks is told why."""
        self._give_up(context, reason)

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
        if request.first_exit_layer != self._parts.rest.first_layer:
            return "split"
        if request.hidden_size != self._parts.rest.hidden_size:
            return "hidden-size"
        if self._settings.budget_bytes < self._parts.rest_bytes_per_position:
            return "no-room"
        return None

    def _check_position_ids(self, context: Context, position_ids: tuple[tuple[int, ...], ...], count: int) -> None:
        """As many axes as the model counts on, or none, and for a whole session the same."""
        axes = len(position_ids)
        if axes not in (0, self._parts.position_axes) or context.position_axes not in (None, axes):
            raise MessageRefused("shape", f"position ids on {axes} axes")
        if any(len(axis) != count for axis in position_ids):
            raise MessageRefused("shape", f"position ids that are not those of {count} positions")

    def _own_number(self, edge: str, session: str) -> tuple[_EdgeLease, int] | None:
        """The edge's lease and the session's number in it; None for a session that is not of this lease."""
        lease, _, number = session.rpartition(".")
        granted = self._leases.get(edge)
        if granted is None or granted.lease != lease or not number.isdecimal() or str(int(number)) != number:
            return None
        return granted, int(number)

    def _give_up(self, context: Context, reason: NackReason) -> Refused:
        context.refuse(reason)
        self._counters[f"given_up.{reason}"] += 1
        return Refused(reason)

    def _make_room_for_one(self, edge: str) -> bool:
        """Whether one more session of this edge may begin."""
        own = [key for key in self._kept if key[0] == edge]
        if len(own) < self._settings.sessions_per_edge:
            return True
        idle = [key for key in own if not self._kept[key].context.computing]
        if idle:
            self._end(idle[0], "evicted")
        return bool(idle)

    def _room(self, edge: str, context: Context, up_to: int, content_bytes: int, entries: int) -> Refused | None:
        """Make room for what a context will hold, by forgetting others; it is given up where there is none.

        up_to: how long its sequence becomes. entries: rows, tokens or verdicts, beside their content.
        """
        more_bytes = content_bytes + context.bookkeeping_bytes(up_to, entries)
        if up_to > self._settings.max_positions or context.memory_bytes + more_bytes > self._settings.session_bytes:
            return self._give_up(context, "too-large")
        while self.memory_bytes + more_bytes > self._settings.budget_bytes:
            victim = self._least_useful(edge, context, more_bytes)
            if victim is None:
                return self._give_up(context, "no-room")
            self._end(victim, "evicted")
        return None

    def _least_useful(self, edge: str, context: Context, more_bytes: int) -> tuple[str, int] | None:
        """Of the sessions that may be forgotten for another one's sake; None where there are none."""
        held_bytes = Counter({edge: more_bytes})
        for (holder, _), kept in self._kept.items():
            held_bytes[holder] += kept.context.memory_bytes
        share_bytes = self._settings.budget_bytes / len(held_bytes)
        # In the order of last use.
        idle = [key for key, kept in self._kept.items() if kept.context is not context and not kept.context.computing]
        above_share = [key for key in idle if held_bytes[key[0]] > share_bytes]
        return next(iter(above_share or idle), None)

    def _void(self, edge: str) -> None:
        self._leases.pop(edge, None)
        for key in [key for key in self._kept if key[0] == edge]:
            self._end(key, "voided")

    def _end(self, key: tuple[str, int], why: str) -> None:
        ended = self._kept.pop(key)
        ended.context.free()
        self._history.note("context.freed", edge=key[0], session=ended.session, why=why)
        granted = self._leases.get(key[0])
        if granted is not None:
            granted.end(key[1])
        self._counters[why] += 1
