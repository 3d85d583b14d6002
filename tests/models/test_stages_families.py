"""Decoders of many families, cut at two exits: whatever is fed, run and rolled back, they compute what the model does.

Where a schedule fails, hypothesis prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from roadside.bus.tensors import FLOAT16_LARGEST
from roadside.models.precision import to_float16, to_float32
from roadside.models.prompt_encoder import PromptEncoder
from roadside.models.stages import Stage, decoder_of, split_decoder
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

VOCABULARY = 90
LAYERS = 6
EXITS = (2, 4)
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    **HEADS,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
# In the vocabulary: an image's place, and what is around it.
IMAGE, VIDEO, IMAGE_STARTS, IMAGE_ENDS = 85, 86, 87, 88
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": IMAGE_STARTS,
    "vision_end_token_id": IMAGE_ENDS,
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}


def make_config(config_class: Any, **settings: Any) -> Any:
    return config_class(**settings)


def smolvlm(model_class: Any, config_class: Any) -> Any:
    config = make_config(
        config_class,
        image_token_id=IMAGE,
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=0,
        vision_config=VISION,
        text_config={"model_type": "llama", **TEXT},
    )
    return model_class(config)


def qwen3_vl() -> Any:
    vision = {**QWEN_VISION, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    text = {**TEXT, "rope_parameters": MROPE}
    config = make_config(Qwen3VLConfig, **QWEN_TOKENS, vision_config=vision, text_config=text)
    return Qwen3VLForConditionalGeneration(config)


def qwen2_5_vl() -> Any:
    vision = {**QWEN_VISION, "window_size": 16, "fullatt_block_indexes": [1]}
    text = {**TEXT, "rope_parameters": MROPE}
    config = make_config(Qwen2_5_VLConfig, **QWEN_TOKENS, vision_config=vision, text_config=text)
    return Qwen2_5_VLForConditionalGeneration(config)


# Windows are shorter than the sequences, so that sliding caches really slide.
SLIDING = ["sliding_attention", "full_attention"] * (LAYERS // 2)
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**TEXT)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**TEXT)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**TEXT)),
    "qwen3-hybrid": lambda: Qwen3ForCausalLM(
        Qwen3Config(**TEXT, use_sliding_window=True, sliding_window=7, max_window_layers=3)
    ),
    "mistral-sliding": lambda: MistralForCausalLM(MistralConfig(**TEXT, sliding_window=7)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**TEXT, sliding_window=7, layer_types=SLIDING, query_pre_attn_scalar=8)
    ),
    "smollm3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**TEXT, no_rope_layers=[1, 1, 0, 1, 0, 1])),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**TEXT)),
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**TEXT)),
    "idefics3": lambda: smolvlm(Idefics3ForConditionalGeneration, Idefics3Config),
    "smolvlm": lambda: smolvlm(SmolVLMForConditionalGeneration, SmolVLMConfig),
    "qwen3-vl": qwen3_vl,
    "qwen2.5-vl": qwen2_5_vl,
}
SEE = ("idefics3", "smolvlm", "qwen3-vl", "qwen2.5-vl")


@dataclass(frozen=True)
class Case:
    """A model, the inputs of a prompt, and what its decoder reads of that."""

    model: Any
    inputs: dict[str, Tensor]
    prompt: Any
    embed: Callable[[Tensor], Tensor]

    @property
    def prompt_length(self) -> int:
        return self.inputs["input_ids"].shape[1]

    def inputs_with(self, tokens: list[int]) -> dict[str, Tensor]:
        """The prompt's inputs with tokens behind it."""
        extended = dict(self.inputs)
        extended["input_ids"] = torch.cat([self.inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], dim=1)
        if "mm_token_type_ids" in extended:
            kinds = torch.zeros(1, len(tokens), dtype=self.inputs["mm_token_type_ids"].dtype)
            extended["mm_token_type_ids"] = torch.cat([self.inputs["mm_token_type_ids"], kinds], dim=1)
        return extended


