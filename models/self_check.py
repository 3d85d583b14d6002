"""Proof at load time that the stages are the model: a split that is wrong would answer fluently and wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..bus.errors import SplitError
from .exits import most_likely
from .prompt_encoder import PromptEncoder
from .stages import SplitDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 12
# Both sides compute the same products in another order, so they agree to float32 rounding; a wrong split is off by
# whole multiples.
TOLERANCE = 1e-3


def self_check(model: PreTrainedModel, encoder: PromptEncoder, split: SplitDecoder, inputs: dict[str, Tensor]) -> None:
    """Compare the chained stages with the unsplit model on one prompt.

    The stages answer greedily, token by token, through their caches. Then the unsplit model reads the same prompt
    and answer in one pass: if its most likely token at each position is the one that the stages said, then by
    induction its own greedy answer is the same. Hidden states at both exits and the logits must agree as well.

    inputs: what the model's processor made of a prompt with an image, batch 1.
    Raises SplitError with the first thing that differs.
    """
    tokens, after_first, after_second, logits = _answer_through_stages(encoder, split, inputs)
    with torch.inference_mode():
        whole = model(**_extended(inputs, tokens[:-1]), output_hidden_states=True, use_cache=False)

    name = type(model).__name__
    prompt_positions = inputs["input_ids"].shape[1]
    expected_logits = whole.logits[:, prompt_positions - 1 :]
    expected_tokens = expected_logits[0].argmax(dim=-1).tolist()
    _compare(name, f"after layer {split.first.end_layer}", after_first, whole.hidden_states[split.first.end_layer])
    _compare(name, f"after layer {split.second.end_layer}", after_second, whole.hidden_states[split.second.end_layer])
    _compare(name, "of the output", logits, expected_logits)
    if tokens != expected_tokens:
        at = next(index for index, pair in enumerate(zip(tokens, expected_tokens, strict=True)) if pair[0] != pair[1])
        raise SplitError(_message(name, f"token {at + 1} of {TOKENS} differs"))


@torch.inference_mode()
def _answer_through_stages(
    encoder: PromptEncoder, split: SplitDecoder, inputs: dict[str, Tensor]
) -> tuple[list[int], Tensor, Tensor, Tensor]:
    """The greedy tokens; the hidden states after the first and second stage at every position; the tokens' logits."""
    first, second, rest = split.first.session(), split.second.session(), split.rest.session()
    tokens: list[int] = []
    after_first, after_second, logits = [], [], []
    hidden = encoder.encode(inputs)
    for _ in range(TOKENS):
        first.feed(hidden)
        after_first.append(first.catch_up())
        second.feed(after_first[-1])
        after_second.append(second.catch_up())
        rest.feed(after_first[-1])
        logits.append(split.head(rest.catch_up()[:, -1:]))
        token, _ = most_likely(logits[-1][:, -1])
        tokens.append(token)
        hidden = encoder.embed(token)
    return tokens, torch.cat(after_first, dim=1), torch.cat(after_second, dim=1), torch.cat(logits, dim=1)


def _extended(inputs: dict[str, Tensor], tokens: list[int]) -> dict[str, Tensor]:
    """The inputs with an answer's tokens appended to everything that has one entry per prompt token."""
    shape = inputs["input_ids"].shape
    appended = {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens), dtype=torch.long)}
    text_only = torch.zeros(1, len(tokens), dtype=torch.long)
    return {
        name: torch.cat([value, appended.get(name, text_only)], dim=1) if value.shape == shape else value
        for name, value in inputs.items()
    }


def _compare(model_name: str, where: str, ours: Tensor, expected: Tensor) -> None:
    error = float((ours - expected).abs().max() / expected.abs().max())
    # Written so that a NaN, which compares false, is refused too.
    if not error <= TOLERANCE:
        raise SplitError(_message(model_name, f"hidden states {where} are off by {error:.2g}"))


def _message(model_name: str, difference: str) -> str:
    return (
        f"{model_name} cannot be split: its stages do not reproduce it ({difference}); "
        "use the bundled model or one of another family"
    )
