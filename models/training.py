"""Training of the bundled model: `roadside train vlm`.

Scenes are rendered, the vision tower learns what is where, then the whole model learns to answer with its exits
beside it. Thresholds are calibrated and the result is scored on scenes that it never saw; all of it stands in the
folder's card. A training that was stopped goes on where it was when it is started again.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from ..bus.errors import ConfigurationError
from ..datasets.boxes import OBJECT_NAMES
from ..datasets.moments import Draw
from ..datasets.phrases import SIDES, VEHICLES, words
from ..datasets.samples import (
    TEST_FIRST_SEED,
    TEST_OBSCURED_FIRST_SEED,
    TRAINING_FIRST_SEED,
    VALIDATION_FIRST_SEED,
)
from .accelerators import new_accelerator
from .calibration import calibrate, collect_votes
from .checkpoints import CARD_FILE, quiet_transformers
from .curriculum import Curriculum
from .exits import Exits, new_heads
from .learning import Checkpoints, Learner, Phase, learn, mean
from .learning_curve import draw_curve
from .model_card import make_card
from .scoring import FrameScores, score
from .training_data import CLASS_SETS, QuestionWriter, Scenes, augmented, render_scenes, to_pixels
from .training_losses import SceneHeads, Student
from .training_options import QUICK, TrainingOptions
from .vlm import build_model, build_processor

OPTIONS_FILE = "options.json"


def train_vlm(
    out: Path | str,
    *,
    seed: int = 0,
    quick: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, calibrate and score a model, write its folder, and return its card.

    A training that was stopped has left `<out>.partial`; started again with the same options it goes on from there.
    quick: a fraction of the data and of the steps. device: auto (a GPU where there is one), cpu or cuda.
    progress: where to draw; a bar on stderr by default.
    Raises ConfigurationError where the folder exists and is not empty, or was begun with other options.
    """
    options = replace(QUICK if quick else TrainingOptions(), seed=seed)
    return train(Path(out), options, device=device, progress=progress)