@cache
def make(family: str) -> Case:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "position" not in name:
                # The library's 0.02 leaves logits so flat that a wrong split could still pick the same tokens.
                parameter.normal_(std=0.25)
    words = torch.randint(3, 80, (1, 5))
    inputs = {"input_ids": words}
    if family in SEE:
        # Between the words, an image of 4 tokens; for Qwen of 2 x 3.
        count = 6 if family.startswith("qwen") else 4
        image = torch.tensor([[IMAGE_STARTS, *[IMAGE] * count, IMAGE_ENDS]])
        inputs = {"input_ids": torch.cat([words[:, :2], image, words[:, 2:]], dim=1)}
        if family.startswith("qwen"):
            inputs["pixel_values"] = torch.randn(4 * count, 3 * 2 * 4 * 4)
            inputs["image_grid_thw"] = torch.tensor([[1, 4, 6]])
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
        else:
            inputs["pixel_values"] = torch.randn(1, 1, 3, 32, 32)
    embed = decoder_of(model).embed_tokens
    with torch.inference_mode():
        prompt = PromptEncoder(model).encode(inputs) if family in SEE else embed(inputs["input_ids"])
    return Case(model, inputs, prompt, embed)


@torch.inference_mode()
def unsplit(case: Case, tokens: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Of one uninterrupted pass: the residual stream at both exits [1, positions, hidden_size], and the logits."""
    seen: dict[int, Tensor] = {}

    def see(layer: int) -> Any:
        def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            seen[layer] = arguments[0] if arguments else named["hidden_states"]

        return decoder_of(case.model).layers[layer].register_forward_pre_hook(hook, with_kwargs=True)

    hooks = [see(layer) for layer in EXITS]
    logits = case.model(**case.inputs_with(tokens), use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return seen[EXITS[0]], seen[EXITS[1]], logits


class Chain:
    """The three stages over one sequence; the second and the rest lag behind the first as they please."""

    def __init__(self, case: Case) -> None:
        self.case = case
        split = split_decoder(case.model, EXITS)
        self.head = split.head
        self.first, self.second, self.rest = (each.session() for each in (split.first, split.second, split.rest))
        # What came out for each position that stands.
        self.outputs = {name: torch.empty(1, 0, TEXT["hidden_size"]) for name in ("first", "second", "rest")}

    @torch.inference_mode()
    def feed(self, inputs: Any) -> None:
        start = self.first.positions
        self.first.feed(inputs)
        after_first = self._run("first")
        position_ids = self.first.position_ids(start, self.first.positions)
        for session in (self.second, self.rest):
            session.feed(after_first, position_ids)

    def catch_up(self, name: str) -> None:
        if getattr(self, name).waiting_positions:
            self._run(name)

    def roll_back(self, positions: int) -> None:
        for name in self.outputs:
            getattr(self, name).roll_back(positions)
            self.outputs[name] = self.outputs[name][:, :positions]

    @torch.inference_mode()
    def _run(self, name: str) -> Tensor:
        after = getattr(self, name).catch_up()
        self.outputs[name] = torch.cat([self.outputs[name], after], dim=1)
        return after

    @torch.inference_mode()
    def next_token(self) -> int:
        self.catch_up("rest")
        return int(self.head(self.outputs["rest"][:, -1]).argmax())


def off_by(ours: Tensor, expected: Tensor) -> float:
    """Against the states' own scale: float32 rounds a residual sum by its large terms."""
    return float((ours - expected).abs().max() / expected.abs().max())


STEPS = st.one_of(
    st.tuples(st.just("feed"), st.integers(1, 6)),
    st.tuples(st.just("catch up"), st.sampled_from(("second", "rest"))),
    # By how much, as a share of what was fed behind the prompt.
    st.tuples(st.just("roll back"), st.floats(0, 1)),
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(steps=st.lists(STEPS, min_size=2, max_size=10), seed=st.integers(0, 99))
def test_any_schedule_computes_what_the_unsplit_model_does(
    family: str, steps: list[tuple[str, Any]], seed: int
) -> None:
    case, tokens = make(family), []
    chain = Chain(case)
    chain.feed(case.prompt)
    drawn = torch.Generator().manual_seed(seed)
    for kind, argument in [*steps, ("feed", 2), ("catch up", "second"), ("catch up", "rest")]:
        if kind == "feed":
            new = torch.randint(3, 80, (argument,), generator=drawn).tolist()
            chain.feed(case.embed(torch.tensor([new])))
            tokens += new
        elif kind == "catch up":
            chain.catch_up(argument)
        else:
            tokens = tokens[: len(tokens) - round(argument * len(tokens))]
            chain.roll_back(case.prompt_length + len(tokens))
    note(f"standing behind the prompt: {tokens}")
    after_first, after_second, logits = unsplit(case, tokens)
    assert off_by(chain.outputs["first"], after_first) <= 2e-5
    assert off_by(chain.outputs["second"], after_second) <= 2e-5
    with torch.inference_mode():
        ours = chain.head(chain.outputs["rest"])
    assert off_by(ours, logits) <= 2e-5
    assert ours.argmax(-1).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_what_the_model_generates(family: str) -> None:
    """With wrong drafts between the tokens, which are run through some of the stages and then rolled back."""
    case = make(family)
    expected = case.model.generate(**case.inputs, max_new_tokens=14, do_sample=False, eos_token_id=None)
    chain, said = Chain(case), []
    chain.feed(case.prompt)
    drawn = torch.Generator().manual_seed(1)
    for number in range(14):
        said.append(chain.next_token())
        if number % 3 == 1:
            standing = chain.first.positions
            chain.feed(case.embed(torch.randint(3, 80, (1, 1 + number % 4), generator=drawn)))
            chain.catch_up("rest" if number % 2 else "second")
            chain.roll_back(standing)
        chain.feed(case.embed(torch.tensor([said[-1:]])))
    assert said == expected[0, case.prompt_length :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_takes_the_memory_of_its_keys_and_values(family: str) -> None:
    case = make(family)
    chain = Chain(case)
    chain.feed(case.prompt)
    chain.feed(case.embed(torch.randint(3, 80, (1, 30))))
    chain.roll_back(chain.first.positions - 3)
    chain.feed(case.embed(torch.randint(3, 80, (1, 3))))
    chain.catch_up("rest")
    # Keys and values, of each head 8 numbers of 4 bytes.
    per_layer = chain.first.positions * 2 * HEADS["num_key_value_heads"] * HEADS["head_dim"] * 4
    for session, layers in ((chain.first, EXITS[0]), (chain.rest, LAYERS - EXITS[0])):
        assert session.memory_bytes == pytest.approx(layers * per_layer, rel=0.1)


def test_positions_ids_that_came_over_a_wire_are_counted_on() -> None:
    """A cloud is told the prompt's; behind it, all axes count on by one, on either side alike."""
    case = make("qwen3-vl")
    session = Stage(decoder_of(case.model), 2, 6).session()
    hidden = torch.randn(1, case.prompt_length, 32)
    session.feed(hidden, case.prompt.position_ids)
    session.feed(hidden[:, :3])
    largest = int(case.prompt.position_ids.max())
    told = session.position_ids(case.prompt_length, case.prompt_length + 3)
    assert told is not None
    assert told.tolist() == [[largest + 1, largest + 2, largest + 3]] * 3
    # An image takes fewer positions on each axis than it has tokens.
    assert largest < case.prompt_length - 1
    session.roll_back(0)
    session.feed(hidden[:, :2])
    assert session.position_ids(0, 2) is None


def test_visual_features_only_begin_a_sequence() -> None:
    case = make("qwen3-vl")
    session = Stage(decoder_of(case.model), 0, 2).session()
    session.feed(case.embed(torch.tensor([[5]])))
    with pytest.raises(ValueError, match="first positions"):
        session.feed(case.prompt)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3-vl"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_half_precision_work_through_a_split(family: str, dtype: torch.dtype) -> None:
    """What goes over is float16 from whatever the weights are; tokens may differ where the model itself is unsure."""
    case = make(family)
    whole = FAMILIES[family]().eval()
    whole.load_state_dict(case.model.state_dict())
    whole.to(dtype)
    split = split_decoder(whole, EXITS)
    encoded = PromptEncoder(whole).encode(case.inputs) if family in SEE else None
    prompt = encoded if encoded is not None else decoder_of(whole).embed_tokens(case.inputs["input_ids"])
    first, rest = split.first.session(), split.rest.session()
    with torch.inference_mode():
        first.feed(prompt)
        after_first = first.catch_up()
        assert after_first.dtype == dtype
        rest.feed(to_float32(to_float16(after_first)), first.position_ids(0, first.positions))
        ours = split.head(rest.catch_up()[:, -1])[0].float()
        expected = whole(**case.inputs, use_cache=False).logits[0, -1].float()
    # 8 and 11 bits of precision through six layers.
    assert off_by(ours, expected) <= (0.1 if dtype == torch.bfloat16 else 0.02)
    top = expected.topk(2).values
    if float(top[0] - top[1]) > 0.1 * float(expected.abs().max()):
        assert int(ours.argmax()) == int(expected.argmax())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_hidden_states_saturate(dtype: torch.dtype) -> None:
    """bfloat16 cannot write float16's largest number, and rounds it up to one that float16 does not have."""
    hidden = torch.tensor([1e30, -1e30, 65504.0, 65536.0, 1.0], dtype=dtype)
    over = to_float16(hidden)
    assert over.tolist() == [FLOAT16_LARGEST, -FLOAT16_LARGEST, FLOAT16_LARGEST, FLOAT16_LARGEST, 1.0]
