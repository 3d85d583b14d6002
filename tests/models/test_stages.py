"""Chained stages compute what the whole decoder computes, however their inputs arrive."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from roadside.bus.errors import SplitError
from roadside.models.stages import Stage, decoder_of, final_head, split_decoder
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
PROMPT_LENGTH = 11
NEW_TOKENS = 24

FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    # A window shorter than the answer, so that sliding caches really slide.
    "mistral-sliding": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)),
    # Per-layer lists in the configuration: whole attention in the first layers, sliding in the others.
    "qwen3-hybrid": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=3)
    ),
}


def make(family: str, seed: int = 0):
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # The library's 0.02 leaves logits so flat that a wrong split could still pick the same tokens.
                parameter.normal_(std=0.25)
    return model


def greedy_through_stages(model, exit_layers: tuple[int, int], prompt: torch.Tensor) -> list[int]:
    """The cloud's way: first stage, then the rest, token by token."""
    split = split_decoder(model, exit_layers)
    embedding = decoder_of(model).embed_tokens
    first, rest = split.first.session(), split.rest.session()
    tokens: list[int] = []
    inputs = prompt
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            first.feed(embedding(inputs))
            rest.feed(first.catch_up())
            tokens.append(int(split.head(rest.catch_up()[:, -1]).argmax()))
            inputs = torch.tensor([[tokens[-1]]])
    return tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("exit_layers", [(1, 3), (2, 4), (5, 6)])
def test_stages_answer_as_the_whole_model_generates(family: str, exit_layers: tuple[int, int]) -> None:
    model = make(family)
    prompt = torch.randint(3, 90, (1, PROMPT_LENGTH))
    expected = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    assert greedy_through_stages(model, exit_layers, prompt) == expected[0, PROMPT_LENGTH:].tolist()


@settings(max_examples=40, deadline=None)
@example(chunks=[(2, True), (1, False), (1, False), (2, False), (5, False), (5, True), (1, False)], seed=82)
@given(chunks=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_lagging_stage_catches_up_to_the_same_states(chunks: list[tuple[int, bool]], seed: int) -> None:
    """However inputs are grouped and whenever the stage runs, its outputs are those of one uninterrupted pass."""
    stage = Stage(decoder_of(make("llama")), 2, 5)
    torch.manual_seed(seed)
    inputs = torch.randn(1, sum(count for count, _ in chunks), SIZES["hidden_size"])

    at_once = stage.session()
    at_once.feed(inputs)
    expected = at_once.catch_up()

    lagging, outputs, start = stage.session(), [], 0
    for count, run_now in chunks:
        lagging.feed(inputs[:, start : start + count])
        start += count
        if run_now:
            outputs.append(lagging.catch_up())
    if not chunks[-1][1]:
        outputs.append(lagging.catch_up())

    assert lagging.positions_run == inputs.shape[1]
    # Against the states' own scale: float32 rounds a residual sum by its large terms, also where the sum is near zero.
    # The worst of 1,500 random groupings was 1.7e-6.
    error = float((torch.cat(outputs, dim=1) - expected).abs().max() / expected.abs().max())
    assert error <= 1e-5


def test_sessions_of_one_stage_do_not_see_each_other() -> None:
    stage = Stage(decoder_of(make("llama")), 0, 3)
    inputs, others = torch.randn(1, 7, 32), torch.randn(1, 5, 32)
    alone = stage.session()
    alone.feed(inputs)
    expected = alone.catch_up()

    mine, theirs = stage.session(), stage.session()
    outputs = []
    for position in range(7):
        theirs.feed(others[:, :1] * position)
        theirs.catch_up()
        mine.feed(inputs[:, position : position + 1])
        outputs.append(mine.catch_up())
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_stages_share_the_weights_of_their_model() -> None:
    model = make("llama")
    split = split_decoder(model, (1, 3))
    own = {weight.data_ptr() for weight in model.parameters()}
    for stage in (split.first, split.second, split.rest):
        assert {weight.data_ptr() for weight in stage._layers.parameters()} <= own


@pytest.mark.parametrize("layers", [(0, 0), (3, 2), (2, 7), (-1, 2)])
def test_layers_that_are_not_there_are_refused(layers: tuple[int, int]) -> None:
    with pytest.raises(SplitError, match="exit layers"):
        Stage(decoder_of(make("llama")), *layers)


def test_a_decoder_of_another_make_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
    with pytest.raises(SplitError, match="Llama-like"):
        final_head(model)
