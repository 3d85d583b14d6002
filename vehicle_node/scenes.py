"""What the vehicle sees: moments of a replayed log, of a video or of a live camera, ready to be sent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import structlog

from ..bus.errors import ConfigurationError, LogError
from ..datasets.bddx import Row, Segment
from ..datasets.drivelog import Clip, DriveLog, bundled_log_path
from ..datasets.jpeg import encode_jpeg, fit_within
from ..datasets.live import LiveCamera
from ..datasets.redaction import Redaction
from ..datasets.replay import Replay
from ..datasets.sources import Source
from ..datasets.video import MISSING
from .configuration import VehicleConfiguration
from .looking_back import LookingBack, Seen

log = structlog.get_logger()

_FIRST_PICTURE_S = 15.0
_LOOK_EVERY_S = 0.5
_BOTH = "both a log and a video are given: leave out --log or --video"


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment. telemetry: VSS names to values; truth: the log's own words for the moment, where it has any.

    jpeg: the newest frame; earlier: those before it that are sent with it, oldest first.
    """

    clip: str
    moment_s: float
    jpeg: bytes
    telemetry: dict[str, float]
    truth: Segment | None
    earlier: tuple[bytes, ...] = ()

    @property
    def frames(self) -> tuple[bytes, ...]:
        """Oldest first."""
        return (*self.earlier, self.jpeg)

    @property
    def upload_bytes(self) -> int:
        """Of all frames."""
        return sum(map(len, self.frames))


class Camera:
    """Scenes of a source. Looking and JPEG run on a thread of their own, never on the event loop.

    longest_side_px: larger pictures are scaled down before they are encoded.
    redaction: what no scene shows or tells, so that nothing that is made of scenes can.
    frames_per_task: 2 adds to each scene the frame of about a second before, if somebody looked then: see `watch`.
    """

    def __init__(
        self,
        source: Source,
        *,
        jpeg_quality: int,
        longest_side_px: int,
        redaction: Redaction | None = None,
        frames_per_task: int = 1,
    ) -> None:
        self._source = source
        self._jpeg_quality = jpeg_quality
        self._longest_side_px = longest_side_px
        self._redaction = redaction or Redaction()
        self._looks_back = frames_per_task > 1
        self._looking_back = LookingBack(frames_per_task)
        self._looked_at_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="camera")

    @property
    def losses(self) -> Counter[str]:
        """How often something could not be shown or known, by reason."""
        return self._source.losses

    async def capture(self, elapsed_s: float) -> Scene:
        """The scene `elapsed_s` seconds after the drive began. Raises VideoError where nothing can be seen."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, elapsed_s)

    async def watch(self, started_s: float, *, speed: float = 1.0) -> None:
        """Look twice in a second of the drive until cancelled, so that every scene has a frame before it.

        started_s: when the drive began, on the monotonic clock; speed: seconds of the drive per second. Returns at once
        where scenes have one frame.
        """
        while self._looks_back:
            await asyncio.sleep(_LOOK_EVERY_S / speed)
            try:
                await self.capture(time.monotonic() - started_s)
            except LogError:
                # Whoever needs a scene now hears of it.
                continue

    def close(self) -> None:
        self._thread.shutdown()
        self._source.close()

    def _look(self, elapsed_s: float) -> Scene:
        if self._looks_back:
            # Of two who look at once the later one may come first, and a video that is read backwards is decoded anew
            # from its last key frame.
            elapsed_s = self._looked_at_s = max(self._looked_at_s, elapsed_s)
        view = self._source.view(elapsed_s)
        picture = self._redaction.of_frame(fit_within(view.picture, self._longest_side_px))
        telemetry = self._redaction.of_telemetry(view.telemetry)
        seen = Seen(view.clip, view.moment_s, encode_jpeg(picture, self._jpeg_quality))
        earlier = self._looking_back.before(seen)
        return Scene(seen.clip, seen.moment_s, seen.jpeg, telemetry, view.truth, earlier)


def open_camera(configuration: VehicleConfiguration) -> Camera:
    """The camera of a vehicle: its log, its video, or the bundled log where neither is given.

    Raises ConfigurationError where both are given, LogError where what is given cannot be replayed.
    """
    return Camera(
        _source(configuration),
        jpeg_quality=configuration.jpeg_quality,
        longest_side_px=configuration.longest_side_px,
        redaction=Redaction(configuration.redact_regions, location=configuration.redact_location),
        frames_per_task=configuration.frames_per_task,
    )


def _source(configuration: VehicleConfiguration) -> Source:
    if configuration.log is not None and configuration.video is not None:
        raise ConfigurationError(_BOTH)
    if configuration.video is not None and is_live(configuration.video):
        return LiveCamera(configuration.video, stale_after_s=configuration.stale_after_ms / 1000)
    missing: Sequence[Row] = ()
    if configuration.video is not None:
        clips = (video_clip(configuration.video),)
    else:
        drive = DriveLog.open(Path(configuration.log) if configuration.log is not None else bundled_log_path())
        clips, missing = drive.clips, drive.rows_without_video
    replay = Replay(
        clips,
        start_share=configuration.start_share,
        start_s=configuration.start_s,
        speed=configuration.speed,
    )
    if missing:
        replay.losses[MISSING] += len(missing)
        log.warning(MISSING, rows=len(missing), first=missing[0].name)
    return replay


def check_source(log_folder: Path | None, video: str | None) -> None:
    """Raise ConfigurationError where a vehicle could not drive by this log, video or camera.

    A camera has `_FIRST_PICTURE_S` to show its first picture.
    """
    if log_folder is not None and video is not None:
        raise ConfigurationError(_BOTH)
    if video is None:
        _ = DriveLog.open(log_folder or bundled_log_path()).clips
    elif is_live(video):
        camera = LiveCamera(video)
        try:
            camera.wait_for_picture(_FIRST_PICTURE_S)
        finally:
            camera.close()
    else:
        video_clip(video)


def is_live(video: str) -> bool:
    """Whether a --video is a camera: a URL of anything but a file, or a device."""
    return ("://" in video and not video.startswith("file://")) or Path(video).is_char_device()


def video_clip(video: str) -> Clip:
    """A video file as a clip of which nothing else is known. Raises VideoError where it cannot be played."""
    path = Path(url2pathname(urlsplit(video).path) if video.startswith("file://") else video)
    clip = Clip(path.stem, path, None, ())
    try:
        clip.frame(0.0)
    finally:
        clip.close()
    return clip
