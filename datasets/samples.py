"""Training samples: a moment of a rendered drive, with its telemetry, its facts and labels. Nothing is stored.

A sample is a function of its seed, of how its moment is drawn (moments.py) and of how many frames it has.
"""

from __future__ import annotations

import io
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from ..bus.kinds import TaskKind
from .boxes import ObjectBox
from .jpeg import encode_jpeg
from .moments import AGE_S, Draw, Moment, hidden_moment, moment_in_time, moment_of_a_pair
from .phrases import ACTIONS, COMBINATIONS, JUSTIFICATIONS, SIDES, VEHICLES, ExtraFact, SceneFacts, sentence
from .receiver import readings_of
from .renderer import Frame, Renderer
from .scene import Drive, Stretch
from .telemetry import signals_at

# Seeds of the sets are held apart: no drive of one occurs in another.
TRAINING_FIRST_SEED = 10_000_000
VALIDATION_FIRST_SEED = 2_000_000
TEST_FIRST_SEED = 3_000_000
TEST_OBSCURED_FIRST_SEED = 3_500_000
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
    """image: RGB, 320 x 192, as a vehicle's JPEG shows it; telemetry: VSS names to values.

    earlier: the frame about a second before, and what is seen in it; None where the sample has one frame only.
    """

    seed: int
    image: Image.Image
    telemetry: dict[str, float]
    facts: SceneFacts
    labels: Labels
    earlier: Frame | None = None

    @property
    def frames(self) -> tuple[Frame, ...]:
        """What is seen, oldest first."""
        newest = Frame(self.image, self.labels.boxes)
        return (newest,) if self.earlier is None else (self.earlier, newest)

    def answer(self, kind: TaskKind, rng: random.Random) -> str:
        """The right answer to a task of this kind, phrased at random."""
        return sentence(kind, self.facts, rng)


def make_sample(seed: int, draw: Draw = "pairs", frames: int = 1) -> Sample:
    """The sample of a seed; the same on every machine but for the last bit of JPEG's rounding.

    frames: 1, or 2 for the frame before it as well; the newest one and all that is said are the same.
    """
    if draw == "obscured":
        return _hidden_sample(seed, frames)
    if draw == "pairs":
        rng = random.Random(f"sample {seed}")
        moment = moment_of_a_pair(seed, rng)
    else:
        rng = random.Random(f"moment {seed}")
        moment = moment_in_time(seed, rng)
    renderer = Renderer(moment.drive)
    frame = renderer.frame(moment.at_s)
    sample = _sample(seed, rng, moment, frame, frame.boxes)
    if frames == 1:
        return sample
    # A drive has no frame before its first one.
    before = renderer.frame(max(0.0, moment.at_s - rng.uniform(*AGE_S)))
    return replace(sample, earlier=_as_sent(before, rng))


def _hidden_sample(seed: int, frames: int) -> Sample:
    rng = random.Random(f"obscured {seed}")
    hidden = hidden_moment(seed, rng)
    sample = _sample(seed, rng, hidden.moment, hidden.frame, hidden.earlier.boxes)
    return sample if frames == 1 else replace(sample, earlier=_as_sent(hidden.earlier, rng))


def _sample(seed: int, rng: random.Random, moment: Moment, frame: Frame, told_of: tuple[ObjectBox, ...]) -> Sample:
    """told_of: what of the scene may be spoken of besides the reason."""
    facts = facts_of(moment.drive, moment.stretch, told_of)
    return Sample(
        seed=seed,
        image=_as_sent(frame, rng).image,
        telemetry=signals_at(readings_of(moment.drive), moment.at_s),
        facts=facts,
        labels=_labels_of(facts, frame.boxes),
    )


def make_samples(
    first_seed: int, count: int, processes: int = 1, draw: Draw = "pairs", frames: int = 1
) -> Iterator[Sample]:
    """Samples of consecutive seeds in order, rendered by worker processes where more than one is asked for."""
    seeds = range(first_seed, first_seed + count)
    make = partial(make_sample, draw=draw, frames=frames)
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


def _as_sent(frame: Frame, rng: random.Random) -> Frame:
    """Vehicles send JPEG frames out of compressed videos; a model must not meet their traces for the first time."""
    image = Image.open(io.BytesIO(encode_jpeg(frame.image, quality=rng.randint(60, 92)))).convert("RGB")
    return Frame(image, frame.boxes)
