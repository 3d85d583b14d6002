"""Which moments of rendered drives samples are made of.

They come from the same drives that logs are rendered from, drawn in one of three ways: evened out over the (action,
justification) pairs, because a drive mostly keeps its speed on a clear road; evenly over time, as a vehicle meets
them, with all that is in sight before anybody reacts to it; or as those of the first way whose reason could be seen a
second ago and is hidden now.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from .boxes import ObjectBox
from .drives import make_drive
from .obstructions import obscure
from .phrases import COMBINATIONS
from .renderer import Frame, Renderer
from .scene import Drive, Stretch
from .situations import SITUATIONS

Draw = Literal["pairs", "time", "obscured"]

# How much older than the newest frame the one before it is.
AGE_S = (0.7, 1.3)
# For so long after a change the receiver's readings still tell of what was before.
_UNSETTLED_S = 0.4

# What has to be in sight for a reason to be seen; the shape of the road itself has no box.
_EVIDENCE: dict[str, tuple[str, ...]] = {
    "red-light": ("red-light", "yellow-light"),
    "green-light": ("green-light",),
    "stop-sign": ("stop-sign",),
    "lead-brakes": ("lead",),
    "lead-moves": ("lead",),
    "following": ("lead",),
    "slow-vehicle": ("lead", "beside"),
    "cut-in": ("lead", "beside"),
    "jam": ("lead", "beside"),
    "oncoming": ("oncoming",),
    "parked": ("parked",),
    "pedestrian": ("pedestrian",),
    "cyclist": ("crossing-cyclist",),
    "cyclist-ahead": ("riding-cyclist",),
    "construction": ("cone", "barrier", "warning-sign"),
    "lane-ends": ("lane-end", "warning-sign", "left-arrow", "right-arrow"),
    "road-closed": ("barrier", "cone"),
    "turn-lane": ("left-arrow", "right-arrow"),
    "curve": (),
    "clear-road": (),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a drive, in its settled part of a stretch."""

    drive: Drive
    stretch: Stretch
    at_s: float


@dataclass(frozen=True, slots=True)
class HiddenMoment:
    """A moment whose reason is hidden. earlier: the frame about a second before it, in which the reason can be seen.

    frame: the newest one, with what lies before it, and the boxes of what is still seen.
    """

    moment: Moment
    earlier: Frame
    frame: Frame


def moment_of_a_pair(seed: int, rng: random.Random, unsettled_s: float = _UNSETTLED_S) -> Moment:
    """Of a pair that is drawn evenly, in a drive of a seed.

    unsettled_s: how much of a stretch's beginning to spare; where that is all of it, the moment may lie beyond its end.
    """
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
    return Moment(drive, stretch, rng.uniform(stretch.start_s + unsettled_s, stretch.end_s))


def moment_in_time(seed: int, rng: random.Random) -> Moment:
    """Of a drive in which anything may happen."""
    drive = make_drive(seed)
    settled = [(stretch, stretch.end_s - stretch.start_s - _UNSETTLED_S) for stretch in drive.stretches]
    stretches, lengths_s = zip(*[(stretch, length_s) for stretch, length_s in settled if length_s > 0], strict=True)
    (stretch,) = rng.choices(stretches, lengths_s)
    return Moment(drive, stretch, rng.uniform(stretch.start_s + _UNSETTLED_S, stretch.end_s))


def hidden_moment(seed: int, rng: random.Random) -> HiddenMoment:
    """Of a pair, at which the reason is hidden by an obstruction or has left the picture."""
    while True:
        age_s = rng.uniform(*AGE_S)
        # Each turn wants another pair, and so another drive of the same seed.
        moment = moment_of_a_pair(seed, rng, unsettled_s=age_s + 0.1)
        if moment.at_s >= moment.stretch.end_s:
            continue  # the stretch is too short for the older frame to lie in it
        renderer = Renderer(moment.drive)
        earlier = renderer.frame(moment.at_s - age_s)
        needs_evidence = bool(_EVIDENCE[moment.stretch.justification])
        if needs_evidence and not _evidence(moment, earlier):
            continue
        frame = renderer.frame(moment.at_s)
        evidence = _evidence(moment, frame)
        if needs_evidence and not evidence:
            # It has left the picture by itself.
            return HiddenMoment(moment, earlier, frame)
        obscured = obscure(frame.image, evidence, rng, wet=moment.drive.conditions == "raining")
        return HiddenMoment(moment, earlier, Frame(obscured.picture, obscured.still_seen(frame.boxes)))


def _evidence(moment: Moment, frame: Frame) -> list[ObjectBox]:
    names = _EVIDENCE[moment.stretch.justification]
    return [box for box in frame.boxes if not set(names).isdisjoint(box.names)]


def _mirrored(action: str) -> str:
    """The same action to the other side."""
    verb, _, side = action.partition("-")
    return f"{verb}-{'right' if side == 'left' else 'left'}" if side else action
