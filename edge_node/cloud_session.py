"""One answer's session with a cloud, over the bus: context that nobody waits for, and questions with a time limit.

The decoding runs on the inference thread, which says what is to be sent and reads the replies; everything else runs on
the event loop. What was sent is kept until the session is closed, so that it can be sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from ..bus import topics
from ..bus.errors import MessageRefused, OutboxFull
from ..bus.history import NO_HISTORY, History
from ..bus.messages import CloseContext, ContextUse, InferRequest, Message, Nack, TokenReply
from ..bus.tensors import TensorType
from ..models.context_codec import ContextPacker
from ..models.decoding import Ask, CloudReply, RollBack, ToCloud, Upload, UploadPrompt, UploadTokens
from ..models.questions import Question
from .link_meter import LinkMeter, Timed
from .sent_context import ContextMessage, Piece, SentContext, digests_in

# Asked for twice within this time, the second was on its way when the first was answered.
_SAME_LOSS_S = 0.05


@dataclass(frozen=True, slots=True)
class CloudTerms:
    """What both sides must have in common: the model, and where it is cut."""

    model_hash: str
    first_exit_layer: int
    hidden_size: int


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """timeout_ms: how long a cloud may be silent while it is asked, beside what the uplink takes for context.

    chunk_bytes: the largest payload of one message. context_dtype: of hidden states on the wire.

    A request is sent once more after half of the time, in case it was lost.
    """

    timeout_ms: float = 400.0
    chunk_bytes: int = 120_000
    context_dtype: TensorType = "float16"


@dataclass(slots=True)
class _Asked:
    """A question of the present sequence. Times are seconds of the monotonic clock.

    asked_s: or when the last piece of a generated answer came. until_s: when the cloud counts as silent.
    sent_bytes, sending_since_s: of context just before it. is_first: of its session. received: tokens of a generated
    answer that have come. is_open: a reply is still wanted.
    """

    ask: Ask
    asked_s: float
    until_s: float
    sent_bytes: int
    sending_since_s: float
    is_first: bool
    received: int = 0
    is_open: bool = True
    was_answered: bool = False
    was_repeated: bool = False

    def covers(self, older: _Asked) -> bool:
        """Whether its reply tells the older one's token as well, so that the cloud may leave that unanswered."""
        if self.ask.generate or older.ask.generate:
            return False
        return self.ask.up_to - len(self.ask.claimed) < older.ask.up_to <= self.ask.up_to


