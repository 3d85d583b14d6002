"""The parts of a model that a tier holds, with what it does of one answer in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .exits import Exits, most_likely
from .prompt_encoder import PromptEncoder
from .stages import Stage


@dataclass(frozen=True, slots=True)
class Said:
    """One token. speaker: "exit1", "exit2" or "full"; sure: whether its confidence reached the speaker's threshold."""

    token: int
    speaker: str
    confidence: float
    sure: bool


@dataclass(frozen=True)
class EdgePartition:
    """Vision, embedding, and the layers up to the second exit."""

    encoder: PromptEncoder
    first: Stage
    second: Stage
    exits: Exits

    def session(self) -> EdgeSession:
        return EdgeSession(self)


class EdgeSession:
    """One sequence in an edge's two stages."""

    def __init__(self, edge: EdgePartition) -> None:
        self._exits = edge.exits
        self._first, self._second = edge.first.session(), edge.second.session()
        self.positions = 0

    def read(self, hidden: Tensor) -> Tensor:
        """Run the inputs of the next positions up to the first exit: [1, positions, hidden_size] in and out.

        They wait before the second stage until a token is wanted there: one that the first exit speaks costs the first
        stage only.
        """
        self._first.feed(hidden)
        after_first = self._first.catch_up()
        self._second.feed(after_first)
        self.positions += hidden.shape[1]
        return after_first

    def speak(self, after_first: Tensor, thresholds: tuple[float, ...]) -> Said:
        """The token after what was read last, by the first exit that is sure, or else by the deepest."""
        token, confidence = self._exits.predict(0, after_first)
        if confidence >= thresholds[0]:
            return Said(token, "exit1", confidence, True)
        token, confidence = self._exits.predict(1, self._second.catch_up())
        return Said(token, "exit2", confidence, confidence >= thresholds[1])

    def roll_back(self, positions: int) -> None:
        """Forget all but the first so many positions."""
        self._first.roll_back(positions)
        self._second.roll_back(positions)
        self.positions = positions


@dataclass(frozen=True)
class WholeModel:
    """Everything. The decoder is cut as it is for the cloud's half of a collaboration, so that both share weights."""

    encoder: PromptEncoder
    first: Stage
    rest: Stage
    head: nn.Module

    def session(self) -> WholeSession:
        return WholeSession(self)

    def embed(self, token: int) -> Tensor:
        """One generated token's embedding: [1, 1, hidden_size]."""
        return self.encoder.embed(token)


class WholeSession:
    """One sequence through every layer."""

    def __init__(self, model: WholeModel) -> None:
        self._head = model.head
        self._first, self._rest = model.first.session(), model.rest.session()

    @torch.inference_mode()
    def say(self, hidden: Tensor) -> Said:
        """The token after the inputs of the next positions, [1, positions, hidden_size]."""
        self._first.feed(hidden)
        self._rest.feed(self._first.catch_up())
        # Only the last position is asked for a word; the head over the whole prompt would cost for nothing.
        token, confidence = most_likely(self._head(self._rest.catch_up()[:, -1]))
        return Said(token, "full", confidence, True)
