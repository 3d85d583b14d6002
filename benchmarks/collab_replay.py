"""One answer on the virtual clock: a mode's steps, driven against a link and a cloud that take virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..bus.tensors import TensorType
from ..edge_node.link_meter import Timed
from ..models.context_codec import bytes_per_position
from ..models.decoding import (
    Ask,
    CloudReply,
    Generation,
    Poll,
    RollBack,
    Spoke,
    Steps,
    ToCloud,
    Upload,
    UploadPrompt,
    UploadTokens,
    Wait,
)
from .collab_clock import Clock, Span, VirtualLink
from .collab_cloud import Sent, VirtualCloud
from .collab_edge import Recording
from .collab_profiles import Profile

_BYTES_PER_TOKEN = 4
# Around each message: MQTT's header and topic, envelope, session and field names; as the codec makes them today.
_FRAMING_BYTES = 200


@dataclass(frozen=True, slots=True)
class Replayed:
    """What an answer took.

    edge_ms, cloud_ms: of computing, also what was in vain; link_ms: the edge's waiting, less the cloud's computing in
    that time. first_token_ms: until a token stood for good. bytes_up: without framing; positions_up: as hidden states,
    repetitions counted.
    """

    generation: Generation
    total_ms: float
    first_token_ms: float
    edge_ms: float
    cloud_ms: float
    link_ms: float
    bytes_up: int
    positions_up: int
    cloud_requests: int
    spans: tuple[Span, ...]


class Replay:
    """An answer in the making. clock: the edge's, which the steps' own edge spends on.

    context: precision of the hidden states that go up, and of the agreement that is told: float32 stands in
        for the 16-bit ones, whose rounding is counted apart. on_timed: is told of every reply that is read.
    """

    def __init__(
        self,
        recording: Recording,
        profile: Profile,
        link: VirtualLink,
        clock: Clock,
        *,
        context: TensorType = "float16",
        on_timed: Callable[[Timed], None] = lambda timed: None,
    ) -> None:
        self._recording = recording
        self._clock = clock
        self._link = link
        self._context: TensorType = context
        self._hidden_size, self._message_ms = profile.hidden_size, profile.message_ms
        self._cloud = VirtualCloud(
            recording,
            profile,
            "int8" if context == "int8" else "float32",
            lambda at_ms: link.down(at_ms, _FRAMING_BYTES),
        )
        self._on_timed = on_timed
        self._bytes_up = self._positions_up = self._requests = 0
        # Of context since the last question; and of each question when it was asked and what had gone up for it.
        self._unasked_bytes = 0
        self._sending_since_ms = 0.0
        self._asked: list[tuple[float, int, float, bool]] = []
        # A roll-back is told with whatever is sent next; replies to questions before it are void.
        self._cut: RollBack | None = None
        self._void_before = 0
        self._first_token_ms: float | None = None
        self._waits: list[tuple[float, float]] = []

    def run(self, steps: Steps[Generation]) -> Replayed:
        reply: CloudReply | None = None
        try:
            while True:
                event = steps.send(reply)
                reply = None
                match event:
                    case Upload() | UploadTokens() | UploadPrompt() | Ask():
                        self._send(event)
                    case RollBack():
                        kept = event.positions if self._cut is None else min(event.positions, self._cut.positions)
                        self._cut, self._void_before = RollBack(kept), self._requests
                    case Poll():
                        reply = self._poll()
                    case Wait():
                        reply = self._wait()
                    case Spoke(tokens) if tokens and self._first_token_ms is None:
                        self._first_token_ms = self._clock.now_ms
                    case _:
                        pass
        except StopIteration as end:
            return self._measured(end.value)

    def _send(self, event: ToCloud) -> None:
        self._handle_message()
        if self._cut is not None:
            self._cloud.send(self._put_on_link("cut", 0, 0), self._cut)
            self._cut = None
        match event:
            case Upload(_, hidden):
                size_bytes = len(hidden) * bytes_per_position(self._context, self._hidden_size)
                positions = len(hidden)
                self._positions_up += positions
            case UploadTokens(_, tokens):
                positions, size_bytes = len(tokens), len(tokens) * _BYTES_PER_TOKEN
            case UploadPrompt(positions):
                size_bytes = self._recording.prompt_bytes
            case Ask():
                positions = size_bytes = 0
                self._requests += 1
                self._note_question(event)
            case RollBack():
                raise ValueError("a roll-back goes up with what follows it")
        if size_bytes and not self._unasked_bytes:
            self._sending_since_ms = self._clock.now_ms
        self._unasked_bytes += size_bytes
        self._bytes_up += size_bytes
        name = type(event).__name__
        self._cloud.send(self._put_on_link(name, size_bytes + _FRAMING_BYTES, positions), event)

    def _note_question(self, ask: Ask) -> None:
        sending_ms = self._clock.now_ms - self._sending_since_ms if self._unasked_bytes else 0.0
        is_first = not self._asked
        self._asked.append((self._clock.now_ms, self._unasked_bytes, sending_ms, is_first or ask.generate > 0))
        self._unasked_bytes = 0

    def _read(self, sent: Sent) -> CloudReply:
        self._handle_message()
        asked_ms, sent_bytes, sending_ms, ran_more = self._asked[sent.number]
        self._on_timed(Timed(sent.at_ms - asked_ms, sent.queue_ms, sent.compute_ms, sent_bytes, sending_ms, ran_more))
        return sent.reply

    def _handle_message(self) -> None:
        if self._message_ms:
            self._clock.spend("message", self._message_ms)

    def _put_on_link(self, name: str, size_bytes: int, positions: int) -> float:
        sent_ms = self._clock.now_ms
        arrives_ms = self._link.up(sent_ms, size_bytes)
        self._clock.spans.append(Span("uplink", name, sent_ms, arrives_ms, positions))
        return arrives_ms

    def _poll(self) -> CloudReply | None:
        while (sent := self._cloud.replies_by(self._clock.now_ms)) is not None:
            if sent.number >= self._void_before:
                return self._read(sent)
        return None

    def _wait(self) -> CloudReply | None:
        began_ms = self._clock.now_ms
        sent = self._next_valid()
        if sent is None:
            return None
        self._clock.now_ms = max(began_ms, sent.at_ms)
        self._waits.append((began_ms, self._clock.now_ms))
        return self._read(sent)

    def _next_valid(self) -> Sent | None:
        while (sent := self._cloud.next_reply()) is not None and sent.number < self._void_before:
            pass
        return sent

    def _measured(self, generation: Generation) -> Replayed:
        # What the cloud has not heard of yet, it need not compute any more: the session is closed.
        elsewhere = [span for span in self._cloud.spans if span.begin_ms <= self._clock.now_ms]
        computed = [span for span in elsewhere if span.place == "cloud"]
        spans = sorted([*self._clock.spans, *elsewhere], key=lambda span: span.begin_ms)
        waited_ms = sum(end - begin for begin, end in self._waits)
        total_ms = self._clock.now_ms
        return Replayed(
            generation=generation,
            total_ms=total_ms,
            first_token_ms=total_ms if self._first_token_ms is None else self._first_token_ms,
            edge_ms=_sum_ms(span for span in self._clock.spans if span.place == "edge"),
            cloud_ms=_sum_ms(computed),
            link_ms=waited_ms - _overlap_ms(computed, self._waits),
            bytes_up=self._bytes_up,
            positions_up=self._positions_up,
            cloud_requests=self._requests,
            spans=tuple(spans),
        )


def _sum_ms(spans: Iterable[Span]) -> float:
    return sum(span.length_ms for span in spans)


def _overlap_ms(spans: Sequence[Span], waits: Sequence[tuple[float, float]]) -> float:
    """How much of the waiting a place spent in spans; both are in the order of time, and none overlaps its like."""
    overlap_ms, at = 0.0, 0
    for begin_ms, end_ms in waits:
        while at < len(spans) and spans[at].end_ms <= begin_ms:
            at += 1
        for span in spans[at:]:
            if span.begin_ms >= end_ms:
                break
            overlap_ms += min(span.end_ms, end_ms) - max(span.begin_ms, begin_ms)
    return overlap_ms
