"""Early exits: who speaks, thresholds, their calibration, and files that are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import MessageRefused, ModelError
from roadside.models import checkpoints
from roadside.models.answering import EdgeAnswerer, edge_answerer
from roadside.models.calibration import Votes, calibrate, smallest_threshold
from roadside.models.decoding import Limits, to_the_end
from roadside.models.exits import load_exits, most_likely, thresholds_for
from roadside.models.modes import standalone
from roadside.models.questions import Question
from roadside.models.stages import decoder_of


def generate(answerer: EdgeAnswerer, frame: bytes, thresholds: tuple[float, float], max_tokens: int = 12):
    prompt = answerer.encode(Question("describe the scene .", (frame,)))
    # An end token that is never said makes lengths equal.
    return to_the_end(standalone.decode(answerer.partition, prompt, Limits(max_tokens, -1, thresholds)))


def test_the_first_exit_speaks_exactly_where_it_is_sure(tiny_folder: Path, frame: bytes) -> None:
    """Between two of its own confidences, the threshold parts the tokens as their confidences say."""
    answerer = edge_answerer(str(tiny_folder))
    alone = generate(answerer, frame, (0.0, 0.0))
    assert set(alone.made_by) == {"exit1"}
    threshold = sorted(alone.confidences)[len(alone.confidences) // 2]
    mixed = generate(answerer, frame, (threshold, 0.0))
    # Until the second exit first says something else, both runs have the same prefix and the same confidences.
    first_doubt = next(index for index, confidence in enumerate(alone.confidences) if confidence < threshold)
    assert mixed.made_by[:first_doubt] == ["exit1"] * first_doubt
    assert mixed.made_by[first_doubt] == "exit2"
    assert set(mixed.made_by) == {"exit1", "exit2"}
    for speaker, confidence in zip(mixed.made_by, mixed.confidences, strict=True):
        assert speaker == "exit2" or confidence >= threshold


def test_the_second_exit_alone_is_a_shallow_model(tiny_folder: Path, frame: bytes) -> None:
    """With an unreachable first threshold, tokens are those of a decoder that ends after the second exit's layers."""
    answerer = edge_answerer(str(tiny_folder))
    spoken = generate(answerer, frame, (1.1, 0.0))
    assert set(spoken.made_by) == {"exit2"}

    model = checkpoints.load(tiny_folder).model
    question = Question("describe the scene .", (frame,))
    inputs = answerer.reader.read(question)
    embedding = decoder_of(model).embed_tokens
    prompt = answerer.encode(question).inputs()
    assert isinstance(prompt, torch.Tensor)
    embeddings = torch.cat([prompt, embedding(torch.tensor([spoken.tokens[:-1]]))], 1)
    with torch.inference_mode():
        whole = decoder_of(model)(inputs_embeds=embeddings, output_hidden_states=True, use_cache=False)
        logits = answerer.partition.exits.heads[1](whole.hidden_states[4][:, inputs["input_ids"].shape[1] - 1 :])
    assert spoken.tokens == logits[0].argmax(-1).tolist()


def test_skipping_the_second_stage_changes_nothing_it_says_later(tiny_folder: Path, frame: bytes) -> None:
    """Positions that waited while exit 1 spoke are run when exit 2 must speak, as if they had never waited."""
    answerer = edge_answerer(str(tiny_folder))
    lazy = generate(answerer, frame, (0.0, 0.0))
    lazy_then_asked = generate(answerer, frame, (sorted(lazy.confidences)[2], 0.0))
    edge = answerer.partition
    first, second = edge.first.session(), edge.second.session()
    hidden = answerer.encode(Question("describe the scene .", (frame,))).inputs()
    for token, speaker in zip(lazy_then_asked.tokens, lazy_then_asked.made_by, strict=True):
        first.feed(hidden)
        after_first = first.catch_up()
        second.feed(after_first)
        after_second = second.catch_up()
        by_exit = edge.exits.predict(0, after_first) if speaker == "exit1" else edge.exits.predict(1, after_second)
        assert by_exit[0] == token
        hidden = answerer.encoder.embed(token)


def test_confidence_is_the_largest_softmax_probability() -> None:
    token, confidence = most_likely(torch.tensor([[0.0, 2.0, 1.0]]))
    assert token == 1
    assert confidence == pytest.approx(2.718281828**2 / (1 + 2.718281828 + 2.718281828**2), rel=1e-6)


def test_thresholds_must_match_the_exits(tiny_folder: Path) -> None:
    exits = checkpoints.load(tiny_folder).exits
    assert thresholds_for((), exits) == exits.thresholds
    assert thresholds_for((0.1, 0.2), exits) == (0.1, 0.2)
    with pytest.raises(MessageRefused) as refused:
        thresholds_for((0.5,), exits)
    assert refused.value.reason == "exit-thresholds"


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.tuples(st.integers(1, 10_000), st.booleans()), min_size=1, max_size=60),
    agreement=st.sampled_from([0.5, 0.8, 0.9, 0.99, 1.0]),
)
def test_a_calibrated_threshold_keeps_its_promise(tokens: list[tuple[int, bool]], agreement: float) -> None:
    confidence = torch.tensor([each / 10_000 for each, _ in tokens], dtype=torch.float64) + 1e-6
    votes = Votes(confidence, torch.tensor([agrees for _, agrees in tokens]))

    def agreement_at(threshold: float) -> float:
        return float(votes.agrees[votes.confidence >= threshold].double().mean())

    threshold = smallest_threshold(votes, agreement)
    keeping = [step for step in confidence.tolist() if agreement_at(step) >= agreement]
    if keeping:
        assert agreement_at(threshold) >= agreement
        assert threshold == pytest.approx(min(keeping), abs=2e-6)
    else:
        assert threshold == 1.0


def test_calibration_judges_the_second_exit_by_what_the_first_left_over() -> None:
    """Exit 2 would do well on the easy tokens, but it never sees them."""
    sure_first = torch.tensor([0.99] * 90 + [0.3] * 10)
    first = Votes(sure_first, torch.tensor([True] * 90 + [False] * 10))
    second = Votes(torch.full((100,), 0.7), torch.tensor([True] * 90 + [True] * 5 + [False] * 5))
    calibration = calibrate([first, second], agreement=0.95)
    assert 0.3 < calibration.thresholds[0] <= 0.9901
    assert calibration.thresholds[1] == 1.0
    assert calibration.curves[1][0].agreement == pytest.approx(0.5)


def test_exits_survive_the_disk(tiny_folder: Path) -> None:
    exits = load_exits(tiny_folder, 32, checkpoints.load(tiny_folder).model.config.text_config.vocab_size)
    assert (exits.layers, exits.thresholds) == ((2, 4), (0.8, 0.8))
    assert all(weight.dtype is torch.float32 for weight in exits.heads.parameters())


def _cut_weights(folder: Path) -> None:
    path = folder / "exits.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _other_layers(folder: Path) -> None:
    (folder / "exits.json").write_text(json.dumps({"layers": [4, 2], "thresholds": [0.8, 0.8]}))


def _no_json(folder: Path) -> None:
    (folder / "exits.json").write_text("{")


def _no_weights(folder: Path) -> None:
    (folder / "exits.safetensors").unlink()


@pytest.mark.parametrize("damage", [_cut_weights, _other_layers, _no_json, _no_weights])
def test_broken_exits_are_a_model_error(damage: Callable[[Path], None], write_model: Callable[..., Path]) -> None:
    folder = write_model()
    damage(folder)
    with pytest.raises(ModelError, match="exits"):
        checkpoints.load(folder)
