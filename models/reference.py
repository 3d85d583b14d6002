"""What the unsplit model computes on one prompt, to which its stages are held.

It is read once, where every layer can be had, and is small enough to be kept (split_records.py), so that a process
which holds only some of the layers can prove them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .stages import check_shape, decoder_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

CONTINUATION_TOKENS = 12


@dataclass(frozen=True, eq=False)
class Reference:
    """The unsplit model over a prompt and some tokens behind it, in one pass and without a cache.

    continuation: the tokens behind the prompt, int64 [tokens].
    position_ids: int64 [axes, positions] of a model that counts on several axes, else None.
    after_first: the residual stream at the first exit, [1, positions, hidden_size].
    after_second: the same at the second exit, at the prompt's last position and the tokens behind it only.
    likeliest: the most likely next token at those same positions, int64 [1 + tokens].
    last_logits: [vocabulary], behind the last position.
    """

    continuation: Tensor
    position_ids: Tensor | None
    after_first: Tensor
    after_second: Tensor
    likeliest: Tensor
    last_logits: Tensor

    @property
    def prompt_positions(self) -> int:
        return self.after_first.shape[1] - len(self.continuation)


@torch.inference_mode()
def read_reference(model: PreTrainedModel, inputs: dict[str, Tensor], exit_layers: tuple[int, ...]) -> Reference:
    """Let the unsplit model read a prompt, as its processor made it (batch 1), and its last words once more.

    What stands behind the prompt need not make sense: the stages must compute the same of anything.
    Raises SplitError where the decoder is not made of layers and a norm.
    """
    untyped: Any = model
    decoder = decoder_of(untyped)
    check_shape(decoder)
    continuation = _last_words(inputs["input_ids"][0], model.config)
    compared = 1 + len(continuation)
    extended = _extended(inputs, continuation)
    if "logits_to_keep" in inspect.signature(untyped.forward).parameters:
        # With a large vocabulary the logits of a whole prompt take more memory than the model.
        extended["logits_to_keep"] = compared
    # The inputs of the layer behind an exit, or of the norm behind the last one: what the library calls hidden states
    # is in some families taken before visual features are added.
    behind = [*decoder.layers, decoder.norm]
    with _watched(decoder, [behind[layer] for layer in exit_layers]) as seen:
        logits = untyped(**extended, use_cache=False).logits[0, -compared:]
    after_first, after_second = (seen[behind[layer]] for layer in exit_layers)
    return Reference(
        continuation=continuation,
        position_ids=seen.get(decoder),
        after_first=after_first.float(),
        after_second=after_second[:, -compared:].float(),
        likeliest=logits.argmax(dim=-1),
        last_logits=logits[-1].float(),
    )


@contextmanager
def _watched(decoder: nn.Module, modules: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """What each module is given as hidden states, and the decoder as position ids on several axes, if it is."""
    seen: dict[nn.Module, Tensor] = {}

    def take_hidden(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen[module] = arguments[0] if arguments else named["hidden_states"]

    def take_position_ids(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        del arguments
        position_ids = named.get("position_ids")
        if position_ids is not None and position_ids.ndim == 3:
            # A fourth axis, in front, counts tokens for packed sequences.
            seen[module] = position_ids[-3:, 0]

    hooks = [module.register_forward_pre_hook(take_hidden, with_kwargs=True) for module in modules]
    hooks.append(decoder.register_forward_pre_hook(take_position_ids, with_kwargs=True))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _last_words(prompt: Tensor, config: Any) -> Tensor:
    """The last tokens of a prompt that do not stand for a picture."""
    pictures = {getattr(config, name, None) for name in ("image_token_id", "image_token_index", "video_token_id")}
    words = [token for token in prompt.tolist() if token not in pictures]
    return torch.tensor(words[-CONTINUATION_TOKENS:])


def _extended(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Any]:
    """The inputs with tokens appended to everything that has one entry per prompt token."""
    shape = inputs["input_ids"].shape
    appended = {"input_ids": tokens[None], "attention_mask": torch.ones(1, len(tokens), dtype=torch.long)}
    text_only = torch.zeros(1, len(tokens), dtype=torch.long)
    return {
        name: torch.cat([value, appended.get(name, text_only)], dim=1) if value.shape == shape else value
        for name, value in inputs.items()
    }
