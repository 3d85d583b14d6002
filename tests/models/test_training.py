"""Training: it learns, its data are what serving sees, and nothing half-made is left behind."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from roadside.bus.errors import ConfigurationError
from roadside.bus.kinds import KINDS
from roadside.datasets.boxes import OBJECT_NAMES, ObjectBox
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.phrases import parse, telemetry_text, words
from roadside.datasets.samples import make_sample
from roadside.models import training
from roadside.models.answering import edge_answerer
from roadside.models.checkpoints import load
from roadside.models.curriculum import Curriculum
from roadside.models.learning import batch_at, schedule
from roadside.models.learning_curve import draw_curve
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Question, answer_at_once
from roadside.models.training import train, train_vlm
from roadside.models.training_data import (
    CLASS_SETS,
    QuestionWriter,
    Scenes,
    augmented,
    class_indices,
    objects_by_patch,
    render_scenes,
    to_pixels,
)
from roadside.models.training_losses import read, see
from roadside.models.training_options import QUICK, TrainingOptions
from roadside.models.vlm import Recipe, build_model, build_processor
from torch.nn import functional

SEED = 20_000_000


@pytest.fixture(scope="module")
def scenes():
    return render_scenes(SEED, 24, Recipe(frame_size=64), processes=1, advance=lambda _: None)


@pytest.fixture(scope="module")
def pairs_of_frames():
    return render_scenes(
        SEED, 6, Recipe(frame_size=64), processes=1, advance=lambda _: None, draw="obscured", frames_each=2
    )


def options(recipe: Recipe, **changes: object) -> TrainingOptions:
    small = TrainingOptions(
        scenes=64,
        moments=32,
        obscured_scenes=16,
        paired_scenes=8,
        paired_moments=8,
        calibration_scenes=16,
        test_scenes=12,
        test_moments=8,
        test_obscured_scenes=8,
        vision_steps=30,
        vision_batch_size=16,
        answer_steps=40,
        answer_batch_size=16,
        warm_up_steps=5,
        vision_learning_rate=3e-3,
        learning_rate=3e-3,
        exit_layers=(2, 4),
        checkpoint_every_steps=8,
        recipe=recipe,
    )
    return replace(small, **changes)  # pyright: ignore[reportArgumentType]


class Stopped(Exception):
    """Stands in for a machine that is switched off."""


def stop(*_: object) -> None:
    raise Stopped


class StoppingProgress(Progress):
    """A progress bar that stops the work after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(disable=True)
        self._left = steps

    def update(self, task_id: Any, **fields: Any) -> None:
        super().update(task_id, **fields)
        if "loss" in str(fields.get("note")):
            self._left -= 1
            if self._left == 0:
                raise Stopped