class BusCloudSession:
    """See `CloudSession` in models/companions.py.

    question: what the answer is to. dtype: of hidden states. meter: of the way to this cloud. takes_prompts: whether it
    can encode questions. post: sends to the cloud and says how many bytes that took. renamed: asks for a new name after
    the cloud has forgotten this session; closed: is told at the end.

    counters counts repeated_requests, timed_out, nack.<reason>, gave_up.<reason>, late_replies and unsent.
    """

    def __init__(
        self,
        *,
        cloud: str,
        name: str,
        question: Question,
        dtype: TensorType,
        meter: LinkMeter,
        takes_prompts: bool,
        renamed: Callable[[BusCloudSession], str | None],
        closed: Callable[[BusCloudSession], None],
        post: Callable[[topics.Topic, Message], int],
        terms: CloudTerms,
        settings: SessionSettings,
        deadline_s: float,
        counters: Counter[str],
        history: History = NO_HISTORY,
    ) -> None:
        self._history = history
        self.name = name
        self.energy_j = 0.0
        self.timed_out = False
        self.lease_is_void = False
        self._cloud = cloud
        self._question = question
        self._takes_prompts = takes_prompts
        self._meter = meter
        self._renamed = renamed
        self._tell_closed = closed
        self._send = post
        self._hidden_size = terms.hidden_size
        self._settings = settings
        self._deadline_s = deadline_s
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._gone = self._closed = False
        # The inference thread's: how it packs, and how often it has cut the sequence back.
        self._packer = ContextPacker(dtype)
        self._rollback = 0
        # Put in by the loop, taken out by the inference thread: replies, each with the roll-back that it is of.
        self._replies: deque[tuple[int, CloudReply]] = deque()
        # The loop's.
        self._context = SentContext(
            packer=self._packer, hidden_size=terms.hidden_size, chunk_bytes=settings.chunk_bytes
        )
        self._asked: list[_Asked] = []
        self._changed = asyncio.Event()
        self._sent_bytes = 0
        self._sending_since_s = 0.0
        self._positions = self._payload_bytes = self._bytes_up = self._requests = self._resent_positions = 0
        self._was_renamed = False
        self._resent: tuple[int, int, int, float] = (0, 0, 0, 0.0)
        self._timer: asyncio.TimerHandle | None = None

    # For the inference thread

    def send(self, event: ToCloud) -> None:
        match event:
            case Upload():
                self._send_hidden(event)
            case UploadTokens(position, tokens):
                piece = Piece(position, position + len(tokens), tokens)
                self._loop.call_soon_threadsafe(self._upload, piece)
            case UploadPrompt(positions):
                self._loop.call_soon_threadsafe(self._upload, Piece(0, positions, self._question))
            case RollBack(positions):
                self._rollback += 1
                self._loop.call_soon_threadsafe(self._roll_back, positions)
            case Ask():
                self._loop.call_soon_threadsafe(self._ask, event)

    def poll(self) -> CloudReply | None:
        while self._replies:
            rollback, reply = self._replies.popleft()
            if rollback == self._rollback:
                return reply
        return None

    def _send_hidden(self, upload: Upload) -> None:
        try:
            rows = self._packer.pack(upload.hidden)
        except MessageRefused as refusal:
            # Its own model has failed here, as an overflow does; it answers as well as it can.
            self._loop.call_soon_threadsafe(self._give_up, refusal.reason)
            return
        piece = Piece(upload.position, upload.position + len(rows), rows, upload.position_ids)
        self._loop.call_soon_threadsafe(self._upload, piece)

    # For the event loop

    async def reply(self) -> CloudReply | None:
        """None after the time limit, after the cloud has died, and where it cannot answer or nothing was asked."""
        # What the inference thread sent was handed to the loop before this was: it is known here by now.
        while True:
            if (reply := self.poll()) is not None:
                return reply
            if self._gone or self._closed or not any(asked.is_open for asked in self._asked):
                return None
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> ContextUse:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._changed.set()
        # Also to a cloud that was given up: it may be there all the same, and keep the context.
        self._post(topics.CONTEXT, CloseContext(session=self.name))
        self._tell_closed(self)
        return ContextUse(
            cloud=self._cloud,
            positions=self._positions,
            hidden_size=self._hidden_size,
            payload_bytes_up=self._payload_bytes,
            bytes_up=self._bytes_up,
            cloud_requests=self._requests,
            resent_positions=self._resent_positions,
            ended_alone=self._gone,
        )

    def cloud_is_gone(self) -> None:
        """Nothing more will come of this session; whoever waits hears it at once."""
        if not self._gone:
            self._history.note("cloud.gone", session=self.name)
        self._gone = True
        self._changed.set()

    def take_reply(self, reply: TokenReply) -> None:
        """Hand on what the decoding waits for, and count what nobody does."""
        self.energy_j += reply.energy_j
        asked = self._asked_for(reply)
        if asked is None or reply.rollback != self._context.rollback:
            self._counters["late_replies"] += 1
            return
        self._time(asked, reply)
        self._settle(asked, reply)
        said = CloudReply(reply.up_to, reply.tokens, reply.n_accepted, reply.confidences)
        self._replies.append((reply.rollback, said))
        self._changed.set()

    def take_nack(self, nack: Nack) -> None:
        """Send again what is missing, all of it where the session was forgotten, and give up on anything else."""
        self._counters[f"nack.{nack.reason}"] += 1
        if nack.rollback != self._context.rollback or self._gone:
            return
        if nack.reason == "missing":
            if self._is_another_loss(nack):
                self._send_again(nack.first, min(nack.end, self._context.positions))
                self._request_again()
        elif nack.reason == "unknown-session" and not self._was_renamed and self._rename():
            self._send_again(0, self._context.positions)
            self._request_again()
        elif any(asked.is_open for asked in self._asked) or nack.reason not in ("unknown-session", "too-late"):
            # Forgotten again under a new name, the fault is not the session's: the cloud no longer knows the lease.
            self.lease_is_void = nack.reason == "unknown-session"
            self._give_up(nack.reason)

    def _give_up(self, reason: str) -> None:
        self._counters[f"gave_up.{reason}"] += 1
        self.cloud_is_gone()

    def _rename(self) -> bool:
        """Once: a cloud that forgets an answer twice is no help to it."""
        self._was_renamed = True
        name = self._renamed(self)
        if name is not None:
            self.name = name
        return name is not None

    # Context

    def _upload(self, piece: Piece) -> None:
        if self._gone or self._closed:
            return
        if not self._takes_prompts and isinstance(piece.content, (Question, tuple)):
            self._give_up("unusable")
            return
        self._context.add(piece)
        self._positions += piece.end - piece.position
        self._payload_bytes += piece.payload_bytes
        self._send_positions(piece.position, piece.end)

    def _roll_back(self, positions: int) -> None:
        self._context.roll_back(positions)
        self._asked.clear()

    def _send_again(self, first: int, end: int) -> None:
        self._resent_positions += max(0, end - first)
        self._send_positions(first, end, again=True)

    def _send_positions(self, first: int, end: int, *, again: bool = False) -> None:
        if not self._sent_bytes:
            self._sending_since_s = time.monotonic()
        for message in self._context.messages(self.name, first, end, again=again):
            if self._history.is_on:
                self._note_sent(message)
            self._sent_bytes += self._post(topics.CONTEXT, message)

    def _note_sent(self, message: ContextMessage) -> None:
        """Before it leaves, so that nothing is ever computed on what no history tells of."""
        position, digests = digests_in(message, self._hidden_size, self._packer.channel_scales)
        self._history.note(
            "context.sent",
            session=self.name,
            rollback=message.rollback,
            kept=message.kept,
            position=position,
            digests=[each.hex() for each in digests],
        )

    def _is_another_loss(self, nack: Nack) -> bool:
        """Whether the same positions were not sent again a moment ago; several questions may tell of one loss."""
        *same, at_s = self._resent
        now_s = time.monotonic()
        is_new = same != [nack.rollback, nack.first, nack.end] or now_s - at_s > _SAME_LOSS_S
        if is_new:
            self._resent = (nack.rollback, nack.first, nack.end, now_s)
        return is_new

    # Questions

    def _ask(self, ask: Ask) -> None:
        if self._gone or self._closed:
            return
        now_s = time.monotonic()
        sending_since_s = self._sending_since_s if self._sent_bytes else now_s
        asked = _Asked(
            ask, now_s, self._silent_at_s(now_s), self._sent_bytes, sending_since_s, is_first=not self._requests
        )
        self._sent_bytes = 0
        if asked.until_s <= now_s:
            self._give_up("out-of-time")
            return
        for older in self._asked:
            if older.is_open and asked.covers(older):
                # The cloud may leave it unanswered; its silence counts from that question on, within reason.
                older.is_open = False
                asked.until_s = min(asked.until_s, max(older.until_s, (now_s + asked.until_s) / 2))
        self._asked.append(asked)
        self._requests += 1
        self._request(asked)
        self._watch()

    def _silent_at_s(self, now_s: float) -> float:
        """When the cloud counts as silent; half of what is left at most, for the edge must still end alone."""
        timeout_ms = self._settings.timeout_ms + self._meter.sending_ms(self._sent_bytes)
        return now_s + min(timeout_ms / 1000, (self._deadline_s - now_s) / 2)

    def _request(self, asked: _Asked) -> None:
        ask, sampling = asked.ask, self._question.sampling
        # A whole answer goes on for as long as it is of use.
        ends_s = self._deadline_s if ask.generate else asked.until_s
        remaining_ms = (ends_s - time.monotonic()) * 1000
        if remaining_ms <= 0:
            return
        request = InferRequest(
            session=self.name,
            rollback=self._context.rollback,
            up_to=ask.up_to + asked.received,
            remaining_ms=min(remaining_ms, 600_000.0),
            claimed=ask.claimed,
            generate=ask.generate - asked.received if ask.generate else 0,
            temperature=sampling.temperature if sampling is not None else 0.0,
            seed=sampling.seed if sampling is not None else 0,
        )
        self._history.note("token.wanted", session=self.name, rollback=request.rollback, up_to=request.up_to)
        self._post(topics.INFER, request)

    def _request_again(self) -> None:
        for asked in self._asked:
            if asked.is_open:
                self._request(asked)

    def _asked_for(self, reply: TokenReply) -> _Asked | None:
        """The question that a reply answers; None where it was answered before, or nobody asked."""
        for asked in self._asked:
            if asked.ask.generate:
                if asked.ask.up_to <= reply.up_to <= asked.ask.up_to + asked.received:
                    return asked
            elif asked.ask.up_to == reply.up_to and not asked.was_answered:
                return asked
        return None

    def _settle(self, asked: _Asked, reply: TokenReply) -> None:
        asked.was_answered = True
        if asked.ask.generate:
            asked.received = max(asked.received, reply.up_to - asked.ask.up_to + len(reply.tokens))
            asked.asked_s = time.monotonic()
            asked.until_s = self._silent_at_s(asked.asked_s)
            asked.was_repeated = False
            asked.is_open = asked.received < asked.ask.generate
        else:
            asked.is_open = False
        self._watch()

    def _time(self, asked: _Asked, reply: TokenReply) -> None:
        """Learn about the link from the first reply to a question that was sent once."""
        if asked.was_answered or asked.was_repeated:
            return
        timed = Timed(
            took_ms=(time.monotonic() - asked.asked_s) * 1000,
            queue_ms=reply.queue_ms,
            compute_ms=reply.compute_ms,
            sent_bytes=asked.sent_bytes,
            sending_ms=(asked.asked_s - asked.sending_since_s) * 1000,
            ran_more=asked.is_first or asked.ask.generate > 0,
        )
        self._meter.take(timed)

    # Silence

    def _watch(self) -> None:
        """See to it that `_look` comes when a question is to be repeated, or the cloud counts as silent."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        times = [self._due_s(asked) for asked in self._asked if asked.is_open]
        if times:
            self._timer = self._loop.call_later(max(0.0, min(times) - time.monotonic()), self._look)

    def _due_s(self, asked: _Asked) -> float:
        return asked.until_s if asked.was_repeated else (asked.asked_s + asked.until_s) / 2

    def _look(self) -> None:
        if self._gone or self._closed:
            return
        now_s = time.monotonic()
        for asked in self._asked:
            if not asked.is_open or now_s < self._due_s(asked):
                continue
            if asked.was_repeated:
                self._counters["timed_out"] += 1
                self.timed_out = True
                self._give_up("silent")
                return
            asked.was_repeated = True
            self._counters["repeated_requests"] += 1
            self._request(asked)
        self._watch()

    def _post(self, topic: topics.Topic, body: Message) -> int:
        """How many bytes went out."""
        try:
            sent_bytes = self._send(topic, body)
        except OutboxFull:
            # As good as lost: the question's time limit, or a Nack, will tell.
            self._counters["unsent"] += 1
            return 0
        self._bytes_up += sent_bytes
        return sent_bytes
