"""Decoding as a conversation: a mode says what it needs next, and whoever drives it provides that.

A decoding mode is a generator. It computes between two events and touches neither network nor clock, so the same
mode runs in a node, in a test and on a bench's virtual clock. Its events:

    Upload    hidden states are on their way to the cloud; the mode goes on at once
    Ask       the whole model's next token is wanted; the mode goes on at once
    Drafted   what the edge would answer by itself
    Spoke     a token was said: here the decoding may pause, or be closed for good
    Wait      nothing can be done before the cloud has answered the last Ask; sent back: CloudToken, or None where
              the cloud is silent
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """hidden: float16 [positions, hidden_size], the residual stream at the first exit, from `position` on."""

    position: int
    hidden: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Ask:
    """Which token follows the first `up_to` positions?"""

    up_to: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """tokens: of the whole answer as the edge would give it alone."""

    tokens: tuple[int, ...]
    made_by: tuple[str, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class Spoke:
    """One more token was said, and it is not the last."""


@dataclass(frozen=True, slots=True)
class Wait:
    """For the cloud."""


@dataclass(frozen=True, slots=True)
class CloudToken:
    """The cloud's reply. confidence: its softmax probability."""

    token: int
    confidence: float


Event: TypeAlias = Upload | Ask | Drafted | Spoke | Wait
T = TypeVar("T")
# What a mode is, and with another result whatever wraps one.
Steps: TypeAlias = Generator[Event, CloudToken | None, T]


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
    """When an answer is complete. thresholds: confidence at which each exit may speak, for modes that have exits."""

    max_tokens: int
    end_token: int
    thresholds: tuple[float, ...] = ()

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
