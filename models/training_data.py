"""Rendered scenes as training arrays, and batches of questions about them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..bus.kinds import KINDS, TaskKind
from ..datasets.boxes import OBJECT_NAMES, ObjectBox
from ..datasets.jpeg import encode_jpeg
from ..datasets.moments import Draw
from ..datasets.phrases import (
    ACTIONS,
    CONDITIONS,
    EXTRA_FACTS,
    JUSTIFICATIONS,
    SIDES,
    VEHICLES,
    SceneFacts,
    sentence,
    telemetry_text,
)
from ..datasets.samples import make_samples
from .images import open_image
from .tokenizer import AROUND_IMAGE, IMAGE, WHOLE_IMAGE
from .vlm import Recipe

# Frames reach a node as JPEGs of any quality, and logged ones went through a video codec before.
JPEG_QUALITIES = (35, 95)
# How much of a patch's width and height an object must reach over to be said to lie in it.
PATCH_COVERED_SHARE = 0.4
TELEMETRY_MISSING_SHARE = 0.1
NO_TELEMETRY = telemetry_text({})

# What the scene heads tell apart, and what each counts: an explanation tells of the first four.
# The first choice of a tuple with None means that there is no such thing.
CLASS_SET_WEIGHTS = (1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.5)
CLASS_SETS: tuple[tuple[str | None, ...], ...] = (
    tuple(ACTIONS),
    tuple(JUSTIFICATIONS),
    (None, *VEHICLES),
    (None, *SIDES),
    CONDITIONS,
    tuple(EXTRA_FACTS),
    (None, *VEHICLES),
    (None, *SIDES),
)


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes, all of the same number of frames.

    frames: [scenes, frames, side, side, 3] uint8, oldest first, as the image processor squeezes them.
    classes: [scenes, class sets] int64, indices into CLASS_SETS.
    objects: [scenes, frames, patches, object classes] bool, which objects lie in which patch, row by row.
    """

    frames: NDArray[np.uint8]
    telemetry: list[str]
    facts: list[SceneFacts]
    classes: NDArray[np.int64]
    objects: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def frames_each(self) -> int:
        return self.frames.shape[1]

    def newest(self) -> Scenes:
        """The same with nothing but the newest frame."""
        return replace(self, frames=self.frames[:, -1:], objects=self.objects[:, -1:])

    def __add__(self, other: Scenes) -> Scenes:
        return Scenes(
            np.concatenate([self.frames, other.frames]),
            self.telemetry + other.telemetry,
            self.facts + other.facts,
            np.concatenate([self.classes, other.classes]),
            np.concatenate([self.objects, other.objects]),
        )


def render_scenes(
    first_seed: int,
    count: int,
    recipe: Recipe,
    *,
    processes: int,
    advance: Callable[[int], None],
    draw: Draw = "pairs",
    frames_each: int = 1,
) -> Scenes:
    """Render scenes in worker processes; `advance` is told after each how many more there are."""
    side, patches = recipe.frame_size, recipe.patches_per_side**2
    frames = np.empty((count, frames_each, side, side, 3), np.uint8)
    classes = np.empty((count, len(CLASS_SETS)), np.int64)
    objects = np.zeros((count, frames_each, patches, len(OBJECT_NAMES)), np.bool_)
    telemetry: list[str] = []
    facts: list[SceneFacts] = []
    rng = random.Random(first_seed)
    for index, sample in enumerate(make_samples(first_seed, count, processes, draw, frames_each)):
        quality = rng.randint(*JPEG_QUALITIES)
        for number, frame in enumerate(sample.frames):
            jpeg = encode_jpeg(frame.image, quality)
            frames[index, number] = np.asarray(open_image(jpeg).resize((side, side), Image.Resampling.BILINEAR))
            objects[index, number] = objects_by_patch(frame.boxes, frame.image.size, recipe)
        classes[index] = class_indices(sample.facts)
        telemetry.append(telemetry_text(sample.telemetry))
        facts.append(sample.facts)
        advance(1)
    return Scenes(frames, telemetry, facts, classes, objects)


def class_indices(facts: SceneFacts) -> list[int]:
    """The index of each fact in its class set."""
    said = (
        facts.action,
        facts.justification,
        facts.vehicle,
        facts.side,
        facts.conditions,
        facts.extra.fact,
        facts.extra.vehicle,
        facts.extra.side,
    )
    return [choices.index(fact) for choices, fact in zip(CLASS_SETS, said, strict=True)]


