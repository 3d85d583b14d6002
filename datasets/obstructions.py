"""What hides a part of one frame and not of the frame a second before it: a splash, glare, a lorry, a wiper.

They are drawn over a finished picture, for each lies on the windscreen, in the lens or right in front of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .boxes import ObjectBox
from .figures import Box
from .scene import Colour
from .surroundings import VEHICLE_COLOURS

# How much wider than what it hides an obstruction is, in pixels of the frame.
_MARGIN_PX = 10.0
# No obstruction is smaller: its size must not tell what is behind it.
_LEAST_WIDTH_PX = (80.0, 170.0)
_LEAST_HEIGHT_PX = (70.0, 130.0)
# A box of which so much is behind an obstruction is not seen.
_HIDDEN_SHARE = 0.5
# A picture of this mean brightness shows the colours of things as they are.
_DAYLIGHT_LEVEL = 150.0


@dataclass(frozen=True, slots=True)
class Obscured:
    """A picture with something before it. hidden: the box in which nothing of the scene can be seen any more."""

    picture: Image.Image
    hidden: Box

    def still_seen(self, boxes: Sequence[ObjectBox]) -> tuple[ObjectBox, ...]:
        """Those of the picture's boxes that are not hidden."""
        return tuple(box for box in boxes if _share_within(box, self.hidden) < _HIDDEN_SHARE)


def obscure(picture: Image.Image, evidence: Sequence[ObjectBox], rng: random.Random, *, wet: bool) -> Obscured:
    """Hide all of the evidence, or some part of the road ahead where there is none. wet: whether wipers may be on."""
    hidden = _region(evidence, rng, picture.size)
    obstructions = [_splash, _glare, _lorry, *([_wiper] if wet else [])]
    return rng.choice(obstructions)(picture, hidden, rng)


def _region(evidence: Sequence[ObjectBox], rng: random.Random, size: tuple[int, int]) -> Box:
    width, height = size
    if evidence:
        left, top = min(box.left for box in evidence), min(box.top for box in evidence)
        right, bottom = max(box.right for box in evidence), max(box.bottom for box in evidence)
    else:
        left = right = rng.uniform(0.25, 0.75) * width
        top = bottom = rng.uniform(0.35, 0.65) * height
    left, right = _widened(left - _MARGIN_PX, right + _MARGIN_PX, rng.uniform(*_LEAST_WIDTH_PX), rng)
    top, bottom = _widened(top - _MARGIN_PX, bottom + _MARGIN_PX, rng.uniform(*_LEAST_HEIGHT_PX), rng)
    return left, top, right, bottom


def _widened(low: float, high: float, least: float, rng: random.Random) -> tuple[float, float]:
    """An interval that is at least so long and holds the given one anywhere in it."""
    missing = max(0.0, least - (high - low))
    before = rng.uniform(0.0, missing)
    return low - before, high + missing - before


def _splash(picture: Image.Image, hidden: Box, rng: random.Random) -> Obscured:
    """Dirty water on the windscreen, thrown up by somebody ahead."""
    left, top, right, bottom = hidden
    mask = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(mask)
    draw.rounded_rectangle(hidden, radius=30, fill=255)
    for _ in range(40):
        u, v = rng.uniform(left - 25, right + 25), rng.uniform(top - 20, bottom + 25)
        radius = rng.uniform(3, 16)
        draw.ellipse((u - radius, v - radius, u + radius, v + radius * 1.3), fill=rng.randint(120, 255))
    # The blur must not open the rim of what is to be hidden: it is drawn over once more, and softened only outside.
    mask = mask.filter(ImageFilter.GaussianBlur(5))
    ImageDraw.Draw(mask).rounded_rectangle(hidden, radius=30, fill=250)
    grey = rng.randint(120, 176)
    level = _level_of(picture)
    water = Image.new("RGB", picture.size, _lit((grey, grey - 6, grey - 18), level))
    speckles = np.random.default_rng(rng.getrandbits(32)).normal(
        0, 2 + 6 * min(1.0, level / _DAYLIGHT_LEVEL), (picture.height, picture.width, 1)
    )
    textured = Image.fromarray(np.clip(np.asarray(water) + speckles, 0, 255).astype(np.uint8))
    return Obscured(Image.composite(textured, picture, mask), hidden)


