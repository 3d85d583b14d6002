"""Frames for people: now and then what the vehicle sees, beside its tasks and never before them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import structlog

from ..bus import topics
from ..bus.errors import LogError
from ..bus.messages import Frame
from ..bus.transport import Bus
from .scenes import Camera, Scene

log = structlog.get_logger()


class FrameSampler:
    """Publishes one frame every `interval_s` seconds; none where that is 0.

    The frame is that of the newest task, if there was one in the second half of the interval: people then see what was
    asked about. A frame waits until everything else has reached the broker, and is forgotten when that takes longer
    than an interval. Counts frames and frames_dropped.
    """

    def __init__(self, *, bus: Bus, camera: Camera, interval_s: float, counters: Counter[str]) -> None:
        self._bus = bus
        self._camera = camera
        self._interval_s = interval_s
        self._counters = counters
        self._newest: tuple[float, Frame] | None = None

    def offer(self, scene: Scene, task_id: str) -> None:
        """A task was made of this scene."""
        self._newest = (time.monotonic(), _frame(scene, task_id))

    async def run(self, started_s: float) -> None:
        """Publish until cancelled. started_s: when the drive began, on the monotonic clock."""
        if not self._interval_s:
            return
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                seen_s, frame = self._newest_of_tasks() or await self._look(started_s)
            except LogError as error:
                log.warning("no picture, so no frame", error=str(error))
                continue
            await self._bus.until_sent()
            if time.monotonic() - seen_s > self._interval_s:
                self._counters["frames_dropped"] += 1
                continue
            self._bus.post(topics.FRAME, frame, vehicle=self._bus.name)
            self._counters["frames"] += 1

    def _newest_of_tasks(self) -> tuple[float, Frame] | None:
        newest, self._newest = self._newest, None
        if newest is None or time.monotonic() - newest[0] > self._interval_s / 2:
            return None
        return newest

    async def _look(self, started_s: float) -> tuple[float, Frame]:
        seen_s = time.monotonic()
        return seen_s, _frame(await self._camera.capture(seen_s - started_s), None)


def _frame(scene: Scene, task_id: str | None) -> Frame:
    return Frame(clip=scene.clip, moment_s=scene.moment_s, jpeg=scene.jpeg, telemetry=scene.telemetry, task_id=task_id)
