"""Answers whose exits agree by chance: the paper's workloads, of which only lengths and shares are published.

Confidences and agreement are drawn from a seed at every position, whatever was said before. That is enough for bytes
and times; it says nothing of accuracy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ..bus.tensors import TensorType
from .collab_edge import Tokens, Vote

_THETA = 0.8
THRESHOLDS = (_THETA, _THETA)
_END = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """A data set of the paper. positions: of its prompts; request_share: of the tokens that no exit was sure of.

    first_exit_share: of the sure ones, spoken by the first exit. agree_sure, agree_unsure: how often the whole model
    would have said the exit's token.
    """

    name: str
    positions: int
    request_share: float
    tokens: int = 100
    first_exit_share: float = 0.5
    agree_sure: float = 0.97
    agree_unsure: float = 0.55


# Section IV-A: prompts of 13 to 43 and of 200 to 500 tokens, up to 100 tokens of answer. Where the first exit speaks
# and how often an exit is right is not told.
ALPACA = Workload("Alpaca", 30, 0.496)
XSUM = Workload("XSum", 350, 0.277)


@dataclass(frozen=True)
class StatisticalAnswer:
    """One answer of a workload; a `Recording`. It never ends before its length."""

    workload: Workload
    seed: int
    prompt_bytes: int = 0
    end_token: int = _END
    _exits: dict[int, tuple[Vote, Vote]] = field(default_factory=dict)

    @property
    def positions(self) -> int:
        return self.workload.positions

    def at_exits(self, tokens: Tokens, /) -> tuple[Vote, Vote]:
        position = len(tokens)
        if position not in self._exits:
            self._exits[position] = self._draw(position)
        return self._exits[position]

    def at_end(self, tokens: Tokens, context: TensorType = "float32", /) -> Vote:
        del context
        return Vote(1 + len(tokens), 1.0, 1.0)

    def _draw(self, position: int) -> tuple[Vote, Vote]:
        load, chance = self.workload, random.Random(f"{self.workload.name}/{self.seed}/{position}")
        unsure = chance.random() < load.request_share
        by_first = not unsure and chance.random() < load.first_exit_share
        agrees = chance.random() < (load.agree_unsure if unsure else load.agree_sure)
        token = self.at_end((0,) * position).token if agrees else load.tokens + 1
        first = Vote(token, 1.0 if by_first else 0.0, 0.0)
        return first, Vote(token, 0.0 if unsure else 1.0, 0.0)


def answers(workload: Workload, count: int) -> list[StatisticalAnswer]:
    """So many of a workload."""
    return [StatisticalAnswer(workload, seed) for seed in range(count)]
