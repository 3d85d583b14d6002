"""Training of the bundled model: `roadside train vlm`.

Scenes are rendered, the vision tower learns what is where, then the whole model learns to answer with its exits
beside it. Thresholds are calibrated and the result is scored on scenes that it never saw; all of it stands in the
folder's card. The schedule runs by CPU time of this process, so that a busy machine makes it longer and not worse.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor

from ..bus.errors import ConfigurationError
from ..datasets.phrases import words
from ..datasets.boxes import OBJECT_NAMES
from ..datasets.samples import TEST_FIRST_SEED, TRAINING_FIRST_SEED, VALIDATION_FIRST_SEED, make_samples
from .calibration import calibrate, collect_votes
from .checkpoints import CARD_FILE, quiet_transformers
from .exits import Exits, new_heads
from .learning import Learner, learn, mean
from .model_card import make_card
from .scoring import score
from .training_data import CLASS_SETS, QuestionWriter, Scenes, augmented, render_scenes, to_pixels
from .training_losses import SceneHeads, answer_losses, read, see
from .vlm import Recipe, build_model, build_processor


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. CPU minutes are those of this process alone; rendering comes on top and is reported apart.

    vision_share: share of the CPU time in which the vision tower learns alone.
    exit_learning_rate: higher than the model's, because the exits are single layers and run after a moving target.
    auxiliary_weight: what the scene heads' losses count beside the answers' while the whole model learns.
    exit_layers: after so many decoder layers the exits speak.
    exit_agreement: share of an exit's spoken tokens that the whole model must have said too.
    """

    cpu_minutes: float = 15.0
    seed: int = 0
    scenes: int = 24_000
    calibration_scenes: int = 600
    test_scenes: int = 300
    vision_share: float = 0.45
    batch_size: int = 16
    vision_learning_rate: float = 1e-3
    learning_rate: float = 8e-4
    exit_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 60
    auxiliary_weight: float = 0.3
    exit_layers: tuple[int, ...] = (1, 3)
    exit_agreement: float = 0.99
    threads: int = 1
    render_processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    recipe: Recipe = field(default_factory=Recipe)