def _glare(picture: Image.Image, hidden: Box, rng: random.Random) -> Obscured:
    """The low sun or somebody's high beams in the lens: white where it is strongest, paler around."""
    left, top, right, bottom = hidden
    rows, columns = np.mgrid[0 : picture.height, 0 : picture.width]
    across = (columns - (left + right) / 2) / ((right - left) / 2)
    down = (rows - (top + bottom) / 2) / ((bottom - top) / 2)
    # The corners of the hidden box are to be white too.
    distance = np.hypot(across, down) / math.sqrt(2)
    strength = np.where(distance <= 1.0, 1.0, np.exp(-(distance - 1.0) * rng.uniform(1.6, 3.0)))[..., None]
    light = np.array((255, rng.randint(240, 255), rng.randint(205, 255)), np.float64)
    dazzled = np.asarray(picture, np.float64) * (1.0 - strength) + light * strength
    return Obscured(Image.fromarray(dazzled.astype(np.uint8)), hidden)


def _lorry(picture: Image.Image, hidden: Box, rng: random.Random) -> Obscured:
    """The flank of a lorry that passes close in front, blurred by its speed, from one edge of the picture on."""
    left, _, right, bottom = hidden
    from_left = left + right < picture.width
    start, end = (-10.0, right) if from_left else (left, picture.width + 10.0)
    lower = max(bottom, rng.uniform(150.0, 168.0))
    flank = Image.new("RGB", picture.size)
    mask = Image.new("L", picture.size, 0)
    level = _level_of(picture)
    paint = _lit(rng.choice(VEHICLE_COLOURS), level)
    draw = ImageDraw.Draw(flank)
    draw.rectangle((start, 0, end, lower), fill=paint)
    skirt = lower - rng.uniform(14.0, 24.0)
    draw.rectangle((start, skirt, end, lower), fill=_lit((34, 34, 38), level))
    for seam in np.arange(start, end, rng.uniform(40.0, 70.0)).tolist():
        draw.line((seam, 0, seam, skirt), fill=_lit((96, 94, 90), level), width=2)
    ImageDraw.Draw(mask).rectangle((start, 0, end, lower), fill=255)
    for wheel in np.arange(start + 18.0, end, rng.uniform(55.0, 90.0)).tolist():
        rim = (wheel - 14, lower - 14, wheel + 14, lower + 14)
        draw.ellipse(rim, fill=_lit((22, 22, 24), level))
        ImageDraw.Draw(mask).ellipse(rim, fill=255)
    blurred = flank.filter(ImageFilter.BoxBlur((rng.randint(2, 5), 0)))
    return Obscured(Image.composite(blurred, picture, mask), (start, 0.0, end, lower))


def _wiper(picture: Image.Image, hidden: Box, rng: random.Random) -> Obscured:
    """A wiper's blade in the middle of its sweep, and behind it a film of water that blurs everything."""
    left, top, right, bottom = hidden
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((left - 6, top - 6, right + 6, bottom + 6), radius=12, fill=255)
    film = picture.filter(ImageFilter.GaussianBlur(rng.uniform(22.0, 30.0)))
    wiped = Image.composite(film, picture, mask.filter(ImageFilter.GaussianBlur(3)))
    pivot = (rng.uniform(-0.1, 1.1) * picture.width, picture.height + 30.0)
    middle = (rng.uniform(left, right), (top + bottom) / 2)
    reach = 2.2
    tip = (pivot[0] + reach * (middle[0] - pivot[0]), pivot[1] + reach * (middle[1] - pivot[1]))
    ImageDraw.Draw(wiped).line((*pivot, *tip), fill=(18, 18, 20), width=rng.randint(9, 14))
    return Obscured(wiped, hidden)


def _share_within(box: ObjectBox, region: Box) -> float:
    across = min(box.right, region[2]) - max(box.left, region[0])
    down = min(box.bottom, region[3]) - max(box.top, region[1])
    whole = max(1e-6, (box.right - box.left) * (box.bottom - box.top))
    return across * down / whole if across > 0 and down > 0 else 0.0


def _level_of(picture: Image.Image) -> float:
    """The picture's mean brightness, 0 to 255."""
    return float(np.asarray(picture.convert("L")).mean())


def _lit(colour: Colour, level: float) -> Colour:
    """A colour as it would look in a picture of a mean brightness."""
    factor = min(1.1, 0.15 + level / _DAYLIGHT_LEVEL)
    red, green, blue = (int(min(255.0, value * factor)) for value in colour)
    return red, green, blue