def objects_by_patch(boxes: Sequence[ObjectBox], image_size: tuple[int, int], recipe: Recipe) -> NDArray[np.bool_]:
    """Which objects lie in which patch of the squeezed frame, [patches, object classes], patches row by row.

    A patch has an object that covers a good part of it; a small object is in the patch that holds its middle.
    """
    side = recipe.patches_per_side
    patch_width, patch_height = image_size[0] / side, image_size[1] / side
    starts = np.arange(side)
    grid = np.zeros((side, side, len(OBJECT_NAMES)), np.bool_)
    for box in boxes:
        left, right = box.left / patch_width, box.right / patch_width
        top, bottom = box.top / patch_height, box.bottom / patch_height
        columns = np.clip(np.minimum(right, starts + 1) - np.maximum(left, starts), 0, None) >= PATCH_COVERED_SHARE
        rows = np.clip(np.minimum(bottom, starts + 1) - np.maximum(top, starts), 0, None) >= PATCH_COVERED_SHARE
        columns[min(max(int((left + right) / 2), 0), side - 1)] = True
        rows[min(max(int((top + bottom) / 2), 0), side - 1)] = True
        covered = rows[:, None] & columns[None, :]
        for name in box.names:
            grid[covered, OBJECT_NAMES.index(name)] = True
    return grid.reshape(side * side, len(OBJECT_NAMES))


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """Frames [..., side, side, 3] to what the image processor makes of them: [..., 3, side, side] in -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3), dtype=np.float32)) / 127.5 - 1.0


def augmented(pixels: Tensor, rng: torch.Generator, most_shift: int = 4) -> Tensor:
    """Pixels with another exposure and tint each, all moved by a few pixels: cameras differ and are mounted askew.

    pixels: [batch, frames, 3, side, side]; the frames of one scene come from one camera, and are changed alike.
    """
    batch = len(pixels)
    exposure = 1 + 0.12 * torch.randn(batch, 1, 1, 1, 1, generator=rng)
    tint = 0.06 * torch.randn(batch, 1, 3, 1, 1, generator=rng)
    right, down = torch.randint(-most_shift, most_shift + 1, (2,), generator=rng).tolist()
    return (pixels * exposure + tint).roll((down, right), dims=(-2, -1))


@dataclass(frozen=True)
class Questions:
    """Questions of several kinds about each scene of a batch, with their right answers; all tensors [batch, positions].

    A row is what the questions about a scene have in common (the images and the telemetry), read once, and then each
    question with its answer. No question sees another, so each is as if it stood alone.
    section: 0 for the common part, 1, 2, ... for each question, -1 for padding.
    position: the place of a token in its own question, the common part included.
    labels: the token to say next where that is part of an answer, else -100.
    """

    tokens: Tensor
    labels: Tensor
    section: Tensor
    position: Tensor

    def to(self, device: torch.device) -> Questions:
        moved = (self.tokens, self.labels, self.section, self.position)
        return Questions(*(tensor.to(device) for tensor in moved))

    def attention(self) -> Tensor:
        """Who may look at whom, [batch, 1, positions, positions]: each at itself, back in its section, at section 0.

        float32, to be added to the scores, which every implementation of attention understands: 0 or as good as minus
        infinity (bfloat16's smallest number, so that it stays finite there).
        """
        length = self.tokens.shape[1]
        back = torch.ones(length, length, dtype=torch.bool, device=self.tokens.device).tril()
        asking, seen = self.section[:, :, None], self.section[:, None, :]
        allowed = (back & ((asking == seen) | (seen == 0)))[:, None]
        return torch.where(allowed, 0.0, torch.finfo(torch.bfloat16).min)


class QuestionWriter:
    """Token sequences of questions with their right answers, as serving would tokenise them."""

    def __init__(self, processor: Any, recipe: Recipe) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_words = f" {AROUND_IMAGE} {WHOLE_IMAGE} {f'{IMAGE} ' * recipe.image_tokens}{AROUND_IMAGE} "
        self._prompts: dict[tuple[str, str, int], list[int]] = {}

    def prompt(self, kind: TaskKind, telemetry: str, frames: int = 1) -> list[int]:
        """The tokens of a question about so many frames, image tokens included."""
        key = (kind.name, telemetry, frames)
        if key not in self._prompts:
            words = {"type": "text", "text": f"{telemetry} {kind.prompt}"}
            turn = {"role": "user", "content": [*[{"type": "image"}] * frames, words]}
            text = self._processor.apply_chat_template([turn], add_generation_prompt=True)
            self._prompts[key] = self._tokenizer(text.replace(IMAGE, self._image_words)).input_ids
        return self._prompts[key]

    def ask(
        self, scenes: Scenes, indices: list[int], rng: random.Random, kinds_per_scene: int = len(KINDS)
    ) -> Questions:
        """Questions of some kinds, drawn for each scene apart; telemetry is missing now and then."""
        rows = []
        for index in indices:
            telemetry = NO_TELEMETRY if rng.random() < TELEMETRY_MISSING_SHARE else scenes.telemetry[index]
            kinds = rng.sample(list(KINDS.values()), kinds_per_scene)
            rows.append(self._row(kinds, telemetry, scenes.facts[index], rng, scenes.frames_each))
        longest = max(len(row.tokens) for row in rows)

        def padded(column: str, padding: int) -> Tensor:
            lists = [getattr(row, column) for row in rows]
            return torch.tensor([each + [padding] * (longest - len(each)) for each in lists])

        return Questions(
            tokens=padded("tokens", self._tokenizer.pad_token_id),
            labels=padded("labels", -100),
            section=padded("section", -1),
            position=padded("position", 0),
        )

    def _row(self, kinds: list[TaskKind], telemetry: str, facts: SceneFacts, rng: random.Random, frames: int) -> _Row:
        prompts = {kind: self.prompt(kind, telemetry, frames) for kind in KINDS.values()}
        common = _common_beginning(list(prompts.values()))
        row = _Row(list(common), [-100] * len(common), [0] * len(common), list(range(len(common))))
        for section, kind in enumerate(kinds, start=1):
            prompt = prompts[kind]
            answer = [*self._tokenizer(sentence(kind, facts, rng)).input_ids, self._tokenizer.eos_token_id]
            own_prompt = prompt[len(common) :]
            # The end token is only said, never read; and the prompt's last token already has to say something.
            row.tokens += own_prompt + answer[:-1]
            row.labels += [-100] * (len(own_prompt) - 1) + answer
            length = len(own_prompt) + len(answer) - 1
            row.section += [section] * length
            row.position += range(len(common), len(common) + length)
        return row


def _common_beginning(lists: list[list[int]]) -> list[int]:
    """The longest list that all of some lists begin with."""
    equal = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*lists, strict=False))
    return [each[0] for each in equal]


@dataclass
class _Row:
    """One scene's part of `Questions`, before padding."""

    tokens: list[int]
    labels: list[int]
    section: list[int]
    position: list[int]
