"""Training: it learns, its data are what serving sees, and nothing half-made is left behind."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from roadside.bus.errors import ConfigurationError
from roadside.bus.kinds import KINDS
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.phrases import parse, telemetry_text, words
from roadside.datasets.renderer import OBJECT_NAMES, ObjectBox
from roadside.datasets.samples import make_sample
from roadside.models import training
from roadside.models.answering import edge_answerer
from roadside.models.learning import random_batches, schedule
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Question, answer_at_once
from roadside.models.training import Training, TrainingOptions, train_vlm
from roadside.models.training_data import (
    CLASS_SETS,
    QuestionWriter,
    augmented,
    class_indices,
    objects_by_patch,
    render_scenes,
    to_pixels,
)
from roadside.models.training_losses import read, see
from roadside.models.vlm import Recipe, build_model, build_processor

SEED = 20_000_000


@pytest.fixture(scope="module")
def scenes():
    return render_scenes(SEED, 24, Recipe(frame_size=64), processes=1, advance=lambda _: None)


def options(recipe: Recipe) -> TrainingOptions:
    return TrainingOptions(
        cpu_minutes=0.2,
        scenes=64,
        calibration_scenes=16,
        test_scenes=4,
        batch_size=16,
        warm_up_steps=5,
        vision_learning_rate=3e-3,
        learning_rate=3e-3,
        exit_layers=(2, 4),
        render_processes=1,
        recipe=recipe,
    )


def test_training_learns_and_writes_a_folder_that_answers(tmp_path: Path, tiny_recipe: Recipe, frame: bytes) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    trained = Training(options(tiny_recipe), Progress(disable=True))
    card = trained.run(folder)

    for (name, losses), share in zip(trained.losses.items(), (0.9, 0.85), strict=True):
        assert len(losses) > 10, name
        assert np.mean(losses[-5:]) < share * np.mean(losses[:3]), name
    assert json.loads(json.dumps(card)) == json.loads((folder / "card.json").read_text())
    assert set(card["quality"]["edge"]) == set(card["quality"]["cloud"]) == set(KINDS)
    assert {"cloud", "edge", "blank-image"} <= set(card["scores"])
    assert card["steps"]["learning to answer"] == len(trained.losses["learning to answer"])

    answerer = edge_answerer(str(folder))
    assert answerer.quality["edge"] == card["quality"]["edge"]
    assert answer_at_once(answerer, Question(KINDS["explain"].prompt, (frame,))).tokens


def test_training_prompts_are_serving_prompts(frame: bytes) -> None:
    recipe = Recipe()
    processor = build_processor(recipe, words())
    telemetry = {"Vehicle.Speed": 43.0, "Vehicle.AngularVelocity.Yaw": 3.2}
    for kind in KINDS.values():
        served = PromptReader(processor).read(Question(kind.prompt, (frame,), telemetry))
        assert (
            QuestionWriter(processor, recipe).prompt(kind, telemetry_text(telemetry)) == served["input_ids"][0].tolist()
        )


def test_training_pixels_are_serving_pixels() -> None:
    recipe = Recipe()
    jpeg = encode_jpeg(make_sample(SEED).image, 80)
    reader = PromptReader(build_processor(recipe, words()))
    served = reader.read(Question(KINDS["explain"].prompt, (jpeg,)))["pixel_values"][0]

    from roadside.models.images import open_image

    squeezed = open_image(jpeg).resize((recipe.frame_size, recipe.frame_size), Image.Resampling.BILINEAR)
    torch.testing.assert_close(to_pixels(np.asarray(squeezed)[None]), served, rtol=0, atol=1e-6)


def test_questions_that_share_a_scene_are_read_as_if_alone(scenes) -> None:
    """The packed pass against the model's own forward on each question by itself."""
    recipe = Recipe(frame_size=64, vision_layers=1, text_layers=3)
    processor = build_processor(recipe, words())
    model = build_model(recipe, processor, seed=1).eval()
    questions = QuestionWriter(processor, recipe).ask(scenes, [0, 1], random.Random(0))
    pixels = to_pixels(scenes.frames[:2])
    with torch.inference_mode():
        image_tokens, _ = see(model, pixels, recipe)
        hidden = read(model, questions, image_tokens)
        assert len(hidden) == recipe.text_layers + 1
        logits = model.lm_head(hidden[-1])
        for row in range(2):
            for section in (1, 2, 3):
                common, own = questions.section[row] == 0, questions.section[row] == section
                alone = torch.cat([questions.tokens[row][common], questions.tokens[row][own]])
                assert torch.cat([questions.position[row][common], questions.position[row][own]]).tolist() == list(
                    range(len(alone))
                )
                expected = model(input_ids=alone[None], pixel_values=pixels[row][None, None]).logits[0]
                torch.testing.assert_close(logits[row][own], expected[int(common.sum()) :], rtol=1e-4, atol=1e-4)


