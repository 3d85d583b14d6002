"""The boxes of what can be seen in a frame."""

from __future__ import annotations

from dataclasses import dataclass

from .camera import FRAME_HEIGHT, FRAME_WIDTH, OVERSAMPLING
from .figures import Box

# A box may have several names: the vehicle ahead is "lead" and, say, "truck".
OBJECT_NAMES = (
    "red-light",
    "yellow-light",
    "green-light",
    "stop-sign",
    "warning-sign",
    "pedestrian",
    "bystander",
    "crossing-cyclist",
    "riding-cyclist",
    "car",
    "truck",
    "bus",
    "van",
    "lead",
    "beside",
    "oncoming",
    "parked",
    "brake-lights",
    "amber-lights",
    "cone",
    "barrier",
    "crosswalk",
    "left-arrow",
    "right-arrow",
    "lane-end",
)

# The share of a box that must be in the frame and uncovered for it to be reported.
_LEAST_SEEN_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class ObjectBox:
    """Something in a frame: its names out of OBJECT_NAMES and its edges in pixels of the 320 x 192 frame."""

    names: tuple[str, ...]
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height_px(self) -> float:
        return self.bottom - self.top

    @property
    def side(self) -> str:
        """The half of the frame that its middle is in."""
        return "left" if self.left + self.right < FRAME_WIDTH else "right"


@dataclass(frozen=True, slots=True)
class Found:
    """Something drawn: names, box in oversampled pixels, whether it hides what is behind it."""

    names: tuple[str, ...]
    box: Box
    covers: bool = True


def seen(found: list[Found]) -> tuple[ObjectBox, ...]:
    """Boxes in frame pixels of what is inside the frame and not hidden; `found` has far things first."""
    boxes: list[ObjectBox] = []
    width, height = FRAME_WIDTH * OVERSAMPLING, FRAME_HEIGHT * OVERSAMPLING
    for index, item in enumerate(found):
        if not item.names:
            continue
        left, top, right, bottom = item.box
        whole = max(1e-6, (right - left) * (bottom - top))
        inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        hidden = [_overlap(inside, nearer.box) for nearer in found[index + 1 :] if nearer.covers]
        if _overlap(inside, item.box) - max(hidden, default=0.0) < _LEAST_SEEN_SHARE * whole:
            continue
        boxes.append(ObjectBox(item.names, *(edge / OVERSAMPLING for edge in inside)))
    return tuple(boxes)


def _overlap(a: Box, b: Box) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0
