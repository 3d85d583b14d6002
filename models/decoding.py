"""Decoding as a conversation: a mode says what it needs next, and whoever drives it provides that.

A decoding mode is a generator. It computes between two events and touches neither network nor clock, so the same
mode runs in a node, in a test and on a bench's virtual clock. Its events:

    Upload        hidden states are on their way to the cloud; the mode goes on at once
    UploadTokens  token ids instead of hidden states: the cloud runs its own first layers over them
    UploadPrompt  the question itself instead of its hidden states: the cloud encodes it
    RollBack      the sequence is cut back; what is under way for the cut positions is void
    Ask           the whole model's tokens are wanted; the mode goes on at once
    Chose         which mode decodes this answer, from an answerer that picks one for each
    Drafted       what the edge would answer by itself
    Spoke         tokens were said for good: here the decoding may pause, or be closed for good
    Poll          has the cloud answered? sent back: a CloudReply if one has come, else None
    Wait          nothing can be done before the cloud has answered; sent back: the next CloudReply, or None where
                  the cloud is silent and will stay so
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .sampling import Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """hidden: float32 [positions, hidden_size], the residual stream at the first exit, from `position` on.

    Whoever sends it chooses the precision on the wire. It may share memory with the sequence: it is read only.
    position_ids: int64 [axes, positions], of models that count positions on several axes.
    """

    position: int
    hidden: NDArray[np.float32]
    position_ids: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class UploadTokens:
    """The tokens at the positions from `position` on. Only after UploadPrompt, and never mixed with Upload."""

    position: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UploadPrompt:
    """The question that the session was opened for, which takes the first so many positions."""

    positions: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """Of the sequence the first so many positions stand; no reply to an earlier Ask is wanted any more."""

    positions: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Which token follows the first `up_to` positions?

    claimed: (c1, ..., ck): the edge believes that ci follows the first up_to - k + i positions, so that ck is the
        token asked for. The reply has the whole model's tokens there, up to and including the first that differs.
    generate: when above 0: go on alone for up to so many tokens, or to the end of the answer.

    Of one sequence the newest Ask counts: a cloud may leave an older one unanswered once a newer one has come.
    """

    up_to: int
    claimed: tuple[int, ...] = ()
    generate: int = 0


@dataclass(frozen=True, slots=True)
class Chose:
    """mode: its name; modes themselves say nothing of it."""

    mode: str


@dataclass(frozen=True, slots=True)
class Drafted:
    """tokens: of the whole answer as the edge would give it alone."""

    tokens: tuple[int, ...]
    made_by: tuple[str, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class Spoke:
    """More tokens stand for good, and the answer's last one is not among them; none: only a place to pause."""

    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Poll:
    """Whether the cloud has answered."""


@dataclass(frozen=True, slots=True)
class Wait:
    """For the cloud."""


@dataclass(frozen=True, slots=True)
class CloudReply:
    """The cloud's answer to an Ask.

    up_to: the Ask's. A generating Ask may be answered in pieces; then it is the number of positions before the piece's
        first token.
    tokens: the token asked for; or those that were claimed, as far as they are right, and the right one where one is
        not; or those generated.
    n_accepted: how many claims were right, from the first on.
    confidences: the softmax probability of each token.
    """

    up_to: int
    tokens: tuple[int, ...]
    n_accepted: int = 0
    confidences: tuple[float, ...] = ()


# What a cloud hears of.
ToCloud: TypeAlias = Upload | UploadTokens | UploadPrompt | RollBack | Ask
Event: TypeAlias = ToCloud | Chose | Drafted | Spoke | Poll | Wait
T = TypeVar("T")
# What a mode is, and with another result whatever wraps one.
Steps: TypeAlias = Generator[Event, CloudReply | None, T]


@dataclass
class Generation:
    """Tokens as they come, each with who said it and how sure they were; the end token is one of them."""

    tokens: list[int] = field(default_factory=list)
    made_by: list[str] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)

    def add(self, token: int, speaker: str, confidence: float) -> None:
        self.tokens.append(token)
        self.made_by.append(speaker)
        self.confidences.append(confidence)

    def copy(self) -> Generation:
        return Generation(list(self.tokens), list(self.made_by), list(self.confidences))

    @property
    def mean_confidence(self) -> float:
        """Mean over the tokens; 0 where nothing was said."""
        return sum(self.confidences) / len(self.confidences) if self.confidences else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer is complete, and who may say what in it.

    thresholds: confidence at which each exit may speak, for modes that have exits. sampling: None: greedy.
    """

    max_tokens: int
    end_token: int
    thresholds: tuple[float, ...] = ()
    sampling: Sampling | None = None

    def reached(self, generation: Generation) -> bool:
        return generation.tokens[-1] == self.end_token or len(generation.tokens) >= self.max_tokens


def to_the_end(steps: Steps[T]) -> T:
    """Drive a mode that needs no cloud; one that asks for it hears that it is silent. Blocking."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: Any = end.value
        return result
