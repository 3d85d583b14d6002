"""Replaying recorded clips one after the other, over and over. What is broken costs itself and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from ..bus.errors import LogError, VideoError
from .drivelog import Clip
from .info_files import BROKEN
from .sources import View, label_of
from .video import CUT_SHORT, CUT_SHORT_S

log = structlog.get_logger()


class Replay:
    """A `Source` of recorded clips.

    A clip is opened when it is its turn. One that cannot be played is skipped: its loss is counted by reason and named
    once in the process's log, and the next clip begins at the same moment.
    """

    def __init__(
        self, clips: Sequence[Clip], *, start_share: float = 0.0, start_s: float = 0.0, speed: float = 1.0
    ) -> None:
        """start_share: where to begin, from 0 for the first clip to just below 1 for the last one's end; start_s: how
        many seconds later. speed: recorded seconds per second.
        """
        self.losses: Counter[str] = Counter()
        self._clips = list(clips)
        begin = start_share * len(self._clips)
        self._index = min(int(begin), len(self._clips) - 1)
        # Of the first clip; in seconds once it is open.
        self._skipped_share = begin - self._index
        self._start_s = start_s
        self._speed = speed
        # When the current clip began, in recorded seconds since the replay did.
        self._began_s = 0.0
        self._without_telemetry: set[str] = set()
        self._nothing_left: VideoError | None = None

    def view(self, elapsed_s: float) -> View:
        """See `Source`. Raises VideoError where no clip is left that can be played."""
        if self._nothing_left is not None:
            raise self._nothing_left
        position_s = self._start_s + elapsed_s * self._speed
        while True:
            clip = self._clip_at(position_s)
            moment_s = max(0.0, position_s - self._began_s)
            stated_s = clip.duration_s
            try:
                picture = clip.frame(moment_s)
            except VideoError as error:
                self._lose(clip, error)
                self._began_s = position_s
                continue
            if moment_s < clip.duration_s:
                return View(
                    label_of(clip.name), moment_s, picture, self._telemetry(clip, moment_s), clip.truth(moment_s)
                )
            if clip.duration_s < stated_s - CUT_SHORT_S:
                self._note(CUT_SHORT, clip, f"its pictures end at {clip.duration_s:.1f} of {stated_s:.1f} s")

    def close(self) -> None:
        for clip in self._clips:
            clip.close()

    def _clip_at(self, position_s: float) -> Clip:
        """Go on to the clip that covers a position."""
        while True:
            clip = self._clips[self._index]
            try:
                duration_s = clip.duration_s
            except VideoError as error:
                self._skipped_share = 0.0
                self._lose(clip, error)
                continue
            self._began_s -= self._skipped_share * duration_s
            self._skipped_share = 0.0
            if position_s < self._began_s + duration_s:
                return clip
            clip.close()
            self._began_s += duration_s
            self._index = (self._index + 1) % len(self._clips)

    def _lose(self, clip: Clip, error: VideoError) -> None:
        """Take a clip out of the replay. Raises the error where it was the last one."""
        self._note(error.reason, clip, str(error))
        clip.close()
        if len(self._clips) == 1:
            self._nothing_left = error
            raise error
        del self._clips[self._index]
        self._index %= len(self._clips)

    def _telemetry(self, clip: Clip, moment_s: float) -> dict[str, float]:
        if clip.name in self._without_telemetry:
            return {}
        try:
            return clip.telemetry(moment_s)
        except LogError as error:
            self._without_telemetry.add(clip.name)
            self._note(BROKEN, clip, str(error))
            return {}

    def _note(self, reason: str, clip: Clip, error: str) -> None:
        self.losses[reason] += 1
        log.warning(reason, clip=clip.name, error=error)
