"""What some decoders read of a prompt besides its embeddings: positions on several axes, and DeepStack's features.

Qwen-VL counts the tokens of an image on three axes (time, height, width: M-RoPE, Qwen2-VL, section 2.1), and Qwen3-VL
adds visual features to the residual stream after each of its first layers (DeepStack, Meng et al., 2024). Both belong
to the prompt; behind it, all axes count on by one from the largest position so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class VisualFeatures:
    """What is added to the residual stream of a sequence's first positions.

    mask: bool [positions], true at the tokens of images.
    by_layer: [image tokens, hidden_size] for each of the first layers, after which it is added.
    """

    mask: Tensor
    by_layer: tuple[Tensor, ...]

    def inputs(self, start: int, end: int, first_layer: int, end_layer: int) -> dict[str, Any]:
        """What layers [first_layer, end_layer) are given besides hidden states to run positions [start, end)."""
        added = self.by_layer[first_layer:end_layer]
        in_prompt = self.mask[start:end]
        if not added or not bool(in_prompt.any()):
            return {}
        mask = torch.zeros(end - start, dtype=torch.bool)
        mask[: len(in_prompt)] = in_prompt
        rows = slice(int(self.mask[:start].sum()), int(self.mask[:end].sum()))
        return {"visual_pos_masks": mask[None], "deepstack_visual_embeds": [each[rows] for each in added]}

    def kept(self, positions: int) -> VisualFeatures:
        """Of the first so many positions."""
        mask = self.mask[:positions]
        return VisualFeatures(mask, tuple(each[: int(mask.sum())] for each in self.by_layer))


@dataclass(frozen=True, eq=False)
class LaidOutPrompt:
    """A prompt for a decoder that reads more of it than embeddings.

    embeddings: [1, positions, hidden_size]. position_ids: int64 [axes, positions].
    """

    embeddings: Tensor
    position_ids: Tensor
    visual: VisualFeatures | None = None


def position_ids_behind(position_ids: Tensor, count: int) -> Tensor:
    """The next so many position ids after some [axes, positions]: int64 [axes, count]."""
    largest = int(position_ids.max()) if position_ids.numel() else -1
    return torch.arange(largest + 1, largest + 1 + count).expand(position_ids.shape[0], count)
