"""Greedy decoding of many questions at once, by every voice: for scoring, where only the words count and no clock runs.

A voice's tokens are those that serving would speak: early exits read the same hidden states there, and a cloud that
is asked has seen every position. Only the rounding of batched arithmetic may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .exits import Exits

Voice = Literal["cloud", "edge", "edge+cloud"]


@dataclass(frozen=True)
class Decoded:
    """What a voice said to each question.

    tokens: up to the end token, without it. asked_cloud, agreed, spoken: over all tokens, the closing one included:
    how many the cloud was asked for; how many the exits spoke; how many of those the whole model would have said too.
    """

    tokens: list[list[int]]
    asked_cloud: int
    spoken: int
    agreed: int


@torch.inference_mode()
def decode(
    model: Any,
    exits: Exits,
    prompts: Tensor,
    voice: Voice,
    *,
    thresholds: Sequence[float],
    max_tokens: int,
    end_token: int,
) -> Decoded:
    """Answer questions of one length. prompts: embeddings [batch, positions, hidden_size], float32.

    cloud: the whole model. edge: the first exit where it is sure, else the second. edge+cloud: the first exit that is
    sure, else the whole model.
    """
    from transformers import DynamicCache

    decoder = model.model.text_model
    cache = DynamicCache(config=decoder.config)
    inputs = prompts
    answers: list[list[int]] = [[] for _ in range(len(prompts))]
    open_rows = torch.ones(len(prompts), dtype=torch.bool)
    asked_cloud = spoken = agreed = 0
    for _ in range(max_tokens):
        output = decoder(inputs_embeds=inputs, past_key_values=cache, use_cache=True, output_hidden_states=True)
        whole = model.lm_head(output.last_hidden_state[:, -1]).argmax(dim=-1)
        chosen, by_exit = whole.clone(), torch.zeros_like(open_rows)
        if voice != "cloud":
            for index in reversed(range(len(exits.layers))):
                logits = exits.heads[index](output.hidden_states[exits.layers[index]][:, -1])
                confidence, token = torch.softmax(logits, dim=-1).max(dim=-1)
                # The edge alone has nobody to ask: its last exit speaks however unsure it is.
                last_resort = voice == "edge" and index == len(exits.layers) - 1
                sure = (confidence >= thresholds[index]) | last_resort
                chosen = torch.where(sure, token, chosen)
                by_exit |= sure
        spoken += int((by_exit & open_rows).sum())
        agreed += int((by_exit & open_rows & (chosen == whole)).sum())
        asked_cloud += int((~by_exit & open_rows).sum())
        open_rows &= chosen != end_token
        for row in open_rows.nonzero().flatten().tolist():
            answers[row].append(int(chosen[row]))
        if not bool(open_rows.any()):
            break
        inputs = decoder.embed_tokens(chosen)[:, None]
    return Decoded(answers, asked_cloud, spoken, agreed)
