"""What a cloud keeps of one answer in the making: hidden states that came in, the cache of those that were run.

Pure state, without clock or network. Hidden states arrive in any order, more than once, or not at all; they are run in
the order of their positions, all that wait in one batch, when a token is asked for (CE-CoLLM, section III-C).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..bus.messages import NackReason
from ..models.exits import most_likely
from ..models.precision import to_float32
from ..models.stages import StageSession

# By position: an array's and a digest's objects, and two dictionary entries.
_BOOKKEEPING_BYTES = 400

Taken = Literal["new", "duplicate", "stale", "conflict"]


@dataclass(frozen=True, slots=True)
class Computed:
    """The whole model's token, with its softmax probability and what it took."""

    token: int
    confidence: float
    queue_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True)
class Missing:
    """Positions [first, end) are wanted before a token can be computed, or some of them are."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The context was given up, and why."""

    reason: NackReason


# ready: may begin. busy: another batch of the same context is being computed. stale: of before a roll-back.
# overtaken: a later token was computed since, so that nobody waits for this one.
Standing: TypeAlias = Computed | Missing | Refused | Literal["ready", "busy", "stale", "overtaken"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A token to compute: the only thing of a context that the inference thread touches.

    keep: how many positions of the stage's cache still hold. hidden: float16 [positions, hidden_size], those after
    them up to `up_to`.
    """

    stage: StageSession
    keep: int
    up_to: int
    hidden: NDArray[np.float16]

    @torch.inference_mode()
    def run(self, head: nn.Module) -> tuple[int, float]:
        """Catch up with all positions at once; the token after the last, and its confidence.

        Raises SplitError where the model's cache cannot be rolled back.
        """
        if self.keep < self.stage.positions_run:
            self.stage.roll_back(self.keep)
        inputs = to_float32(self.hidden)[None]
        self.stage.feed(inputs)
        # Only the last position is asked for a token; the head over all of them would cost for nothing.
        token, confidence = most_likely(head(self.stage.catch_up()[:, -1]))
        inputs.zero_()
        self.hidden.fill(0)
        return token, confidence


class Context:
    """One session of one edge. `stage`: an empty session of the layers behind the first exit."""

    def __init__(self, stage: StageSession) -> None:
        self.rollback = 0
        self.computing = False
        self.refused: NackReason | None = None
        self._stage = stage
        self._cache_bytes = 0
        # The first so many positions are in the stage's cache, or will be after the batch under way.
        self._positions_run = 0
        self._rows: dict[int, NDArray[np.float16]] = {}
        # Of all that arrived, run or not: tells a repetition from a contradiction.
        self._digests: dict[int, bytes] = {}
        self._replies: dict[int, Computed] = {}
        self._freed = False

    @property
    def memory_bytes(self) -> int:
        """Memory held, to a few per cent; while a batch is being computed, its own comes on top."""
        waiting_bytes = sum(row.nbytes for row in self._rows.values())
        return waiting_bytes + self._cache_bytes + _BOOKKEEPING_BYTES * len(self._digests)

    def take(self, hidden: NDArray[np.float16], *, position: int, rollback: int, kept: int) -> Taken:
        """Copy the hidden states [positions, hidden_size] from `position` on. See `ContextChunk` for the rest.

        Nothing is taken of what is stale or in conflict.
        """
        if rollback < self.rollback:
            return "stale"
        if rollback > self.rollback:
            # Who missed a roll-back in between does not know how deep that one cut.
            self._roll_back(kept if rollback == self.rollback + 1 else 0)
            self.rollback = rollback
        digests = {position + offset: _digest(row) for offset, row in enumerate(hidden)}
        if any(self._digests.get(each, digest) != digest for each, digest in digests.items()):
            return "conflict"
        new = [each for each in digests if each not in self._digests]
        for each in new:
            self._rows[each] = hidden[each - position].copy()
            self._digests[each] = digests[each]
        return "new" if new else "duplicate"

    def look(self, *, rollback: int, up_to: int) -> Standing:
        """How things stand with the token after `up_to` positions."""
        if self.refused is not None:
            return Refused(self.refused)
        if rollback < self.rollback:
            return "stale"
        if rollback > self.rollback:
            # No chunk has told yet what the roll-back left standing, so perhaps nothing.
            return Missing(0, up_to)
        if up_to in self._replies:
            return self._replies[up_to]
        if up_to <= self._positions_run:
            return "busy" if self.computing else "overtaken"
        missing = self.missing(up_to)
        if missing is not None:
            return missing
        return "busy" if self.computing else "ready"

    def missing(self, up_to: int) -> Missing | None:
        """The shortest stretch that holds every position below `up_to` which has not arrived; None where all have."""
        absent = [position for position in range(self._positions_run, up_to) if position not in self._rows]
        return Missing(absent[0], absent[-1] + 1) if absent else None

    def begin(self, up_to: int) -> Batch:
        """The batch that computes the token after `up_to` positions; only where that is "ready". `finish` follows."""
        positions = range(self._positions_run, up_to)
        batch = Batch(self._stage, self._positions_run, up_to, np.stack([self._rows[each] for each in positions]))
        self.computing = True
        self._positions_run = up_to
        return batch

    def finish(self, batch: Batch, computed: Computed | None) -> None:
        """The batch was run, or (None) never will be. Chunks, a roll-back or the end may have come meanwhile."""
        self.computing = False
        if self._freed:
            self._stage.free()
            return
        if computed is None:
            self._positions_run = min(self._positions_run, batch.keep)
            return
        self._cache_bytes = self._stage.memory_bytes
        self._forget_rows(range(batch.keep, self._positions_run))
        # Else a roll-back has cut below it, and the token is one of a sequence that is no more.
        if batch.up_to <= self._positions_run:
            self._replies[batch.up_to] = computed

    def refuse(self, reason: NackReason) -> None:
        """Give the context up: its memory is freed at once, and whoever asks is told why."""
        self.refused = reason
        self.free()

    def free(self) -> None:
        """Zero and forget everything; what a batch under way uses, when that is finished.

        Copies that torch made on the way, such as that of a cache which grew, were returned to its allocator as they
        were.
        """
        self._freed = True
        self._forget_rows(list(self._rows))
        self._digests.clear()
        self._replies.clear()
        self._cache_bytes = 0
        if not self.computing:
            self._stage.free()

    def _roll_back(self, kept: int) -> None:
        gone = [position for position in self._digests if position >= kept]
        for position in gone:
            del self._digests[position]
        self._forget_rows(gone)
        self._positions_run = min(self._positions_run, kept)
        self._replies = {up_to: reply for up_to, reply in self._replies.items() if up_to <= kept}

    def _forget_rows(self, positions: Iterable[int]) -> None:
        for position in positions:
            row = self._rows.pop(position, None)
            if row is not None:
                row.fill(0)


def _digest(row: NDArray[np.float16]) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()
