"""From the bus into the store of frames: the part of the recorder that keeps what vehicles saw."""

from __future__ import annotations

import time
from collections import Counter

import structlog

from ..bus import topics
from ..bus.errors import RunError
from ..bus.messages import Frame, Task
from ..bus.subscription import Subscription
from .frames import FrameStore, Origin
from .run import KeptFrames, RunDirectory

# Which topic carries the frames that are to be kept.
FRAME_TOPICS = {"sampled": topics.FRAME, "tasks": topics.TASK}

_log = structlog.get_logger(__name__)


class FrameKeeper:
    """Keeps frames as they arrive, and tells the run's manifest what it does.

    A frame that cannot be kept or deleted costs nothing but itself: it is logged and counted, and the ledger goes on.
    """

    def __init__(self, store: FrameStore, run: RunDirectory, counters: Counter[str]) -> None:
        self._store = store
        self._run = run
        self._counters = counters
        # Now, so that also a recorder that is killed has said what it was told to keep.
        self.note()

    async def read(self, subscription: Subscription) -> None:
        """Keep what arrives until the subscription ends."""
        async for received in subscription:
            vehicle = received.names["vehicle"]
            try:
                kept = self._keep(vehicle, received.body)
            except RunError as error:
                kept = False
                _log.error("frame not kept", vehicle=vehicle, why=str(error))
            self._counters[received.topic.name if kept else "frames_not_kept"] += 1

    def _keep(self, vehicle: str, body: Frame | Task) -> bool:
        now_s = time.time()
        if isinstance(body, Frame):
            origin = Origin(vehicle, now_s, task_id=body.task_id, clip=body.clip, moment_s=body.moment_s)
            return self._store.add(body.jpeg, origin)
        if self._store.has_task(vehicle, body.task_id):
            return True
        origin = Origin(vehicle, now_s, task_id=body.task_id)
        return all(self._store.add(image, origin) for image in body.frames)

    def delete_due(self) -> None:
        """Delete what is too old or too much."""
        try:
            self._store.delete_due(time.time())
        except RunError as error:
            _log.error("frames not deleted", why=str(error))

    def note(self) -> None:
        """Write down in the manifest what was kept so far."""
        store = self._store
        remaining, remaining_bytes = store.remaining()
        self._run.note_frames(
            KeptFrames(
                keep=store.retention.keep,
                max_age_s=store.retention.max_age_s,
                max_bytes=store.retention.max_bytes,
                stored=store.stored,
                expired=store.expired,
                gave_way=store.gave_way,
                remaining=remaining,
                remaining_bytes=remaining_bytes,
            )
        )