def test_training_learns_and_writes_a_folder_that_answers(tmp_path: Path, tiny_recipe: Recipe, frame: bytes) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    losses: dict[str, list[float]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_curve", lambda all_losses, png: losses.update(all_losses))
        card = train(folder, options(tiny_recipe), device="cpu", progress=Progress(disable=True))

    for name, share in (("learning to see", 0.9), ("learning to answer", 0.8)):
        assert len(losses[name]) > 10, name
        assert np.mean(losses[name][-5:]) < share * np.mean(losses[name][:3]), name
    assert json.loads(json.dumps(card)) == json.loads((folder / "card.json").read_text())
    for place in ("edge", "cloud", "edge+cloud"):
        assert set(card["quality"][place]) == set(KINDS)
    for name in ("scores", "scores_along_drives", "scores_along_drives_with_two_frames"):
        assert {"cloud", "edge", "edge+cloud", "blank-image"} == set(card[name])
    assert set(card["scores_where_the_newest_frame_hides_the_reason"]) == {"both_frames", "newest_frame"}
    assert not (tmp_path / "model.partial").exists()

    answerer = edge_answerer(str(folder))
    assert answerer.quality["edge"] == card["quality"]["edge"]
    for frames in ((frame,), (frame, frame)):
        assert answer_at_once(answerer, Question(KINDS["explain"].prompt, frames)).tokens


@pytest.mark.slow
def test_a_small_training_already_looks_at_the_picture(tmp_path: Path) -> None:
    """On scenes that it was not trained on it knows better what to say than it does with the image blanked."""
    small = options(
        Recipe(frame_size=64),
        scenes=1_500,
        moments=100,
        obscured_scenes=20,
        paired_scenes=20,
        paired_moments=20,
        vision_steps=300,
        vision_batch_size=32,
        answer_steps=220,
        vision_learning_rate=1e-3,
        learning_rate=1e-3,
        warm_up_steps=20,
        exit_layers=(1, 2),
        checkpoint_every_steps=1_000,
    )
    train(tmp_path / "model", small, device="cpu", progress=Progress(disable=True))
    held_out = render_scenes(SEED, 200, small.recipe, processes=1, advance=lambda _: None)
    seeing, blind = (answer_loss(tmp_path / "model", held_out, small.recipe, blank=blank) for blank in (False, True))
    assert seeing < 0.9 * blind


@torch.inference_mode()
def answer_loss(folder: Path, scenes: Scenes, recipe: Recipe, *, blank: bool) -> float:
    """Mean cross-entropy of the right answers' words."""
    checkpoint: Any = load(folder)
    writer, rng = QuestionWriter(checkpoint.processor, recipe), random.Random(0)
    questions = writer.ask(scenes, list(range(len(scenes))), rng)
    frames = np.zeros_like(scenes.frames) if blank else scenes.frames
    images, _ = see(checkpoint.model, to_pixels(frames), recipe)
    hidden = read(checkpoint.model, questions, images)[-1]
    asked = questions.labels != -100
    return float(functional.cross_entropy(checkpoint.model.lm_head(hidden[asked]), questions.labels[asked]))


def test_a_stopped_training_goes_on_to_the_same_model(tmp_path: Path, tiny_recipe: Recipe) -> None:
    """Stopped in both phases, between checkpoints."""
    short = options(tiny_recipe, scenes=32, vision_steps=12, answer_steps=12, calibration_scenes=4, test_scenes=4)
    short = replace(short, checkpoint_every_steps=5)
    train(tmp_path / "straight", short, device="cpu", progress=Progress(disable=True))
    # After 7 steps of 12; after 3 of the next phase; after 8 more, that is one short of its end; while scoring.
    for stop_after in (7, 10, 11):
        with pytest.raises(Stopped):
            train(tmp_path / "broken", short, device="cpu", progress=StoppingProgress(stop_after))
        assert not (tmp_path / "broken").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "score", stop)
        with pytest.raises(Stopped):
            train(tmp_path / "broken", short, device="cpu", progress=Progress(disable=True))
    train(tmp_path / "broken", short, device="cpu", progress=Progress(disable=True))
    for name in ("model.safetensors", "exits.safetensors", "exits.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_a_training_begun_with_other_options_is_not_taken_over(tmp_path: Path, tiny_recipe: Recipe) -> None:
    with pytest.raises(Stopped):
        train(tmp_path / "model", options(tiny_recipe), device="cpu", progress=StoppingProgress(1))
    with pytest.raises(ConfigurationError, match="other options"):
        train(tmp_path / "model", options(tiny_recipe, seed=1), device="cpu", progress=Progress(disable=True))


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    draw_curve({"learning to see": [3.0, 2.0, 1.5], "learning to answer": [5.0, 1.0]}, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 500
        assert np.asarray(picture.convert("L")).std() > 5


def test_training_prompts_are_serving_prompts(frame: bytes) -> None:
    recipe = Recipe()
    processor = build_processor(recipe, words())
    telemetry = {"Vehicle.Speed": 43.0, "Vehicle.AngularVelocity.Yaw": 3.2}
    for kind in KINDS.values():
        for frames in (1, 2):
            served = PromptReader(processor).read(Question(kind.prompt, (frame,) * frames, telemetry))
            trained = QuestionWriter(processor, recipe).prompt(kind, telemetry_text(telemetry), frames)
            assert trained == served["input_ids"][0].tolist()


def test_training_pixels_are_serving_pixels() -> None:
    recipe = Recipe()
    jpeg = encode_jpeg(make_sample(SEED).image, 80)
    reader = PromptReader(build_processor(recipe, words()))
    served = reader.read(Question(KINDS["explain"].prompt, (jpeg,)))["pixel_values"][0]

    from roadside.models.images import open_image

    squeezed = open_image(jpeg).resize((recipe.frame_size, recipe.frame_size), Image.Resampling.BILINEAR)
    torch.testing.assert_close(to_pixels(np.asarray(squeezed)[None]), served, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("data", ["scenes", "pairs_of_frames"])
def test_questions_that_share_a_scene_are_read_as_if_alone(data, attention, request) -> None:
    """The packed pass, with either attention that a training uses, against the model's own on each question alone."""
    scenes: Scenes = request.getfixturevalue(data)
    recipe = Recipe(frame_size=64, vision_layers=1, text_layers=3)
    processor = build_processor(recipe, words())
    model = build_model(recipe, processor, seed=1).eval()
    model.set_attn_implementation(attention)
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
                expected = model(input_ids=alone[None], pixel_values=pixels[row][None]).logits[0]
                torch.testing.assert_close(logits[row][own], expected[int(common.sum()) :], rtol=1e-4, atol=1e-4)


def test_questions_are_the_served_prompts_and_labels_their_answers(scenes) -> None:
    recipe = Recipe(frame_size=64)
    processor = build_processor(recipe, words())
    tokenizer = processor.tokenizer
    writer = QuestionWriter(processor, recipe)
    questions = writer.ask(scenes, list(range(24)), random.Random(1))
    missing_telemetry = 0
    kind_of_prompt = {
        tuple(writer.prompt(kind, telemetry)): kind
        for kind in KINDS.values()
        for telemetry in {*scenes.telemetry, telemetry_text({})}
    }
    for row in range(24):
        kinds_of_row = set()
        for section in (1, 2, 3):
            own = (questions.section[row] == 0) | (questions.section[row] == section)
            tokens, labels = questions.tokens[row][own], questions.labels[row][own]
            asked = (labels != -100).nonzero().flatten()
            prompt = tokens[: asked[0] + 1].tolist()
            kind = kind_of_prompt[tuple(prompt)]
            kinds_of_row.add(kind.name)
            assert prompt in (writer.prompt(kind, scenes.telemetry[row]), writer.prompt(kind, telemetry_text({})))
            missing_telemetry += prompt == writer.prompt(kind, telemetry_text({}))
            # What is said at one position is read at the next, except the end token, which ends it.
            assert tokens[asked[1:]].tolist() == labels[asked[:-1]].tolist()
            assert labels[asked[-1]] == tokenizer.eos_token_id
            said = parse(tokenizer.decode(labels[asked], skip_special_tokens=True))
            assert said.justification == scenes.facts[row].justification
            assert said.action == (scenes.facts[row].action if "action" in kind.asks_for else None)
        assert kinds_of_row == set(KINDS)
    assert tokenizer.unk_token_id not in questions.tokens
    assert 0 < missing_telemetry < 24


def test_scenes_carry_their_facts(scenes) -> None:
    assert scenes.frames.shape == (24, 1, 64, 64, 3)
    assert scenes.frames.std() > 20
    for facts, indices in zip(scenes.facts, scenes.classes, strict=True):
        assert class_indices(facts) == indices.tolist()
        assert CLASS_SETS[1][indices[1]] == facts.justification


def test_the_newest_frame_alone_is_that_of_a_scene_with_one(pairs_of_frames) -> None:
    alone = render_scenes(SEED, 6, Recipe(frame_size=64), processes=1, advance=lambda _: None, draw="obscured")
    newest = pairs_of_frames.newest()
    assert (newest.frames_each, pairs_of_frames.frames_each) == (1, 2)
    assert np.array_equal(newest.frames, alone.frames)
    assert np.array_equal(newest.objects, alone.objects)
    assert (newest.facts, newest.telemetry) == (alone.facts, alone.telemetry)
    assert not np.array_equal(pairs_of_frames.frames[:, 0], pairs_of_frames.frames[:, 1])


def test_batches_are_of_one_number_of_frames_and_leave_no_scene_out(scenes, pairs_of_frames) -> None:
    curriculum = Curriculum(scenes, pairs_of_frames)
    met: dict[int, set[int]] = {1: set(), 2: set()}
    shares = {1: 0, 2: 0}
    for step in range(60):
        batch, indices = curriculum.of_both("seed", step, 3)
        shares[batch.frames_each] += 1
        assert batch.frames_each == 2 or len(batch) in (len(scenes), len(pairs_of_frames))
        if len(batch) == len(pairs_of_frames):
            met[2] |= set(indices)
        else:
            met[1] |= set(indices)
    assert met == {1: set(range(24)), 2: set(range(6))}
    # A fifth has two frames; a twentieth shows of two the newest only.
    assert shares == {1: 48, 2: 12}
    assert {curriculum.of_single_frames("seed", step, 3)[0].frames_each for step in range(8)} == {1}


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
    pixels = torch.rand(8, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    changed = augmented(pixels, torch.Generator().manual_seed(1), most_shift=0)
    assert not torch.equal(changed, pixels)
    for before, after in zip(pixels, changed, strict=True):
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.98


def test_the_schedule_is_flat_then_falls() -> None:
    shares = [schedule(step / 100) for step in range(101)]
    assert shares[:30] == [1.0] * 30
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.01)


def test_every_scene_is_seen_once_before_any_comes_again() -> None:
    rounds = [[batch_at(12, 4, "seed", 3 * turn + step) for step in range(3)] for turn in range(2)]
    for batches_of_round in rounds:
        assert sorted(index for batch in batches_of_round for index in batch) == list(range(12))
    assert rounds[0] != rounds[1]
    assert batch_at(12, 4, "other", 0) != rounds[0][0]


def test_scenes_may_be_asked_fewer_kinds_of_questions(scenes) -> None:
    recipe = Recipe(frame_size=64)
    writer = QuestionWriter(build_processor(recipe, words()), recipe)
    questions = writer.ask(scenes, list(range(24)), random.Random(0), kinds_per_scene=2)
    assert questions.section.max() == 2
    everything = writer.ask(scenes, list(range(24)), random.Random(0))
    assert questions.tokens.shape[1] < everything.tokens.shape[1]


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match="exists already"):
        train_vlm(tmp_path, progress=Progress(disable=True))
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_quick_is_a_fraction_of_the_whole() -> None:
    whole = TrainingOptions()
    assert QUICK.scenes < whole.scenes / 3
    assert QUICK.vision_steps + QUICK.answer_steps < (whole.vision_steps + whole.answer_steps) / 3
    assert QUICK.recipe == whole.recipe
    assert QUICK.exit_layers == whole.exit_layers
