"""The self-check passes a right split and refuses a wrong one, whatever way it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from roadside.bus.errors import SplitError
from roadside.bus.kinds import EXPLAIN
from roadside.datasets.phrases import words
from roadside.models.prompt_encoder import PromptEncoder, PromptReader
from roadside.models.questions import Question
from roadside.models.self_check import self_check
from roadside.models.stages import SplitDecoder, split_decoder
from roadside.models.tokenizer import IMAGE
from roadside.models.vlm import Recipe, build_processor
from torch import nn
from transformers import (
    BambaConfig,
    GraniteConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    Qwen3NextConfig,
)

DECODERS = {"llama": LlamaConfig, "granite": GraniteConfig, "qwen3-next": Qwen3NextConfig, "bamba": BambaConfig}


def make(decoder: str, recipe: Recipe, **decoder_settings: object):
    """An Idefics3 model around a decoder of another family, and its processor."""
    processor = build_processor(recipe, words())
    tokenizer = processor.tokenizer
    text = DECODERS[decoder](
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=recipe.text_mlp_width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_heads,
        num_key_value_heads=recipe.text_key_value_heads,
        pad_token_id=tokenizer.pad_token_id,
        **decoder_settings,
    )
    make_config: Any = Idefics3Config
    config = make_config(
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=recipe.connector_factor,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={
            "hidden_size": recipe.vision_width,
            "intermediate_size": 64,
            "num_hidden_layers": recipe.vision_layers,
            "num_attention_heads": recipe.vision_heads,
            "image_size": recipe.frame_size,
            "patch_size": recipe.patch_size,
        },
        text_config=text.to_dict(),
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    return model, processor


def check(model, processor, frame: bytes, split: SplitDecoder | None = None) -> None:
    inputs = PromptReader(processor).read(Question(EXPLAIN.prompt, (frame,), {"Vehicle.Speed": 36.0}))
    self_check(model, PromptEncoder(model), split or split_decoder(model, (2, 4)), inputs)


def test_a_right_split_passes(tiny_recipe: Recipe, frame: bytes) -> None:
    check(*make("llama", tiny_recipe), frame)


def test_a_family_that_scales_embeddings_inside_is_refused(tiny_recipe: Recipe, frame: bytes) -> None:
    """Granite multiplies its inputs inside `forward`, so a later stage would do it again."""
    with pytest.raises(SplitError, match="do not reproduce it"):
        check(*make("granite", tiny_recipe, embedding_multiplier=12.0), frame)


def test_a_family_with_a_running_state_is_refused(tiny_recipe: Recipe, frame: bytes) -> None:
    """Qwen3-Next's layers of linear attention keep no past that a draft could be rolled back to."""
    settings: dict[str, Any] = {
        "layer_types": ["linear_attention", "full_attention"] * 3,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "head_dim": 8,
        "num_experts": 0,
    }
    with pytest.raises(SplitError, match="cannot be rolled back; choose a model whose layers all attend"):
        check(*make("qwen3-next", tiny_recipe, **settings), frame)


def test_a_decoder_that_is_built_otherwise_is_refused(tiny_recipe: Recipe, frame: bytes) -> None:
    """Bamba, a hybrid of Mamba's layers and attention, calls its norm by another name."""
    settings: dict[str, Any] = {
        "attn_layer_indices": [1, 3],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
    }
    with pytest.raises(SplitError, match="no norm, so it cannot be split"):
        check(*make("bamba", tiny_recipe, **settings), frame)


def test_the_same_family_passes_where_it_scales_nothing(tiny_recipe: Recipe, frame: bytes) -> None:
    """It is the arithmetic that is checked, not the family's name."""
    check(*make("granite", tiny_recipe, embedding_multiplier=1.0), frame)


@pytest.mark.parametrize("stage_name", ["first", "second", "rest"])
def test_a_stage_with_one_wrong_weight_matrix_is_refused(stage_name: str, tiny_recipe: Recipe, frame: bytes) -> None:
    model, processor = make("llama", tiny_recipe)
    split = split_decoder(model, (2, 4))
    layer = getattr(split, stage_name)._layers.layers[-1]
    # A parameter of its own: stages share the model's, and both sides would be wrong together.
    layer.mlp.down_proj.weight = nn.Parameter(layer.mlp.down_proj.weight * 1.05)
    with pytest.raises(SplitError, match="off by"):
        check(model, processor, frame, split)


def test_a_split_that_leaves_a_layer_out_is_refused(tiny_recipe: Recipe, frame: bytes) -> None:
    model, processor = make("llama", tiny_recipe)
    right, shifted = split_decoder(model, (2, 4)), split_decoder(model, (3, 4))
    with pytest.raises(SplitError, match="off by"):
        check(model, processor, frame, SplitDecoder(right.first, right.second, shifted.rest, right.head))


def test_a_model_that_computes_nan_is_refused(tiny_recipe: Recipe, frame: bytes) -> None:
    model, processor = make("llama", tiny_recipe)
    with torch.no_grad():
        model.model.text_model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(SplitError):
        check(model, processor, frame)


def test_the_encoder_leaves_the_model_whole(tiny_recipe: Recipe) -> None:
    model, _ = make("llama", tiny_recipe)
    decoder = model.model.text_model
    PromptEncoder(model)
    assert model.model.text_model is decoder


def test_a_decoder_that_wants_more_than_embeddings_is_refused(tiny_recipe: Recipe) -> None:
    model, _ = make("llama", tiny_recipe)
    boundary = PromptEncoder(model)._trunk.text_model
    with pytest.raises(SplitError, match="per_layer_inputs"):
        boundary(inputs_embeds=torch.zeros(1, 2, 32), per_layer_inputs=torch.zeros(1))


def test_a_node_does_not_start_with_a_model_that_fails(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """From a real folder, through the command line: one line, no traceback, no node."""
    model, processor = make("granite", tiny_recipe, embedding_multiplier=12.0)
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    edge = [sys.executable, "-P", "-m", "roadside.cli", "edge", "--model", str(tmp_path)]
    done = subprocess.run(edge, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("roadside: ")
    assert "do not reproduce it" in line
