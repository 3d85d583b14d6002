"""What an edge measures of its own answers: how long its layers take, and how often its early exits are sure and right.

A watched answer is decoded by the very same mode, on an edge and through events that are looked at in passing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .decoding import Ask, CloudReply, Generation, Steps
from .mode_choice import Habits
from .sampling import Sampling
from .speakers import Edge, EdgeSession, Inputs, Prompt, Said

T = TypeVar("T")

_SMOOTHING = 0.2
# A share remembers about so many tokens; what was expected before counts as some of them.
_TOKENS_REMEMBERED = 400.0
_TOKENS_EXPECTED = 40.0


class Smoothed:
    """A mean of which the older values fade; None before the first."""

    def __init__(self) -> None:
        self.value: float | None = None

    def observe(self, value: float) -> None:
        self.value = value if self.value is None else self.value + _SMOOTHING * (value - self.value)


class Share:
    """How often something is so, of which the older cases fade. prior: what is expected of it beforehand."""

    def __init__(self, prior: float) -> None:
        self._yes, self._cases = prior * _TOKENS_EXPECTED, _TOKENS_EXPECTED

    @property
    def value(self) -> float:
        return self._yes / self._cases

    def observe(self, *, so: bool) -> None:
        fade = 1 - 1 / _TOKENS_REMEMBERED
        self._yes, self._cases = self._yes * fade + so, self._cases * fade + 1


_BEFOREHAND = Habits()


@dataclass
class Measurements:
    """Over the answers so far. encode_ms: of a prompt; prompt_ms: to read it and say the first token; exit1_ms and
    exit2_ms: for each later token, by the exit that said it. Milliseconds of the wall clock."""

    encode_ms: Smoothed = field(default_factory=Smoothed)
    prompt_ms: Smoothed = field(default_factory=Smoothed)
    exit1_ms: Smoothed = field(default_factory=Smoothed)
    exit2_ms: Smoothed = field(default_factory=Smoothed)
    tokens: Smoothed = field(default_factory=Smoothed)
    exit1_share: Share = field(default_factory=lambda: Share(_BEFOREHAND.exit1_share))
    unsure_share: Share = field(default_factory=lambda: Share(_BEFOREHAND.unsure_share))
    unsure_agreement: Share = field(default_factory=lambda: Share(_BEFOREHAND.unsure_agreement))
    sure_agreement: Share = field(default_factory=lambda: Share(_BEFOREHAND.sure_agreement))
    # Seconds; a bench has a clock of its own.
    now_s: Callable[[], float] = time.perf_counter

    @property
    def habits(self) -> Habits:
        return Habits(
            tokens=_BEFOREHAND.tokens if self.tokens.value is None else self.tokens.value,
            exit1_share=self.exit1_share.value,
            unsure_share=self.unsure_share.value,
            unsure_agreement=self.unsure_agreement.value,
            sure_agreement=self.sure_agreement.value,
        )

    def watch(
        self, edge: Edge[Inputs], prompt: Prompt[Inputs], decode: Callable[[Edge[Inputs]], Steps[Generation]]
    ) -> Steps[Generation]:
        """Decode an answer and learn from it."""
        watch = _Watch(self)
        generation = yield from watch.events(decode(_WatchedEdge(edge, watch)))
        self.tokens.observe(len(generation.tokens))
        encode_ms: float | None = getattr(prompt, "encode_ms", None)
        if encode_ms is not None:
            self.encode_ms.observe(encode_ms)
        return generation


class _Watch:
    """One answer."""

    def __init__(self, measurements: Measurements) -> None:
        self.now_s = measurements.now_s
        self._measurements = measurements
        # By how many positions were read when a token was said there: whether its exit was sure.
        self._sure: dict[int, bool] = {}
        self._claims: dict[int, tuple[int, ...]] = {}
        self._judged_up_to = 0

    def said(self, said: Said, positions: int, took_ms: float, *, is_first: bool) -> None:
        measurements = self._measurements
        if is_first:
            measurements.prompt_ms.observe(took_ms)
        else:
            (measurements.exit1_ms if said.speaker == "exit1" else measurements.exit2_ms).observe(took_ms)
        self._sure[positions] = said.sure
        measurements.exit1_share.observe(so=said.speaker == "exit1")
        measurements.unsure_share.observe(so=not said.sure)

    def events(self, steps: Steps[T]) -> Steps[T]:
        reply: CloudReply | None = None
        while True:
            try:
                event = steps.send(reply)
            except StopIteration as end:
                return end.value
            if isinstance(event, Ask):
                self._claims[event.up_to] = event.claimed
            reply = yield event
            if reply is not None:
                self._judge(reply)

    def _judge(self, reply: CloudReply) -> None:
        """Each position counts once: what was claimed again is told again."""
        claims = self._claims.pop(reply.up_to, ())
        first = reply.up_to - len(claims) + 1
        for index in range(min(len(claims), len(reply.tokens))):
            sure = self._sure.get(first + index)
            if sure is not None and first + index > self._judged_up_to:
                share = self._measurements.sure_agreement if sure else self._measurements.unsure_agreement
                share.observe(so=index < reply.n_accepted)
                self._judged_up_to = first + index


class _WatchedEdge(Generic[Inputs]):
    def __init__(self, edge: Edge[Inputs], watch: _Watch) -> None:
        self._edge = edge
        self._watch = watch

    def session(self, sampling: Sampling | None = None, /) -> _WatchedSession[Inputs]:
        return _WatchedSession(self._edge.session(sampling), self._watch)

    def embed(self, token: int, /) -> Inputs:
        return self._edge.embed(token)


class _WatchedSession(Generic[Inputs]):
    def __init__(self, session: EdgeSession[Inputs], watch: _Watch) -> None:
        self.positions = 0
        self._session = session
        self._watch = watch
        self._is_first = True
        self._reading_ms = 0.0

    def read(self, inputs: Inputs, /) -> Any:
        started_s = self._watch.now_s()
        read = self._session.read(inputs)
        self._reading_ms = (self._watch.now_s() - started_s) * 1000
        self.positions = self._session.positions
        return read

    def speak(self, read: Any, thresholds: tuple[float, ...], /) -> Said:
        started_s = self._watch.now_s()
        said = self._session.speak(read, thresholds)
        took_ms = self._reading_ms + (self._watch.now_s() - started_s) * 1000
        self._watch.said(said, self.positions, took_ms, is_first=self._is_first)
        self._is_first = False
        return said

    def roll_back(self, positions: int, /) -> None:
        self._session.roll_back(positions)
        self.positions = self._session.positions
