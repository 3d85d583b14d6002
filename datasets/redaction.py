"""What a vehicle takes out of its frames and telemetry before anything leaves it.

Rectangles of the picture are blacked out before the JPEG is made, so no trace of them is in the file; place and
course can be left out of the telemetry. Redacting people or number plates is not offered: it needs a detector, and
what a detector misses would go out under a promise that it did not.

What stays still tells something: speed and yaw rate, taken together over minutes, draw the shape of the way driven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta
from PIL import Image, ImageDraw

from .signals import HEADING_DEG, LATITUDE_DEG, LONGITUDE_DEG

_LOCATION_SIGNALS = frozenset((LATITUDE_DEG, LONGITUDE_DEG, HEADING_DEG))

Share = Annotated[float, Meta(ge=0, le=1)]


class Region(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A rectangle as shares of the picture's width and height, from its top left corner.

    In TOML `[left, top, right, bottom]`: `[0, 0.85, 1, 1]` is a bonnet at the bottom of every picture.
    """

    left: Share
    top: Share
    right: Share
    bottom: Share

    def __post_init__(self) -> None:
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("a region is [left, top, right, bottom] with left < right and top < bottom")


@dataclass(frozen=True, slots=True)
class Redaction:
    """regions: blacked out in every frame. location: latitude, longitude and heading are left out of the telemetry."""

    regions: Sequence[Region] = ()
    location: bool = False

    def of_frame(self, frame: Image.Image) -> Image.Image:
        """The frame with its regions black; the one that was given stays as it is.

        Every pixel that a region touches is blacked out, also where its edge runs through it.
        """
        if not self.regions:
            return frame
        redacted = frame.copy()
        pen = ImageDraw.Draw(redacted)
        for region in self.regions:
            # Pillow counts the right and bottom pixels in.
            left, right = _pixels(region.left, region.right, frame.width)
            top, bottom = _pixels(region.top, region.bottom, frame.height)
            pen.rectangle((left, top, right, bottom), fill=0)
        return redacted

    def of_telemetry(self, signals: dict[str, float]) -> dict[str, float]:
        """VSS names to values, without those that tell where the vehicle is and where it points."""
        if not self.location:
            return signals
        return {name: value for name, value in signals.items() if name not in _LOCATION_SIGNALS}


def _pixels(begin: float, end: float, size: int) -> tuple[int, int]:
    """The first and the last pixel that a share of a side touches."""
    first = min(int(begin * size), size - 1)
    return first, max(first, -int(-end * size // 1) - 1)
