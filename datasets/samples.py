"""Training samples: a moment of a rendered drive, with its telemetry, its facts and labels. Nothing is stored.

A sample is a function of its seed alone. The moments come from the same drives that logs are rendered from, drawn in
one of two ways: evened out over the (action, justification) pairs, because a drive mostly keeps its speed on a clear
road; or evenly over time, as a vehicle meets them, with all that is in sight before anybody reacts to it.
"""

from __future__ import annotations

import io
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from PIL import Image

from ..bus.kinds import TaskKind
from .boxes import ObjectBox
from .drives import make_drive
from .jpeg import encode_jpeg
from .phrases import ACTIONS, COMBINATIONS, JUSTIFICATIONS, SIDES, VEHICLES, ExtraFact, SceneFacts, sentence
from .receiver import readings_of
from .renderer import Renderer
from .scene import Drive, Stretch
from .situations import SITUATIONS
from .telemetry import signals_at

Draw = Literal["pairs", "time"]

# Seeds of the sets are held apart: no drive of one occurs in another.
TRAINING_FIRST_SEED = 10_000_000
VALIDATION_FIRST_SEED = 2_000_000
TEST_FIRST_SEED = 3_000_000
BUNDLED_LOG_SEED = 1_001

# Roles that a justification already speaks of.
_SPOKEN_OF = {
    "lead-brakes": ("lead",),
    "lead-moves": ("lead",),
    "following": ("lead",),
    "slow-vehicle": ("lead", "beside"),
    "cut-in": ("lead", "beside"),
    "jam": ("lead", "beside"),
    "parked": ("parked",),
    "oncoming": ("oncoming",),
}

# For so long after a change the receiver's readings still tell of what was before.
_UNSETTLED_S = 0.4

# Smaller than this nobody would mention it, and a model could not see it.
_MENTIONED_VEHICLE_PX = 13
_MENTIONED_PERSON_PX = 26


