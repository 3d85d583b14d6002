"""How far an answer is the unsplit model's: which of its tokens that model would not have said, and how near it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .partitions import WholeModel
from .speakers import Prompt


@dataclass(frozen=True, slots=True)
class Mismatch:
    """index: of the token in its answer. margin: by how much the logit of the whole model's most likely token is above
    the next one's. A small margin is a tie that rounding broke otherwise; a large one is a fault."""

    index: int
    token: int
    expected: int
    margin: float


@torch.inference_mode()
def mismatches(whole: WholeModel, prompt: Prompt[Any], tokens: Sequence[int]) -> list[Mismatch]:
    """Every greedy token that the whole model, in float32 and after the tokens before it, would not have said."""
    first, rest = whole.first.session(), whole.rest.session()
    first.feed(prompt.inputs())
    for token in tokens[:-1]:
        first.feed(whole.embed(token))
    hidden = first.catch_up()
    rest.feed(hidden, first.position_ids(0, first.positions))
    logits = whole.head(rest.catch_up()[0, prompt.positions - 1 :]).float()
    best = logits.topk(2, dim=-1)
    margins = (best.values[:, 0] - best.values[:, 1]).tolist()
    expected = best.indices[:, 0].tolist()
    return [
        Mismatch(index, token, right, margin)
        for index, (token, right, margin) in enumerate(zip(tokens, expected, margins, strict=True))
        if token != right
    ]