def train_vlm(
    out: Path | str,
    *,
    cpu_minutes: float = 15.0,
    seed: int = 0,
    quick: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, calibrate and score a model, write its folder, and return its card.

    quick: a fifth of the data and of the time. progress: where to draw; a bar on stderr by default.
    Raises ConfigurationError where the folder exists and is not empty.
    """
    options = TrainingOptions(cpu_minutes=cpu_minutes, seed=seed)
    if quick:
        options = TrainingOptions(
            cpu_minutes=cpu_minutes / 5, seed=seed, scenes=options.scenes // 5, calibration_scenes=120, test_scenes=80
        )
    if progress is None:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
    with progress, _folder_in_the_making(Path(out)) as folder:
        return Training(options, progress).run(folder)


class Training:
    """One training, from rendering to the card."""

    def __init__(self, options: TrainingOptions, progress: Progress) -> None:
        self.options = options
        self.losses: dict[str, list[float]] = {}
        self.cpu_minutes: dict[str, float] = {}
        self._progress = progress
        quiet_transformers()
        self._processor: Any = build_processor(options.recipe, words())
        self._model: Any = build_model(options.recipe, self._processor, options.seed)
        self._writer = QuestionWriter(self._processor, options.recipe)
        class_counts = tuple(len(choices) for choices in CLASS_SETS)
        self._scene_heads = SceneHeads(options.recipe, class_counts, len(OBJECT_NAMES))
        text = self._model.config.text_config
        self._exit_heads = new_heads(len(options.exit_layers), text.hidden_size, text.vocab_size)
        self._shuffle = random.Random(options.seed)
        self._noise = torch.Generator().manual_seed(options.seed)

    def run(self, folder: Path) -> dict[str, Any]:
        """Train into an empty folder; returns the card."""
        options = self.options
        torch.set_num_threads(options.threads)
        scenes = self._render("rendering", TRAINING_FIRST_SEED, options.scenes)
        self._learn(scenes)
        self._model.eval()
        held_out = self._render("rendering held-out scenes", VALIDATION_FIRST_SEED, options.calibration_scenes)
        self._save(folder, held_out)
        card = make_card(
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            options=asdict(options),
            steps={name: len(losses) for name, losses in self.losses.items()},
            last_losses={name: round(mean(losses[-100:]), 4) for name, losses in self.losses.items()},
            cpu_minutes=self.cpu_minutes,
            scores=self._score(folder),
        )
        (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")
        return card

    def _render(self, name: str, first_seed: int, count: int) -> Scenes:
        with self._stage(name, count) as advance:
            return render_scenes(
                first_seed, count, self.options.recipe, processes=self.options.render_processes, advance=advance
            )

    def _learn(self, scenes: Scenes) -> None:
        """Both phases: the vision tower with the scene heads, then everything."""
        options = self.options
        tower = [*self._model.model.vision_model.parameters(), *self._model.model.connector.parameters()]
        auxiliary = [*tower, *self._scene_heads.parameters()]
        text = [*self._model.model.text_model.layers.parameters(), *self._model.model.text_model.norm.parameters()]
        text += [*self._model.model.text_model.embed_tokens.parameters(), *self._model.lm_head.parameters()]
        exits = list(self._exit_heads.parameters())
        vision_minutes = options.cpu_minutes * options.vision_share

        self._model.train()
        self._phase(
            "learning to see",
            vision_minutes,
            [Learner(auxiliary, options.vision_learning_rate)],
            len(scenes),
            lambda indices: self._look(scenes, indices)[1],
        )
        self._phase(
            "learning to answer",
            options.cpu_minutes - vision_minutes,
            [Learner([*auxiliary, *text], options.learning_rate), Learner(exits, options.exit_learning_rate)],
            len(scenes),
            lambda indices: self._answer(scenes, indices),
        )

    def _look(self, scenes: Scenes, indices: list[int]) -> tuple[Tensor, Tensor]:
        """The image tokens of some scenes, and the scene heads' loss."""
        pixels = augmented(to_pixels(scenes.frames[indices]), self._noise)
        with torch.autocast("cpu", torch.bfloat16):
            image_tokens, patches = see(self._model, pixels, self.options.recipe)
        classes, objects = torch.from_numpy(scenes.classes[indices]), torch.from_numpy(scenes.objects[indices])
        return image_tokens, self._scene_heads.loss(image_tokens, patches, classes, objects)

    def _answer(self, scenes: Scenes, indices: list[int]) -> Tensor:
        image_tokens, scene_loss = self._look(scenes, indices)
        questions = self._writer.ask(scenes, indices, self._shuffle)
        with torch.autocast("cpu", torch.bfloat16):
            hidden_states = read(self._model, questions, image_tokens)
            losses = answer_losses(
                self._model, self._exit_heads, self.options.exit_layers, hidden_states, questions.labels
            )
        return losses.model + sum(losses.exits) + self.options.auxiliary_weight * scene_loss

    def _phase(
        self,
        name: str,
        minutes: float,
        learners: list[Learner],
        scene_count: int,
        loss_of: Callable[[list[int]], Tensor],
    ) -> None:
        options = self.options
        with self._stage(name, minutes * 60) as advance:
            self.losses[name] = learn(
                loss_of,
                learners,
                cpu_seconds=minutes * 60,
                scene_count=scene_count,
                batch_size=options.batch_size,
                warm_up_steps=options.warm_up_steps,
                weight_decay=options.weight_decay,
                shuffle=self._shuffle,
                advance=advance,
            )

    def _save(self, folder: Path, held_out: Scenes) -> None:
        with self._stage("calibrating the exits", 1):
            options = self.options
            votes = collect_votes(
                self._model,
                self._exit_heads,
                options.exit_layers,
                held_out,
                self._writer,
                options.recipe,
                options.seed,
            )
            calibration = calibrate(votes, options.exit_agreement)
            exits = Exits(options.exit_layers, self._exit_heads, calibration.thresholds)
            self._processor.save_pretrained(folder)
            self._model.half().save_pretrained(folder)
            exits.save(folder, calibration.as_json())

    def _score(self, folder: Path) -> dict[str, dict[str, float]]:
        options = self.options
        with self._stage("scoring", options.test_scenes) as advance:
            samples = make_samples(TEST_FIRST_SEED, options.test_scenes, options.render_processes)
            return score(folder, samples, advance)

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
def _folder_in_the_making(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when all went well, and vanishes when it did not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} exists already; name a new folder, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _cpu_seconds() -> float:
    """CPU time of this process and of the worker processes that have ended."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime
