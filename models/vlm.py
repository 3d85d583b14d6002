"""The small vision-language model: SmolVLM's architecture (Idefics3) at 5 million parameters, made from a recipe.

A SigLIP-style tower looks at one square frame, a pixel-shuffle connector turns its patches into 16 tokens, and a
Llama decoder answers. The classes are Hugging Face's own, so the saved folder opens with AutoProcessor and
AutoModelForImageTextToText anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .tokenizer import CHAT_TEMPLATE, IMAGE, build_tokenizer

if TYPE_CHECKING:
    from transformers import Idefics3ForConditionalGeneration, Idefics3Processor


@dataclass(frozen=True)
class Recipe:
    """The sizes of a model. Both towers share the width only by chance.

    frame_size: pixels per side of what the tower sees. It is square because the connector needs a square grid of
        patches; wide frames are squeezed into it.
    connector_factor: patches per side that the connector folds into one token.
    """

    frame_size: int = 128
    patch_size: int = 16
    connector_factor: int = 2
    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 6
    text_width: int = 192
    text_layers: int = 8
    text_heads: int = 4
    text_key_value_heads: int = 2
    text_mlp_width: int = 512

    @property
    def patches_per_side(self) -> int:
        return self.frame_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        return (self.patches_per_side // self.connector_factor) ** 2


def build_processor(recipe: Recipe, words: list[str]) -> Idefics3Processor:
    """Image processor, tokenizer and chat template as one. Frames are squeezed to the square once, bilinearly."""
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

    image_processor = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        # Idefics3 first scales the longest edge to `size`. Never below the source's 320: a second resize would
        # cost time and change what the model sees.
        size={"longest_edge": 320},
        max_image_size={"longest_edge": recipe.frame_size},
        resample=2,  # bilinear
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return Idefics3Processor(
        image_processor, build_tokenizer(words), image_seq_len=recipe.image_tokens, chat_template=CHAT_TEMPLATE
    )


def build_model(recipe: Recipe, processor: Idefics3Processor, seed: int) -> Idefics3ForConditionalGeneration:
    """An untrained model for the processor's vocabulary, float32, initialised from the seed."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    tokenizer: Any = processor.tokenizer
    # Untyped: pad_token_id is a field of every configuration, which its declaration hides.
    make_config: Any = Idefics3Config
    config = make_config(
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=recipe.connector_factor,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={
            "hidden_size": recipe.vision_width,
            "intermediate_size": 4 * recipe.vision_width,
            "num_hidden_layers": recipe.vision_layers,
            "num_attention_heads": recipe.vision_heads,
            "image_size": recipe.frame_size,
            "patch_size": recipe.patch_size,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": recipe.text_width,
            "intermediate_size": recipe.text_mlp_width,
            "num_hidden_layers": recipe.text_layers,
            "num_attention_heads": recipe.text_heads,
            "num_key_value_heads": recipe.text_key_value_heads,
            "head_dim": recipe.text_width // recipe.text_heads,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config)
    _initialise(model, recipe)
    return model


@torch.no_grad()
def _initialise(model: Any, recipe: Recipe) -> None:
    """Unit-variance initialisation by fan-in; the library's fixed deviation of 0.02 starts too slowly at this width.

    Outputs into a residual stream are divided by sqrt(2 x layers), so that its scale does not grow with depth.
    """
    towers: list[tuple[nn.Module, int]] = [
        (model.model.vision_model, recipe.vision_layers),
        (model.model.text_model, recipe.text_layers),
    ]
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.normal_(std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                module.bias.zero_()
    for tower, layers in towers:
        for name, module in tower.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(("o_proj", "out_proj", "fc2", "down_proj")):
                module.weight.div_(math.sqrt(2 * layers))
    model.model.text_model.embed_tokens.weight.normal_(std=0.5)
    embeddings = model.model.vision_model.embeddings
    embeddings.position_embedding.weight.copy_(_grid_positions(recipe.patches_per_side, recipe.vision_width))
    # Neighbouring pixels are alike and average out under random filters; doubled, patches weigh as much as positions.
    embeddings.patch_embedding.weight.mul_(2.0)


def _grid_positions(side: int, width: int) -> Tensor:
    """Sine and cosine codes of a square grid's rows and columns, half the width each: [side * side, width]."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    codes = []
    for axis in (rows, columns):
        angles = axis.reshape(-1, 1) * frequencies
        codes += [torch.sin(angles), torch.cos(angles)]
    return 0.5 * torch.cat(codes, dim=1)
