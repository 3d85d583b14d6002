"""Scoring many scenes at once: the same words as serving one by one, and the counts that the card is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from roadside.bus.kinds import EXPLAIN, KINDS
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.phrases import telemetry_text
from roadside.datasets.samples import Sample, make_samples
from roadside.models import checkpoints
from roadside.models.answering import cloud_answerer, edge_answerer
from roadside.models.images import open_image
from roadside.models.questions import Question, answer_at_once
from roadside.models.scoring import CURVE_THRESHOLDS, FrameScores, Scorer, score
from roadside.models.training_data import Scenes, class_indices, objects_by_patch
from roadside.models.vlm import Recipe

SEED = 21_000_000


Served = list[tuple[tuple[bytes, ...], dict[str, float]]]


@pytest.fixture(scope="module", params=[1, 2], ids=["one frame", "two frames"])
def samples(request: pytest.FixtureRequest) -> list[Sample]:
    return list(make_samples(SEED, 6, frames=request.param))


@pytest.fixture(scope="module")
def served(samples: list[Sample]) -> Served:
    """What a vehicle would send."""
    return [(tuple(encode_jpeg(each.image, 80) for each in sample.frames), sample.telemetry) for sample in samples]


@pytest.fixture(scope="module")
def scenes(samples: list[Sample], served: Served) -> Scenes:
    """The same as arrays."""
    frames = [
        [np.asarray(open_image(jpeg).resize((64, 64), Image.Resampling.BILINEAR)) for jpeg in jpegs]
        for jpegs, _ in served
    ]
    recipe = Recipe(frame_size=64)
    return Scenes(
        frames=np.array(frames),
        telemetry=[telemetry_text(telemetry) for _, telemetry in served],
        facts=[sample.facts for sample in samples],
        classes=np.array([class_indices(sample.facts) for sample in samples]),
        objects=np.array(
            [[objects_by_patch(each.boxes, each.image.size, recipe) for each in sample.frames] for sample in samples]
        ),
    )


@pytest.mark.parametrize("voice", ["cloud", "edge"])
def test_a_batch_says_what_serving_says(tiny_folder: Path, tiny_recipe: Recipe, scenes, served, voice) -> None:
    scorer = Scorer(checkpoints.load(str(tiny_folder)), scenes, tiny_recipe)
    thresholds = (0.0021, 0.0021)
    decoded = scorer.answers(EXPLAIN, voice, thresholds, scorer.images)
    answerer = (cloud_answerer if voice == "cloud" else edge_answerer)(str(tiny_folder))
    end_token = scorer.end_token
    for tokens, (jpegs, telemetry) in zip(decoded.tokens, served, strict=True):
        question = Question(EXPLAIN.prompt, jpegs, telemetry, max_tokens=EXPLAIN.max_tokens)
        if voice == "edge":
            question = replace(question, exit_thresholds=thresholds)
        said = [token for token in answer_at_once(answerer, question).tokens if token != end_token]
        assert tokens == said


def test_thresholds_move_tokens_from_the_exits_to_the_cloud(tiny_folder: Path, tiny_recipe: Recipe, scenes) -> None:
    scorer = Scorer(checkpoints.load(str(tiny_folder)), scenes, tiny_recipe)
    whole = scorer.answers(EXPLAIN, "cloud", (0.5, 0.5), scorer.images)
    never_sure = scorer.answers(EXPLAIN, "edge+cloud", (1.01, 1.01), scorer.images)
    always_sure = scorer.answers(EXPLAIN, "edge+cloud", (0.0, 0.0), scorer.images)
    assert never_sure.tokens == whole.tokens
    assert never_sure.spoken == 0
    assert always_sure.asked_cloud == 0
    assert 0 <= always_sure.agreed <= always_sure.spoken


def test_scores_name_every_voice_and_kind(tiny_folder: Path, tiny_recipe: Recipe, scenes) -> None:
    scores = score(tiny_folder, scenes, tiny_recipe)
    assert scores.scenes == 6
    for voice in ("cloud", "edge", "edge+cloud"):
        assert set(KINDS) | {"action", "justification"} <= set(scores.voices[voice])
    assert [point.theta for point in scores.theta_curve] == list(CURVE_THRESHOLDS)
    assert scores.theta_curve[0].request_rate == 0.0
    assert scores.theta_curve[-1].request_rate == 1.0
    assert scores.theta_curve[-1].quality == scores.voices["cloud"]["explain"]
    assert all(0.0 <= rate <= 1.0 for rate in scores.by_pair.values())


def test_scenes_are_scored_with_all_frames_and_with_the_newest(tiny_folder: Path, tiny_recipe: Recipe, scenes) -> None:
    scores = FrameScores.of(tiny_folder, scenes, tiny_recipe)
    checkpoint = checkpoints.load(str(tiny_folder))
    for part, seen in ((scores.paired, scenes), (scores.newest, scenes.newest())):
        assert part.voices == Scorer(checkpoint, seen, tiny_recipe).score(thetas=()).voices
    assert scores.paired.theta_curve == ()
