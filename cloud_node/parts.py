"""The parts of a model with which a cloud continues what edges began, and how they run for several contexts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..bus.errors import SplitError
from ..models.batched_stages import catch_up_together
from ..models.choosing import choose
from ..models.prompt_layout import LaidOutPrompt
from ..models.questions import Question
from ..models.sampling import Sampling
from ..models.stages import Stage, StageSession


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """What it takes to begin a sequence oneself.

    first: the layers before the cut. encode: a question's embeddings, [1, positions, hidden_size]; raises
    MessageRefused for one that cannot be read. embed: one token's, [1, 1, hidden_size].
    """

    first: Stage
    encode: Callable[[Question], Tensor | LaidOutPrompt]
    embed: Callable[[int], Tensor]
    end_token: int


@dataclass(frozen=True, eq=False)
class CloudParts:
    """rest, head: the layers behind the cut, and what makes logits of the last one's residual stream.

    beginning: None where only hidden states can be continued.
    """

    rest: Stage
    head: nn.Module
    beginning: Beginning | None = None

    @cached_property
    @torch.inference_mode()
    def vocabulary(self) -> int:
        return self.head(torch.zeros(1, self.rest.hidden_size)).shape[-1]

    @cached_property
    def position_axes(self) -> int:
        return self.rest.position_axes

    @cached_property
    def rest_bytes_per_position(self) -> int:
        """What a position takes in the cache behind the cut."""
        return _bytes_per_position(self.rest)

    @cached_property
    def first_bytes_per_position(self) -> int:
        """What a position takes in the cache before the cut."""
        return _bytes_per_position(self.beginning.first) if self.beginning is not None else 0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one context has to compute: all of it that the inference thread touches.

    rest: its session behind the cut, of whose cache the first `keep` positions still hold; first: that before the cut
        and `keep_first`, None where only hidden states are to be run.
    prompt, tokens: what is to be run before the cut, in this order.
    hidden: float32 [positions, hidden_size], what comes behind those or instead of them; position_ids: of these
        positions on each axis, int64 [axes, positions], where they have any.
    wanted: after how many positions each a token is wanted, all of them behind `keep`.
    """

    rest: StageSession
    keep: int
    wanted: tuple[int, ...]
    hidden: NDArray[np.float32] | None = None
    position_ids: NDArray[np.int64] | None = None
    first: StageSession | None = None
    keep_first: int = 0
    prompt: Tensor | LaidOutPrompt | None = None
    tokens: tuple[int, ...] = ()
    sampling: Sampling | None = None

    @property
    def begins(self) -> bool:
        """Whether anything is to be run before the cut."""
        return self.prompt is not None or bool(self.tokens)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The whole model's token. margin: by how much its logit is above the next best one's."""

    token: int
    confidence: float
    margin: float


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """by_batch: the tokens wanted of each; None where its numbers overflowed or its cache could not be rolled back.

    alone: contexts that could not share a pass with others.
    """

    by_batch: list[tuple[Chosen, ...] | None]
    alone: int


@torch.inference_mode()
def run_together(batches: Sequence[Batch], parts: CloudParts) -> Ran:
    """Run batches of different contexts, in as few passes as can be."""
    sound = [batch for batch in batches if _roll_back(batch)]
    beginning = [batch for batch in sound if batch.begins]
    alone = _run_first(beginning, parts)
    for batch in sound:
        if batch.hidden is not None:
            ids = None if batch.position_ids is None else torch.from_numpy(batch.position_ids)
            # A copy: what is fed may be overwritten, and is read after the rows were zeroed.
            batch.rest.feed(torch.from_numpy(batch.hidden.copy())[None], ids)
            batch.hidden.fill(0)
    if not sound:
        return Ran([None] * len(batches), alone)
    caught = catch_up_together([batch.rest for batch in sound])
    chosen = _choose(sound, caught.outputs, parts.head)
    return Ran([chosen.get(id(batch)) for batch in batches], alone + caught.alone)


def _run_first(batches: list[Batch], parts: CloudParts) -> int:
    """Run what comes before the cut and hand it on; how many contexts could not share."""
    if not batches:
        return 0
    beginning = parts.beginning
    assert beginning is not None, "only who can begin a sequence is given tokens"
    starts: list[int] = []
    sessions: list[StageSession] = []
    for batch in batches:
        assert batch.first is not None
        starts.append(batch.first.positions)
        sessions.append(batch.first)
        if batch.prompt is not None:
            batch.first.feed(batch.prompt)
        for token in batch.tokens:
            batch.first.feed(beginning.embed(token))
    caught = catch_up_together(sessions)
    for batch, session, start, output in zip(batches, sessions, starts, caught.outputs, strict=True):
        batch.rest.feed(output, session.position_ids(start, session.positions))
    return caught.alone


def _choose(batches: list[Batch], outputs: list[Tensor], head: nn.Module) -> dict[int, tuple[Chosen, ...]]:
    """By the batch's id. The head runs where a token is wanted only: over a whole prompt it would cost for nothing."""
    rows = [
        output[0, [up_to - 1 - batch.keep for up_to in batch.wanted]]
        for batch, output in zip(batches, outputs, strict=True)
    ]
    logits = head(torch.cat(rows)).float().split([len(batch.wanted) for batch in batches])
    chosen: dict[int, tuple[Chosen, ...]] = {}
    for batch, own in zip(batches, logits, strict=True):
        if bool(torch.isfinite(own).all()):
            pairs = zip(own, batch.wanted, strict=True)
            chosen[id(batch)] = tuple(_chosen(row[None], batch.sampling, up_to) for row, up_to in pairs)
    return chosen


def _chosen(logits: Tensor, sampling: Sampling | None, up_to: int) -> Chosen:
    """From logits [1, vocabulary]."""
    token, confidence = choose(logits, sampling, up_to)
    best, second = logits[0].topk(2).values.tolist()
    return Chosen(token, confidence, best - second)


def _roll_back(batch: Batch) -> bool:
    """Whether the caches are at the positions that the batch continues from."""
    try:
        if batch.keep < batch.rest.positions:
            batch.rest.roll_back(batch.keep)
        if batch.first is not None and batch.keep_first < batch.first.positions:
            batch.first.roll_back(batch.keep_first)
    except SplitError:
        return False
    return True


@torch.inference_mode()
def _bytes_per_position(stage: Stage) -> int:
    """Measured, since what a layer caches is its family's own business."""
    session = stage.session()
    session.feed(torch.zeros(1, 1, stage.hidden_size))
    session.catch_up()
    return session.memory_bytes
