"""What the vehicle sees: moments of a driving log, replayed at a given speed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..datasets.drivelog import Clip, DriveLog, Segment
from ..datasets.jpeg import encode_jpeg


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment. telemetry: VSS names to values; truth: the log's own words for the moment, where it has any."""

    clip: str
    moment_s: float
    jpeg: bytes
    telemetry: dict[str, float]
    truth: Segment | None


class LogReplay:
    """Plays the clips of a log one after the other, over and over, from `start_s` on.

    speed: log seconds per second. Video decoding and JPEG run on a thread of their own, never on the event loop.
    """

    def __init__(self, log: DriveLog, *, start_s: float, speed: float, jpeg_quality: int) -> None:
        self._clips = log.clips
        self._start_s = start_s
        self._speed = speed
        self._jpeg_quality = jpeg_quality
        self._total_s = log.duration_s
        self._camera = ThreadPoolExecutor(1, thread_name_prefix="camera")
        self._playing: Clip | None = None

    async def capture(self, elapsed_s: float) -> Scene:
        """The scene `elapsed_s` seconds after the replay began."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._camera, self._look, *self._locate(elapsed_s))

    def close(self) -> None:
        self._camera.shutdown()
        if self._playing is not None:
            self._playing.close()

    def _locate(self, elapsed_s: float) -> tuple[Clip, float]:
        position_s = (self._start_s + elapsed_s * self._speed) % self._total_s
        for clip in self._clips:
            if position_s < clip.duration_s:
                return clip, position_s
            position_s -= clip.duration_s
        last = self._clips[-1]
        return last, last.duration_s

    def _look(self, clip: Clip, moment_s: float) -> Scene:
        if self._playing is not None and self._playing is not clip:
            self._playing.close()
        self._playing = clip
        jpeg = encode_jpeg(clip.frame(moment_s), self._jpeg_quality)
        return Scene(clip.name, moment_s, jpeg, clip.telemetry(moment_s), clip.truth(moment_s))
