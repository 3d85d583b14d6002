"""Sequences that share a pass come out as if each had run alone, and so do their caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.models import batched_stages
from roadside.models.batched_stages import can_share, catch_up_together
from roadside.models.stages import Stage, StageSession, decoder_of, final_head
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


def stage_of(model: Any) -> Stage:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.25)
    return Stage(decoder_of(model.eval()), 0, SIZES["num_hidden_layers"])


@pytest.fixture(scope="module", params=["llama", "qwen3", "llama-eager"])
def stage(request: pytest.FixtureRequest) -> Stage:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    match request.param:
        case "llama":
            return stage_of(LlamaForCausalLM(LlamaConfig(**SIZES)))
        case "qwen3":
            return stage_of(Qwen3ForCausalLM(Qwen3Config(**SIZES)))
        case _:
            return stage_of(LlamaForCausalLM(LlamaConfig(**{**SIZES, "attn_implementation": "eager"})))


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(1, count, SIZES["hidden_size"], generator=torch.Generator().manual_seed(seed))


def cached(session: StageSession) -> list[torch.Tensor]:
    return [tensor for layer in session.cache_layers for tensor in (layer.keys, layer.values)]


def assert_alike(sessions: list[StageSession], others: list[StageSession], *, exactly: bool = False) -> None:
    tolerance = 0.0 if exactly else 1e-4
    for one, other in zip(sessions, others, strict=True):
        assert one.positions_run == other.positions_run
        for left, right in zip(cached(one), cached(other), strict=True):
            torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(
    rounds=st.lists(
        st.lists(st.integers(0, 6), min_size=4, max_size=4).filter(lambda counts: any(counts)), min_size=1, max_size=5
    ),
    keep=st.integers(0, 5),
)
def test_together_is_as_one_by_one(stage: Stage, rounds: list[list[int]], keep: int):
    """Sequences of different lengths, with different numbers of new positions; some are cut back in between."""
    together, alone = [stage.session() for _ in range(4)], [stage.session() for _ in range(4)]
    for number, counts in enumerate(rounds):
        for index, count in enumerate(counts):
            if count:
                inputs = rows(count, seed=100 * number + index)
                together[index].feed(inputs)
                alone[index].feed(inputs.clone())
        asked = [index for index, count in enumerate(counts) if count]
        caught = catch_up_together([together[index] for index in asked])
        assert (caught.passes, caught.alone) == (1, 0)
        for index, output in zip(asked, caught.outputs, strict=True):
            torch.testing.assert_close(output, alone[index].catch_up(), rtol=1e-4, atol=1e-4)
        for session in (together[0], alone[0]):
            session.roll_back(min(keep, session.positions))
    begun = [index for index in range(4) if together[index].positions_run]
    assert_alike([together[index] for index in begun], [alone[index] for index in begun])


def test_a_session_among_others_does_not_depend_on_them(stage: Stage):
    """Bit for bit: nothing of another sequence can be told from what a session gets."""

    def beside(seed: int) -> tuple[torch.Tensor, StageSession]:
        watched, other = stage.session(), stage.session()
        watched.feed(rows(5, 1))
        other.feed(rows(5, seed))
        return catch_up_together([watched, other]).outputs[0], watched

    (one, first), (another, second) = beside(2), beside(3)
    assert torch.equal(one, another)
    assert_alike([first], [second], exactly=True)


def test_position_ids_on_several_axes_stay_with_their_sequence(stage: Stage):
    # A decoder with one axis is enough to see whose ids arrive where.
    plain, shifted = stage.session(), stage.session()
    plain.feed(rows(3, 1))
    shifted.feed(rows(3, 2), torch.tensor([[7, 8, 9]]))
    expected, other = stage.session(), stage.session()
    expected.feed(rows(3, 1))
    other.feed(rows(3, 2), torch.tensor([[7, 8, 9]]))
    outputs = catch_up_together([plain, shifted]).outputs
    torch.testing.assert_close(outputs[0], expected.catch_up(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs[1], other.catch_up(), rtol=1e-4, atol=1e-4)


def test_caches_that_slide_are_run_one_at_a_time_and_counted():
    torch.manual_seed(4)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4))
    stage = stage_of(model)
    head = final_head(model)
    together, alone = [stage.session() for _ in range(3)], [stage.session() for _ in range(3)]
    assert not can_share(together[0])
    for number in range(3):
        for index in range(3):
            inputs = rows(2 + index, seed=10 * number + index)
            together[index].feed(inputs)
            alone[index].feed(inputs.clone())
        caught = catch_up_together(together)
        assert (caught.passes, caught.alone) == (3, 3)
        for output, session in zip(caught.outputs, alone, strict=True):
            assert torch.equal(head(output), head(session.catch_up()))


def test_a_pass_does_not_grow_beyond_its_mask(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batched_stages, "_LARGEST_MASK", 60)
    together, alone = [stage.session() for _ in range(4)], [stage.session() for _ in range(4)]
    for index, count in enumerate((9, 3, 4, 2)):
        together[index].feed(rows(count, index))
        alone[index].feed(rows(count, index))
    caught = catch_up_together(together)
    assert caught.passes == 3, "9 by itself, then 3 and 4, then 2"
    for output, session in zip(caught.outputs, alone, strict=True):
        torch.testing.assert_close(output, session.catch_up(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("when", ["now", "before"])
def test_numbers_that_overflow_in_one_sequence_reach_no_other(stage: Stage, when: str):
    """A mask multiplies by 0, and 0 times infinity is not 0."""
    sick, sound, expected = stage.session(), stage.session(), stage.session()
    if when == "before":
        sick.feed(torch.full((1, 2, SIZES["hidden_size"]), torch.inf))
        assert not torch.isfinite(sick.catch_up()).all()
    for session in (sound, expected):
        session.feed(rows(4, 1))
        session.catch_up()
    for number in range(2):
        sick.feed(torch.full((1, 2, SIZES["hidden_size"]), torch.inf))
        sound.feed(rows(2, 2 + number))
        expected.feed(rows(2, 2 + number))
        first, second = catch_up_together([sick, sound]).outputs
        assert not torch.isfinite(first).all()
        torch.testing.assert_close(second, expected.catch_up(), rtol=1e-4, atol=1e-4)
    assert_alike([sound], [expected])