def train(
    out: Path, options: TrainingOptions, *, device: str = "auto", progress: Progress | None = None
) -> dict[str, Any]:
    """As `train_vlm`, with any options."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("no GPU is to be seen; leave out --device, or install a build of torch for it")
    if progress is None:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
    with progress, _folder_in_the_making(out, options) as partial:
        return Training(options, progress, device).run(partial)


class Training:
    """One training, from rendering to the card."""

    def __init__(self, options: TrainingOptions, progress: Progress, device: str = "auto") -> None:
        # A second thread makes small batches dearer in CPU time, and on a busy machine slower.
        torch.set_num_threads(1)
        self.options = options
        self.cpu_minutes: dict[str, float] = {}
        self._progress = progress
        quiet_transformers()
        self._accelerator = new_accelerator(mixed_precision="bf16", cpu=device == "cpu")
        self._processor: Any = build_processor(options.recipe, words())
        self._writer = QuestionWriter(self._processor, options.recipe)
        model: Any = build_model(options.recipe, self._processor, options.seed)
        if self._accelerator.device.type == "cpu":
            # The backward pass of torch's fused attention takes a third of a step there, in bfloat16; this one 3%.
            model.set_attn_implementation("eager")
        text = model.config.text_config
        self._student = Student(
            model,
            new_heads(len(options.exit_layers), text.hidden_size, text.vocab_size),
            options.exit_layers,
            SceneHeads(options.recipe, tuple(len(choices) for choices in CLASS_SETS), len(OBJECT_NAMES)),
            options.recipe,
            options.auxiliary_weight,
            self._word_weights(text.vocab_size),
        )

    def run(self, partial: Path) -> dict[str, Any]:
        """Train in a folder that may hold an earlier state; the model is left in `model` inside it."""
        options, folder = self.options, partial / "model"
        checkpoints = Checkpoints(partial, options.checkpoint_every_steps)
        checkpoints.open()
        self._learn(self._curriculum(), checkpoints)
        self._student.eval().cpu()
        held_out = self._render("rendering held-out scenes", VALIDATION_FIRST_SEED, options.calibration_scenes)
        shutil.rmtree(folder, ignore_errors=True)
        self._save(folder, held_out)
        first_moment = TEST_FIRST_SEED + options.test_scenes
        test = self._render("rendering test scenes", TEST_FIRST_SEED, options.test_scenes)
        moments = self._render("rendering test moments", first_moment, options.test_moments, "time", 2)
        hidden = self._render(
            "rendering obscured test scenes", TEST_OBSCURED_FIRST_SEED, options.test_obscured_scenes, "obscured", 2
        )
        with self._stage("scoring", 1):
            scores = score(folder, test, options.recipe)
            along_drives = FrameScores.of(folder, moments, options.recipe)
            obscured = FrameScores.of(folder, hidden, options.recipe)
        card = make_card(
            parameters=sum(parameter.numel() for parameter in self._student.model.parameters()),
            options=asdict(options),
            last_losses={name: round(mean(losses[-100:]), 4) for name, losses in checkpoints.losses.items()},
            cpu_minutes=self.cpu_minutes,
            device=str(self._accelerator.device),
            scores=scores,
            along_drives=along_drives,
            obscured=obscured,
        )
        (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")
        draw_curve(checkpoints.losses, folder / "curve.png")
        return card

    def _curriculum(self) -> Curriculum:
        """Rendered scenes of all kinds. Seeds go on, so that no drive is met twice."""
        options, first_seed = self.options, TRAINING_FIRST_SEED
        single = self._render("rendering", first_seed, options.scenes)
        first_seed += options.scenes
        single += self._render("rendering moments", first_seed, options.moments, "time")
        first_seed += options.moments
        paired = self._render("rendering obscured scenes", first_seed, options.obscured_scenes, "obscured", 2)
        first_seed += options.obscured_scenes
        paired += self._render("rendering paired scenes", first_seed, options.paired_scenes, "pairs", 2)
        first_seed += options.paired_scenes
        paired += self._render("rendering paired moments", first_seed, options.paired_moments, "time", 2)
        return Curriculum(single, paired)

    def _render(self, name: str, first_seed: int, count: int, draw: Draw = "pairs", frames_each: int = 1) -> Scenes:
        with self._stage(name, count) as advance:
            # Starting a worker takes as long as rendering some hundred scenes.
            processes = min(os.cpu_count() or 1, max(1, count // 400))
            return render_scenes(
                first_seed,
                count,
                self.options.recipe,
                processes=processes,
                advance=advance,
                draw=draw,
                frames_each=frames_each,
            )

    def _learn(self, curriculum: Curriculum, checkpoints: Checkpoints) -> None:
        """Both phases: the vision tower with the scene heads, then everything."""
        options, model = self.options, self._student.model
        checkpoints.load_weights(self._student)
        seeing = [*model.model.vision_model.parameters(), *model.model.connector.parameters()]
        seeing += self._student.scene_heads.parameters()
        text = [*model.model.text_model.parameters(), *model.lm_head.parameters()]
        exits = list(self._student.exit_heads.parameters())
        self._student.train()
        for phase, learners in (
            (
                self._phase("learning to see", options.vision_steps, options.vision_batch_size),
                [Learner(seeing, options.vision_learning_rate)],
            ),
            (
                self._phase("learning to answer", options.answer_steps, options.answer_batch_size),
                [Learner([*seeing, *text], options.learning_rate), Learner(exits, options.exit_learning_rate)],
            ),
        ):
            asks = phase.name == "learning to answer"
            with self._stage(phase.name, phase.steps) as advance:
                learn(
                    self._accelerator,
                    self._student,
                    lambda student, step, phase=phase, asks=asks: self._loss(
                        student, curriculum, phase, step, asks=asks
                    ),
                    learners,
                    phase,
                    checkpoints=checkpoints,
                    advance=advance,
                )

    def _phase(self, name: str, steps: int, batch_size: int) -> Phase:
        return Phase(name, steps, batch_size, self.options.warm_up_steps, self.options.weight_decay)

    def _loss(self, student: nn.Module, curriculum: Curriculum, phase: Phase, step: int, *, asks: bool) -> Tensor:
        """The loss of one step; what is random in it depends on the step alone."""
        device, seed = self._accelerator.device, self.options.seed
        batch = curriculum.of_both if asks else curriculum.of_single_frames
        scenes, indices = batch(f"{seed} {phase.name}", step, phase.batch_size)
        noise = torch.Generator().manual_seed(1_000_003 * (2 * seed + asks) + step)
        questions = None
        if asks:
            rng = random.Random(f"questions {seed} {step}")
            questions = self._writer.ask(scenes, indices, rng, self.options.kinds_per_scene).to(device)
        return student(
            augmented(to_pixels(scenes.frames[indices]), noise).to(device),
            torch.from_numpy(scenes.classes[indices]).to(device),
            torch.from_numpy(scenes.objects[indices]).to(device),
            questions,
        )

    def _word_weights(self, vocabulary: int) -> Tensor:
        """What each token counts where it is the right one: [vocabulary]."""
        weights = torch.ones(vocabulary)
        tokenizer = self._processor.tokenizer
        weights[tokenizer.convert_tokens_to_ids([*VEHICLES, *SIDES])] = self.options.detail_weight
        return weights

    def _save(self, folder: Path, held_out: Scenes) -> None:
        with self._stage("calibrating the exits", 1):
            options, student = self.options, self._student
            votes = collect_votes(
                student.model,
                student.exit_heads,
                options.exit_layers,
                held_out,
                self._writer,
                options.recipe,
                options.seed,
            )
            calibration = calibrate(votes, options.exit_agreement)
            exits = Exits(options.exit_layers, student.exit_heads, calibration.thresholds)
            self._processor.save_pretrained(folder)
            student.model.half().save_pretrained(folder)
            exits.save(folder, calibration.as_json())

    @contextmanager
    def _stage(self, name: str, total: float) -> Iterator[_Advance]:
        """A bar while a part of the work goes on, and its CPU minutes, worker processes included."""
        task = self._progress.add_task(name, total=total, note="")
        started_s = _cpu_seconds()
        yield _Advance(self._progress, task)
        self.cpu_minutes[name] = round((_cpu_seconds() - started_s) / 60, 2)
        self._progress.update(task, completed=total)


@dataclass(frozen=True)
class _Advance:
    """Moves one bar on."""

    progress: Progress
    task: TaskID

    def __call__(self, amount: float, note: str = "") -> None:
        self.progress.update(self.task, advance=amount, note=note)


@contextmanager
def _folder_in_the_making(out: Path, options: TrainingOptions) -> Iterator[Path]:
    """`<out>.partial`, kept for resuming where the work breaks off; its `model` becomes `out` when all went well."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} exists already; name a new folder, or remove it first")
    partial = out.with_name(f"{out.name}.partial")
    written = json.dumps(asdict(options), indent=1)
    if partial.exists() and (partial / OPTIONS_FILE).read_text() != written:
        raise ConfigurationError(
            f"{partial} holds a training with other options; start with those again, or remove the folder"
        )
    partial.mkdir(parents=True, exist_ok=True)
    (partial / OPTIONS_FILE).write_text(written)
    yield partial
    if out.exists():
        out.rmdir()
    (partial / "model").rename(out)
    shutil.rmtree(partial)


def _cpu_seconds() -> float:
    """CPU time of this process and of the worker processes that have ended."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime
