"""The parts of a model that a tier holds, with what it does of one answer in them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .choosing import choose
from .exits import Exits
from .prompt_encoder import PromptEncoder
from .prompt_layout import LaidOutPrompt
from .sampling import Sampling
from .speakers import Said
from .stages import Stage, StageSession


class EncodedPrompt:
    """A question as the decoder reads it; see `Prompt` in models/speakers.py.

    encode_ms: what encoding it took, once it was wanted.
    """

    def __init__(self, encoder: PromptEncoder, model_inputs: dict[str, Tensor]) -> None:
        self._encoder = encoder
        self._model_inputs = model_inputs
        self.positions: int = model_inputs["input_ids"].shape[1]
        self.encode_ms: float | None = None

    def inputs(self) -> Tensor | LaidOutPrompt:
        """The prompt's embeddings, [1, positions, hidden_size], and what else the decoder reads; encoded once."""
        return self._encoded

    @cached_property
    def _encoded(self) -> Tensor | LaidOutPrompt:
        started_s = time.perf_counter()
        encoded = self._encoder.encode(self._model_inputs)
        self.encode_ms = (time.perf_counter() - started_s) * 1000
        return encoded


@dataclass(frozen=True, eq=False)
class AfterFirst:
    """The residual stream at the first exit, float32 [1, positions, hidden_size]; see `Read` in models/speakers.py."""

    tensor: Tensor
    position_ids: NDArray[np.int64] | None = None

    @property
    def hidden(self) -> NDArray[np.float32]:
        return self.tensor[0].float().cpu().numpy()


@dataclass(frozen=True)
class EdgePartition:
    """Vision, embedding, and the layers up to the second exit."""

    encoder: PromptEncoder
    first: Stage
    second: Stage
    exits: Exits

    def session(self, sampling: Sampling | None = None) -> EdgeSession:
        return EdgeSession(self, sampling)

    def embed(self, token: int) -> Tensor:
        """One generated token's embedding: [1, 1, hidden_size]."""
        return self.encoder.embed(token)


class EdgeSession:
    """One sequence in an edge's two stages."""

    def __init__(self, edge: EdgePartition, sampling: Sampling | None = None) -> None:
        self._heads = edge.exits.heads
        self._sampling = sampling
        self._first, self._second = edge.first.session(), edge.second.session()
        self.positions = 0

    @torch.inference_mode()
    def read(self, inputs: Tensor | LaidOutPrompt) -> AfterFirst:
        """Run the inputs of the next positions, [1, positions, hidden_size], up to the first exit.

        They wait before the second stage until a token is wanted there: one that the first exit speaks costs the first
        stage only.
        """
        after_first, position_ids = _run_on(self._first, inputs)
        self._second.feed(after_first, position_ids)
        self.positions = self._first.positions
        return AfterFirst(after_first, None if position_ids is None else position_ids.numpy())

    @torch.inference_mode()
    def speak(self, read: AfterFirst, thresholds: tuple[float, ...]) -> Said:
        """The token after what was read last, by the first exit that is sure, or else by the deepest."""
        token, confidence = self._predict(0, read.tensor)
        if confidence >= thresholds[0]:
            return Said(token, "exit1", confidence, True)
        token, confidence = self._predict(1, self._second.catch_up())
        return Said(token, "exit2", confidence, confidence >= thresholds[1])

    def _predict(self, exit_index: int, hidden: Tensor) -> tuple[int, float]:
        return choose(self._heads[exit_index](hidden[:, -1]), self._sampling, self.positions)

    @torch.inference_mode()
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

    def session(self, sampling: Sampling | None = None) -> WholeSession:
        return WholeSession(self, sampling)

    def embed(self, token: int) -> Tensor:
        """One generated token's embedding: [1, 1, hidden_size]."""
        return self.encoder.embed(token)


class WholeSession:
    """One sequence through every layer."""

    def __init__(self, model: WholeModel, sampling: Sampling | None = None) -> None:
        self._head = model.head
        self._sampling = sampling
        self._first, self._rest = model.first.session(), model.rest.session()

    @torch.inference_mode()
    def say(self, inputs: Tensor | LaidOutPrompt) -> Said:
        """The token after the inputs of the next positions, [1, positions, hidden_size]."""
        self._rest.feed(*_run_on(self._first, inputs))
        # Only the last position is asked for a word; the head over the whole prompt would cost for nothing.
        logits = self._head(self._rest.catch_up()[:, -1])
        token, confidence = choose(logits, self._sampling, self._rest.positions)
        return Said(token, "full", confidence, True)


def _run_on(stage: StageSession, inputs: Tensor | LaidOutPrompt) -> tuple[Tensor, Tensor | None]:
    """Run the next positions at once: their residual stream, and their position ids where they have any."""
    start = stage.positions
    stage.feed(inputs)
    return stage.catch_up(), stage.position_ids(start, stage.positions)
