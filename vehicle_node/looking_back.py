"""The frames of the last seconds: where one frame leaves open what goes on, one of a second ago may settle it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# How much older than the newest frame the one before it may be, and ideally is, in seconds of the drive.
YOUNGEST_S, IDEAL_S, OLDEST_S = 0.5, 1.0, 1.6


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame as it would be sent, and where and when in the drive it was seen."""

    clip: str
    moment_s: float
    jpeg: bytes


class LookingBack:
    """Remembers frames for as long as a later one may be sent with them.

    frames_per_task: 1 remembers nothing. Not for several threads at once.
    """

    def __init__(self, frames_per_task: int) -> None:
        self._earlier_frames = frames_per_task - 1
        self._seen: deque[Seen] = deque(maxlen=32)

    def before(self, seen: Seen) -> tuple[bytes, ...]:
        """The earlier frames to be sent with a frame that is seen now, which is remembered in its turn.

        Empty where the clip has just begun, or nobody looked at the right time.
        """
        if not self._earlier_frames:
            return ()
        fitting = [
            each
            for each in self._seen
            if each.clip == seen.clip and YOUNGEST_S <= seen.moment_s - each.moment_s <= OLDEST_S
        ]
        self._seen.append(seen)
        if not fitting:
            return ()
        return (min(fitting, key=lambda each: abs(seen.moment_s - each.moment_s - IDEAL_S)).jpeg,)
