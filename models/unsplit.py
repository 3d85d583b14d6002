"""A whole model in one piece, for families whose decoder the stages cannot reproduce.

Granite scales its inputs inside `forward`, so that every stage would do it again; Qwen3-VL adds visual features behind
its first layers, which a cloud does not have where the first exit stands between them. Such a model answers at the
cloud, and no edge can ask it for single tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .choosing import choose
from .sampling import Sampling
from .speakers import Said


@dataclass(frozen=True, eq=False)
class ProcessedPrompt:
    """A question as its processor made it; see `Prompt` in models/speakers.py. Encoding it is a part of reading it."""

    model_inputs: dict[str, Tensor]
    encode_ms: None = None

    @property
    def positions(self) -> int:
        return self.model_inputs["input_ids"].shape[1]

    def inputs(self) -> dict[str, Tensor]:
        return self.model_inputs


class UnsplitModel:
    """Speaks as `partitions.WholeModel` does, from the model's own inputs instead of embeddings."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def session(self, sampling: Sampling | None = None) -> UnsplitSession:
        return UnsplitSession(self._model, sampling)

    def embed(self, token: int) -> dict[str, Tensor]:
        """What a session reads after a token that it said."""
        return {"input_ids": torch.tensor([[token]])}


class UnsplitSession:
    """One sequence through the model, with a cache of its own."""

    def __init__(self, model: Any, sampling: Sampling | None = None) -> None:
        from transformers import DynamicCache

        self._model = model
        self._sampling = sampling
        self._cache = DynamicCache(config=model.config.get_text_config())
        self._position_delta: int | None = None

    @torch.inference_mode()
    def say(self, inputs: dict[str, Tensor]) -> Said:
        """The token after the prompt's inputs as the processor made them, or after one token more."""
        begun = self._cache.get_seq_length()
        if begun and self._position_delta is not None:
            position = torch.full((3, 1, 1), begun + self._position_delta)
            inputs = {**inputs, "position_ids": position}
        output = self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        if not begun:
            # An image takes fewer positions than it has tokens. The model keeps the difference for one sequence only,
            # and another session may come between two tokens of this one.
            delta = getattr(self._model.base_model, "rope_deltas", None)
            self._position_delta = None if delta is None else int(delta)
        token, confidence = choose(output.logits[:, -1], self._sampling, self._cache.get_seq_length())
        return Said(token, "full", confidence, True)