@dataclass(frozen=True, slots=True)
class Labels:
    """A sample's classes as indices, for auxiliary training; in `vehicle` and `side` 0 means none.

    combination: into COMBINATIONS; action: into list(ACTIONS); justification: into list(JUSTIFICATIONS); vehicle and
    side: 1 + into VEHICLES and SIDES. boxes: what is seen in the picture, names out of renderer.OBJECT_NAMES.
    """

    combination: int
    action: int
    justification: int
    vehicle: int
    side: int
    boxes: tuple[ObjectBox, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """image: RGB, 320 x 192, as a vehicle's JPEG shows it; telemetry: VSS names to values."""

    seed: int
    image: Image.Image
    telemetry: dict[str, float]
    facts: SceneFacts
    labels: Labels

    def answer(self, kind: TaskKind, rng: random.Random) -> str:
        """The right answer to a task of this kind, phrased at random."""
        return sentence(kind, self.facts, rng)


def make_sample(seed: int, draw: Draw = "pairs") -> Sample:
    """The sample of a seed; the same on every machine but for the last bit of JPEG's rounding."""
    return _moment_of_a_pair(seed) if draw == "pairs" else _moment_in_time(seed)


def _moment_of_a_pair(seed: int) -> Sample:
    rng = random.Random(f"sample {seed}")
    wanted = rng.choice(COMBINATIONS)
    offering = [name for name, situation in SITUATIONS.items() if wanted in situation.shows]
    situation = rng.choice(offering)
    drive = make_drive(seed, must_show=situation)
    stretches = [stretch for stretch in drive.stretches if (stretch.action, stretch.justification) == wanted]
    if not stretches:
        # To the other side than the wanted one: its mirror image is wanted as often, so the sets stay even.
        mirrored = (_mirrored(wanted[0]), wanted[1])
        stretches = [stretch for stretch in drive.stretches if (stretch.action, stretch.justification) == mirrored]
    if not stretches:
        stretches = [stretch for stretch in drive.stretches if stretch.justification == wanted[1]]
    stretch = rng.choice(stretches)
    return _sample(seed, rng, drive, stretch, rng.uniform(stretch.start_s + _UNSETTLED_S, stretch.end_s))


def _moment_in_time(seed: int) -> Sample:
    rng = random.Random(f"moment {seed}")
    drive = make_drive(seed)
    settled = [(stretch, stretch.end_s - stretch.start_s - _UNSETTLED_S) for stretch in drive.stretches]
    stretches, lengths_s = zip(*[(stretch, length_s) for stretch, length_s in settled if length_s > 0], strict=True)
    (stretch,) = rng.choices(stretches, lengths_s)
    return _sample(seed, rng, drive, stretch, rng.uniform(stretch.start_s + _UNSETTLED_S, stretch.end_s))


def _sample(seed: int, rng: random.Random, drive: Drive, stretch: Stretch, at_s: float) -> Sample:
    frame = Renderer(drive).frame(at_s)
    facts = facts_of(drive, stretch, frame.boxes)
    return Sample(
        seed=seed,
        image=_through_jpeg(frame.image, quality=rng.randint(60, 92)),
        telemetry=signals_at(readings_of(drive), at_s),
        facts=facts,
        labels=_labels_of(facts, frame.boxes),
    )


def _mirrored(action: str) -> str:
    """The same action to the other side."""
    verb, _, side = action.partition("-")
    return f"{verb}-{'right' if side == 'left' else 'left'}" if side else action


def make_samples(first_seed: int, count: int, processes: int = 1, draw: Draw = "pairs") -> Iterator[Sample]:
    """Samples of consecutive seeds in order, rendered by worker processes where more than one is asked for."""
    seeds = range(first_seed, first_seed + count)
    make = partial(make_sample, draw=draw)
    if processes <= 1:
        yield from map(make, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(make, seeds, chunksize=32)


def facts_of(drive: Drive, stretch: Stretch, boxes: tuple[ObjectBox, ...]) -> SceneFacts:
    """What is true of a moment: its stretch, and the most striking thing in sight that is not the reason."""
    return SceneFacts(
        action=stretch.action,
        justification=stretch.justification,
        vehicle=stretch.vehicle,
        side=stretch.side,
        conditions=drive.conditions,
        extra=_extra_fact(stretch, boxes),
    )


def _extra_fact(stretch: Stretch, boxes: tuple[ObjectBox, ...]) -> ExtraFact:
    """The nearest other road user: one rule, so that the same picture always has the same right answer."""
    for role, fact in (("lead", "ahead"), ("beside", "beside"), ("oncoming", "oncoming"), ("parked", "parked")):
        seen = [box for box in boxes if role in box.names and box.height_px >= _MENTIONED_VEHICLE_PX]
        if seen and role not in _SPOKEN_OF.get(stretch.justification, ()):
            largest = max(seen, key=lambda box: box.height_px)
            return ExtraFact(fact, largest.names[1], largest.side)
    persons = [box for box in boxes if "bystander" in box.names and box.height_px >= _MENTIONED_PERSON_PX]
    if persons:
        return ExtraFact("bystander", side=max(persons, key=lambda box: box.height_px).side)
    return ExtraFact("none")


def _labels_of(facts: SceneFacts, boxes: tuple[ObjectBox, ...]) -> Labels:
    return Labels(
        combination=COMBINATIONS.index((facts.action, facts.justification)),
        action=list(ACTIONS).index(facts.action),
        justification=list(JUSTIFICATIONS).index(facts.justification),
        vehicle=1 + VEHICLES.index(facts.vehicle) if facts.vehicle else 0,
        side=1 + SIDES.index(facts.side) if facts.side else 0,
        boxes=boxes,
    )


def _through_jpeg(image: Image.Image, *, quality: int) -> Image.Image:
    """Vehicles send JPEG frames out of compressed videos; a model must not meet their traces for the first time."""
    return Image.open(io.BytesIO(encode_jpeg(image, quality))).convert("RGB")