def test_questions_are_the_served_prompts_and_labels_their_answers(scenes) -> None:
    recipe = Recipe(frame_size=64)
    processor = build_processor(recipe, words())
    tokenizer = processor.tokenizer
    writer = QuestionWriter(processor, recipe)
    questions = writer.ask(scenes, list(range(24)), random.Random(0))
    missing_telemetry = 0
    for row in range(24):
        for section, kind in enumerate(KINDS.values(), start=1):
            own = (questions.section[row] == 0) | (questions.section[row] == section)
            tokens, labels = questions.tokens[row][own], questions.labels[row][own]
            asked = (labels != -100).nonzero().flatten()
            prompt = tokens[: asked[0] + 1].tolist()
            assert prompt in (writer.prompt(kind, scenes.telemetry[row]), writer.prompt(kind, telemetry_text({})))
            missing_telemetry += prompt == writer.prompt(kind, telemetry_text({}))
            # What is said at one position is read at the next, except the end token, which ends it.
            assert tokens[asked[1:]].tolist() == labels[asked[:-1]].tolist()
            assert labels[asked[-1]] == tokenizer.eos_token_id
            said = parse(tokenizer.decode(labels[asked], skip_special_tokens=True))
            assert said.justification == scenes.facts[row].justification
            assert said.action == (scenes.facts[row].action if "action" in kind.asks_for else None)
    assert tokenizer.unk_token_id not in questions.tokens
    assert 0 < missing_telemetry < 24


def test_scenes_carry_their_facts(scenes) -> None:
    assert scenes.frames.shape == (24, 64, 64, 3)
    assert scenes.frames.std() > 20
    for facts, indices in zip(scenes.facts, scenes.classes, strict=True):
        assert class_indices(facts) == indices.tolist()
        assert CLASS_SETS[1][indices[1]] == facts.justification


def test_objects_fall_into_the_patches_that_they_cover() -> None:
    recipe = Recipe(frame_size=64, patch_size=16)  # 4 x 4 patches of 80 x 48 pixels of a 320 x 192 frame
    name = OBJECT_NAMES[0]
    large = ObjectBox((name,), left=85, top=50, right=235, bottom=95)
    small = ObjectBox((OBJECT_NAMES[1], OBJECT_NAMES[2]), left=300, top=180, right=303, bottom=184)
    grid = objects_by_patch([large, small], (320, 192), recipe).reshape(4, 4, len(OBJECT_NAMES))
    assert np.argwhere(grid[:, :, 0]).tolist() == [[1, 1], [1, 2]]
    assert np.argwhere(grid[:, :, 1]).tolist() == np.argwhere(grid[:, :, 2]).tolist() == [[3, 3]]
    assert grid.sum() == 4


def test_augmentation_keeps_the_picture_recognisable() -> None:
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    changed = augmented(pixels, torch.Generator().manual_seed(1), most_shift=0)
    assert not torch.equal(changed, pixels)
    for before, after in zip(pixels, changed, strict=True):
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.98


def test_the_schedule_is_flat_then_falls() -> None:
    shares = [schedule(step / 100) for step in range(101)]
    assert shares[:30] == [1.0] * 30
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.05)


def test_every_scene_is_seen_once_before_any_comes_again() -> None:
    batches = random_batches(12, 4, random.Random(0))
    rounds = [[next(batches) for _ in range(3)] for _ in range(2)]
    for batches_of_round in rounds:
        assert sorted(index for batch in batches_of_round for index in batch) == list(range(12))
    assert rounds[0] != rounds[1]


def test_an_interrupted_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "render_scenes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_vlm(tmp_path / "deep" / "model", cpu_minutes=0.05, progress=Progress(disable=True))
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match="exists already"):
        train_vlm(tmp_path, cpu_minutes=0.05, progress=Progress(disable=True))
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_quick_is_a_fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainingOptions] = []

    def record(self: Training, folder: Path) -> dict[str, object]:
        seen.append(self.options)
        return {}

    monkeypatch.setattr(Training, "run", record)
    for quick in (False, True):
        train_vlm(tmp_path / str(quick), cpu_minutes=10, seed=3, quick=quick, progress=Progress(disable=True))
    assert seen[1] == replace(
        seen[0],
        cpu_minutes=2.0,
        scenes=seen[0].scenes // 5,
        calibration_scenes=seen[1].calibration_scenes,
        test_scenes=seen[1].test_scenes,
    )
