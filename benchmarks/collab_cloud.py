"""A cloud that serves one answer on a virtual clock, as the real one does (cloud_node/collaboration.py).

It computes one batch at a time, over everything that has arrived when it begins, and answers with it every question
that was waiting. A question whose token a newer one claims is forgotten for that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..bus.tensors import TensorType
from ..models.decoding import Ask, CloudReply, RollBack, ToCloud, Upload, UploadPrompt, UploadTokens
from .collab_clock import Span
from .collab_edge import PROMPT, Recording, Tokens, tokens_of
from .collab_profiles import Profile

# What a position came up as: it decides which layers have to run over it.
_Kind = Literal["hidden", "token", "prompt"]


@dataclass(frozen=True, slots=True)
class _Message:
    at_ms: float
    event: ToCloud


@dataclass(frozen=True, slots=True)
class _Question:
    """number: counted from 0 over all questions of the session."""

    number: int
    ask: Ask
    at_ms: float

    def covers(self, older: _Question) -> bool:
        """Whether its answer tells the older one's as well."""
        return self.ask.up_to - len(self.ask.claimed) < older.ask.up_to <= self.ask.up_to


@dataclass(frozen=True, slots=True)
class Sent:
    """A reply on its way, and when it arrives.

    number: of the Ask that it answers, counted from 0. queue_ms, compute_ms: of that at the cloud.
    """

    at_ms: float
    number: int
    reply: CloudReply
    queue_ms: float
    compute_ms: float


class VirtualCloud:
    """The cloud's side of one session.

    context: the precision in which hidden states arrive. down: when a reply that leaves at some millisecond arrives.
    """

    def __init__(
        self, recording: Recording, profile: Profile, context: TensorType, down: Callable[[float], float]
    ) -> None:
        self.spans: list[Span] = []
        self._recording = recording
        self._profile = profile
        self._context: TensorType = context
        self._down = down
        self._inbox: deque[_Message] = deque()
        self._replies: deque[Sent] = deque()
        self._free_at_ms = 0.0
        # Those that were not taken up yet, the oldest first.
        self._questions: list[_Question] = []
        self._asked = 0
        # By position: what came up, and how many of the first ones are in the cache.
        self._tokens: list[int] = []
        self._kinds: list[_Kind] = []
        self._run = 0

    def send(self, at_ms: float, event: ToCloud) -> None:
        """Something arrives at that time, which is never before what was sent last."""
        self._inbox.append(_Message(at_ms, event))

    def replies_by(self, now_ms: float) -> Sent | None:
        """The next reply, if it has reached the edge by now. Nothing more was sent up to now."""
        while self._work(until_ms=now_ms):
            pass
        if self._replies and self._replies[0].at_ms <= now_ms:
            return self._replies.popleft()
        return None

    def next_reply(self) -> Sent | None:
        """The next reply, whenever it comes, where nothing more is sent before; None where none will come."""
        while not self._replies:
            if not self._work(until_ms=math.inf):
                return None
        return self._replies.popleft()

    def _work(self, until_ms: float) -> bool:
        """Compute one batch if it begins by then; whether one was. What begins later might still meet a message."""
        while not self._questions:
            if not self._inbox or self._inbox[0].at_ms > until_ms:
                return False
            self._take(self._inbox.popleft())
        begin_ms = max(self._free_at_ms, self._questions[0].at_ms)
        if begin_ms > until_ms:
            return False
        while self._inbox and self._inbox[0].at_ms <= begin_ms:
            self._take(self._inbox.popleft())
        questions, self._questions = self._questions, []
        if questions:  # else a roll-back has come before the cloud was free
            self._compute(questions, begin_ms)
        return True

    def _compute(self, questions: list[_Question], begin_ms: float) -> None:
        up_to = max(question.ask.up_to for question in questions)
        positions = up_to - self._run
        end_ms = begin_ms + self._cost_ms(up_to)
        for question in questions:
            if question.ask.generate:
                reply = self._generate(question.ask)
                end_ms += self._profile.whole.of(1) * (len(reply.tokens) - 1)
            else:
                reply = self._verify(question.ask)
            arrives_ms, queue_ms = self._down(end_ms), begin_ms - question.at_ms
            self._replies.append(Sent(arrives_ms, question.number, reply, queue_ms, end_ms - begin_ms))
            self.spans.append(Span("downlink", "reply", end_ms, arrives_ms))
        self._free_at_ms = end_ms
        self.spans.append(Span("cloud", "batch", begin_ms, end_ms, positions))

    def _take(self, message: _Message) -> None:
        match message.event:
            case Upload(position, hidden):
                self._put(position, tokens_of(hidden), "hidden")
            case UploadTokens(position, tokens):
                self._put(position, list(tokens), "token")
            case UploadPrompt(positions):
                self._put(0, [PROMPT] * positions, "prompt")
            case RollBack(positions):
                del self._tokens[positions:]
                del self._kinds[positions:]
                self._run = min(self._run, positions)
                self._questions.clear()
            case Ask() as ask:
                question = _Question(self._asked, ask, message.at_ms)
                self._questions = [older for older in self._questions if not question.covers(older)] + [question]
                self._asked += 1

    def _put(self, position: int, tokens: list[int], kind: _Kind) -> None:
        # Position by position and in order is all that a link without losses brings; a baseline may repeat itself.
        if position > len(self._tokens):
            raise ValueError(f"positions {len(self._tokens)} to {position} never went up")
        self._tokens[position : position + len(tokens)] = tokens
        kinds: list[_Kind] = [kind] * len(tokens)
        self._kinds[position : position + len(tokens)] = kinds
        self._run = min(self._run, position)

    def _cost_ms(self, up_to: int) -> float:
        """Of the batch that catches up with so many positions; it leaves them run."""
        if up_to > len(self._tokens):
            raise ValueError(f"asked about {up_to} positions, and {len(self._tokens)} went up")
        new = self._kinds[self._run : up_to]
        self._run = max(self._run, up_to)
        only_hidden = new.count("hidden") == len(new)
        layers = self._profile.rest if only_hidden else self._profile.whole
        return layers.of(len(new)) + self._profile.prompt.of(new.count("prompt"))

    def _verify(self, ask: Ask) -> CloudReply:
        tokens: list[int] = []
        confidences: list[float] = []
        claims = len(ask.claimed)
        for index in range(max(1, claims)):
            vote = self._recording.at_end(self._answer_before(ask.up_to - max(0, claims - 1) + index), self._context)
            tokens.append(vote.token)
            confidences.append(vote.confidence)
            if index < claims and vote.token != ask.claimed[index]:
                return CloudReply(ask.up_to, tuple(tokens), index, tuple(confidences))
        return CloudReply(ask.up_to, tuple(tokens), claims, tuple(confidences))

    def _generate(self, ask: Ask) -> CloudReply:
        tokens = self._answer_before(ask.up_to)
        begun, confidences = len(tokens), []
        while len(tokens) - begun < ask.generate and (not confidences or tokens[-1] != self._recording.end_token):
            vote = self._recording.at_end(tokens, self._context)
            tokens += (vote.token,)
            confidences.append(vote.confidence)
        return CloudReply(ask.up_to, tokens[begun:], 0, tuple(confidences))

    def _answer_before(self, up_to: int) -> Tokens:
        return tuple(self._tokens[self._recording.positions : up_to])
