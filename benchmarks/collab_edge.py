"""An edge that replays a recording: the very modes run on it, and what a model would compute costs virtual time.

The residual stream that it hands out holds nothing but the tokens which stand at its positions. That is what a cloud
on the same clock needs to know: which sequence has come up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ..bus.tensors import TensorType
from ..models.sampling import Sampling
from ..models.speakers import Said
from .collab_clock import Clock
from .collab_profiles import Profile

# Stands where the positions of a prompt have no token.
PROMPT = -1

# A session reads the prompt, or a token.
Piece = int | None

Tokens = tuple[int, ...]


class Vote(Struct, frozen=True, array_like=True):
    """margin: how far the second most likely token's logit lies behind, so that rounding can be told from error."""

    token: int
    confidence: float
    margin: float


class Recording(Protocol):
    """One question, and what would be said after any tokens of its answer.

    positions: of the prompt in the sequence; prompt_bytes: of its images and words on the wire.
    """

    @property
    def positions(self) -> int: ...

    @property
    def prompt_bytes(self) -> int: ...

    @property
    def end_token(self) -> int: ...

    def at_exits(self, tokens: Tokens, /) -> tuple[Vote, Vote]:
        """By the edge's first exit and by its second."""
        ...

    def at_end(self, tokens: Tokens, context: TensorType = "float32", /) -> Vote:
        """By the whole model. context: the precision in which the hidden states went up."""
        ...


def whole_answer(recording: Recording, *, max_tokens: int) -> Tokens:
    """The whole model's greedy answer, its end token included."""
    tokens: Tokens = ()
    while len(tokens) < max_tokens and (not tokens or tokens[-1] != recording.end_token):
        tokens += (recording.at_end(tokens).token,)
    return tokens


@dataclass(frozen=True)
class TracedRead:
    """tokens: at the positions that were read."""

    tokens: Tokens
    position_ids: None = None

    @property
    def hidden(self) -> NDArray[np.float32]:
        """[positions, 1]: each row is its token. How wide a real one would be, whoever counts bytes knows."""
        return np.array(self.tokens, dtype=np.float32)[:, None]


def tokens_of(hidden: NDArray[np.float32]) -> list[int]:
    """What `TracedRead.hidden` was made of."""
    return hidden[:, 0].astype(np.int64).tolist()


class TracedPrompt:
    """A question; encoding it costs time once, and only where somebody asks for it."""

    def __init__(self, recording: Recording, profile: Profile, clock: Clock) -> None:
        self.positions = recording.positions
        self.encode_ms = profile.prompt.of(recording.positions)
        self._clock = clock

    def inputs(self) -> Piece:
        return self._encoded

    @cached_property
    def _encoded(self) -> Piece:
        self._clock.spend("prompt", self.encode_ms, self.positions)
        return None


@dataclass(frozen=True)
class TracedEdge:
    """The edge's half of a model at one question."""

    recording: Recording
    profile: Profile
    clock: Clock

    def session(self, sampling: Sampling | None = None, /) -> TracedSession:
        if sampling is not None:
            raise ValueError("traces are greedy: a sampled answer needs the model itself")
        return TracedSession(self)

    def embed(self, token: int, /) -> Piece:
        return token


class TracedSession:
    """One sequence. As in a real one, what the first exit says leaves its position waiting before the second stage."""

    def __init__(self, edge: TracedEdge) -> None:
        self.positions = 0
        self._edge = edge
        self._tokens: list[int] = []
        self._run_deep = 0

    def read(self, inputs: Piece, /) -> TracedRead:
        edge = self._edge
        tokens = (PROMPT,) * edge.recording.positions if inputs is None else (inputs,)
        self._tokens.extend(tokens)
        self.positions = len(self._tokens)
        edge.clock.spend("first", edge.profile.first.of(len(tokens)), len(tokens))
        return TracedRead(tokens)

    def speak(self, read: TracedRead, thresholds: tuple[float, ...], /) -> Said:
        del read  # the sequence knows where it stands
        edge = self._edge
        first, second = edge.recording.at_exits(tuple(self._tokens[edge.recording.positions :]))
        if first.confidence >= thresholds[0]:
            return Said(first.token, "exit1", first.confidence, True)
        waiting = self.positions - self._run_deep
        edge.clock.spend("second", edge.profile.second.of(waiting), waiting)
        self._run_deep = self.positions
        return Said(second.token, "exit2", second.confidence, second.confidence >= thresholds[1])

    def roll_back(self, positions: int, /) -> None:
        del self._tokens[positions:]
        self.positions = positions
        self._run_deep = min(self._run_deep, positions)
