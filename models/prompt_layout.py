"""What some decoders read of a prompt besides its embeddings: positions on several axes, and DeepStack's features.

Qwen-VL counts the tokens of an image on three axes (time, height, width; M-RoPE, Qwen2-VL, section 2.1), and Qwen3-VL
adds visual features to the residual stream after each of its first layers (DeepStack, Meng et al., 2024). Both belong
to positions of the prompt; after it, all axes count on by one from the largest position so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PromptLayout:
    """Of one prompt.

    position_ids: int64 [axes, positions].
    visual_mask: bool [positions], the places of image tokens.
    visual_features: one tensor [image tokens, hidden_size] for each of the first layers, after which it is added.
    """

    position_ids: Tensor
    visual_mask: Tensor | None = None
    visual_features: tuple[Tensor, ...] = ()

    def position_ids_of(self, start: int, end: int) -> Tensor:
        """Of positions [start, end), which may lie behind the prompt: int64 [axes, end - start]."""
        length = self.position_ids.shape[1]
        if start >= length:
            return position_ids_behind(self.position_ids, end - length)[:, start - length :]
        behind = position_ids_behind(self.position_ids, max(0, end - length))
        return torch.cat([self.position_ids[:, start:end], behind], dim=1)

    def visual_inputs(self, start: int, end: int, first_layer: int, end_layer: int) -> dict[str, Any]:
        """What layers [first_layer, end_layer) want besides hidden states to run positions [start, end)."""
        features = self.visual_features[first_layer:end_layer]
        if self.visual_mask is None or not features or not bool(self.visual_mask[start:end].any()):
            return {}
        mask = torch.zeros(end - start, dtype=torch.bool)
        in_prompt = self.visual_mask[start:end]
        mask[: len(in_prompt)] = in_prompt
        rows = slice(int(self.visual_mask[:start].sum()), int(self.visual_mask[:end].sum()))
        return {"visual_pos_masks": mask[None], "deepstack_visual_embeds": [each[rows] for each in features]}


@dataclass(frozen=True, eq=False)
class LaidOutPrompt:
    """A prompt's embeddings, [1, positions, hidden_size], for a decoder that needs a layout as well."""

    embeddings: Tensor
    layout: PromptLayout


def position_ids_behind(position_ids: Tensor, count: int) -> Tensor:
    """The next so many position ids after some [axes, positions]: int64 [axes, count]."""
    largest = int(position_ids.max())
    return torch.arange(largest + 1, largest + 1 + count).expand(position_ids.shape[0], count)
