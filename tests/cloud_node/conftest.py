"""A tiny decoder with random weights, cut in two: an edge that plays its part, and the layers that the cloud holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from roadside.models.precision import to_float16
from roadside.models.stages import Stage, decoder_of, final_head
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 90
HIDDEN_SIZE = 32
FIRST_EXIT = 2


@dataclass(frozen=True)
class Cut:
    """model: unsplit. first: the edge's layers. rest, head: the cloud's."""

    model: Any
    first: Stage
    rest: Stage
    head: nn.Module
    vocabulary: int = VOCABULARY
    hidden_size: int = HIDDEN_SIZE

    @torch.inference_mode()
    def hidden(self, tokens: list[int]) -> NDArray[np.float16]:
        """What an edge uploads for a sequence: [positions, hidden_size]."""
        session = self.first.session()
        session.feed(decoder_of(self.model).embed_tokens(torch.tensor([tokens])))
        return to_float16(session.catch_up()[0])

    @torch.inference_mode()
    def next_token(self, tokens: list[int]) -> int:
        """The unsplit model's choice."""
        return int(self.model(torch.tensor([tokens])).logits[0, -1].argmax())


@pytest.fixture(scope="session")
def cut() -> Cut:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # The library's 0.02 leaves logits so flat that a wrong context could still pick the same token.
                parameter.normal_(std=0.25)
    decoder = decoder_of(model)
    return Cut(model, Stage(decoder, 0, FIRST_EXIT), Stage(decoder, FIRST_EXIT, 5), final_head(model))
