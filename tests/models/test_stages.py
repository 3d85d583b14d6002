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


@st.composite
def detours(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Steps of a session: ("feed", positions), ("run", 0), ("back", positions to keep); each possible where it is."""
    steps: list[tuple[str, int]] = []
    fed = 0
    for kind in draw(st.lists(st.sampled_from(("feed", "run", "back")), min_size=3, max_size=14)):
        if kind == "feed":
            count = draw(st.integers(1, 7))
            fed += count
            steps.append(("feed", count))
        elif kind == "back":
            fed = draw(st.integers(0, fed))
            steps.append(("back", fed))
        else:
            steps.append(("run", 0))
    return [*steps, ("feed", 3)]


@pytest.mark.parametrize("family", ["llama", "mistral-sliding", "qwen3-hybrid"])
@settings(max_examples=25, deadline=None)
@example(steps=[("feed", 20), ("run", 0), ("back", 15), ("back", 3), ("feed", 9), ("run", 0), ("feed", 3)], seed=1)
@given(steps=detours(), seed=st.integers(0, 99))
def test_roll_backs_leave_no_trace(family: str, steps: list[tuple[str, int]], seed: int) -> None:
    """Whatever was fed, run and forgotten on the way, the states are those of one pass over what stands at the end."""
    stage = Stage(decoder_of(make(family)), 2, 5)
    torch.manual_seed(seed)
    session, standing = stage.session(), torch.empty(1, 0, SIZES["hidden_size"])
    for kind, count in steps:
        if kind == "feed":
            new = torch.randn(1, count, SIZES["hidden_size"])
            session.feed(new)
            standing = torch.cat([standing, new], dim=1)
        elif kind == "back":
            session.roll_back(count)
            standing = standing[:, :count]
        elif session.waiting_positions:
            session.catch_up()
        assert session.positions_run + session.waiting_positions == standing.shape[1]
    straight = stage.session()
    straight.feed(standing)
    expected = straight.catch_up()[:, -3:]
    error = float((session.catch_up()[:, -3:] - expected).abs().max() / expected.abs().max())
    assert error <= 1e-5


def test_positions_that_are_not_there_cannot_be_kept() -> None:
    session = Stage(decoder_of(make("llama")), 0, 3).session()
    session.feed(torch.randn(1, 4, 32))
    for positions in (5, -1):
        with pytest.raises(ValueError, match="cannot keep"):
            session.roll_back(positions)


def test_a_cache_that_cannot_forget_says_so() -> None:
    """A layer with a running state, as linear attention has, holds no past to return to."""
    from transformers.cache_utils import LinearAttentionLayer

    session = Stage(decoder_of(make("llama")), 0, 3).session()
    session.feed(torch.randn(1, 4, 32))
    session.catch_up()
    session.cache_layers[1] = LinearAttentionLayer()
    with pytest.raises(SplitError, match="rolled back"):
        session.roll_back(2)


def test_a_freed_session_is_zeroed_and_empty() -> None:
    stage = Stage(decoder_of(make("llama")), 0, 3)
    torch.manual_seed(3)
    first, second = torch.randn(1, 6, 32), torch.randn(1, 2, 32)
    session = stage.session()
    assert session.memory_bytes == 0
    session.feed(first)
    expected = session.catch_up()
    # Three layers, keys and values, two heads of 8 numbers, float32.
    assert session.memory_bytes == 6 * 3 * 2 * 2 * 8 * 4
    session.roll_back(4)
    again = first.clone()
    session.feed(second)
    held = [tensor for layer in session.cache_layers for tensor in (layer.keys, layer.values)]
    whole = [torch.empty(0).set_(tensor.untyped_storage()) for tensor in held]
    assert all(float(tensor.abs().max()) > 0 for tensor in whole)

    session.free()
    # Also what the roll-back had only hidden from view.
    assert [tensor.numel() for tensor in whole] == [6 * 2 * 8] * 6
    assert not any(tensor.any() for tensor in whole)
    assert not second.any()
    assert (session.positions_run, session.waiting_positions, session.memory_bytes) == (0, 0, 0)
    session.feed(again)
    torch.testing.assert_close(session.catch_up(), expected)
