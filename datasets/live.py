"""A live camera: RTSP, any other URL that FFmpeg can read, or a video device. The newest picture wins.

A thread of its own reads the stream as fast as it comes and keeps one frame, so nothing queues up behind a slow
reader, and it connects again, with growing pauses, whenever the stream ends or falls silent. A picture that is older
than it may be is never shown: no answer is better than one about a scene that is long past.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass

import av
import structlog
from av.container import InputContainer
from av.error import FFmpegError

from ..bus.errors import VideoError
from .sources import View, label_of, without_password
from .video import upright

log = structlog.get_logger()

_CONNECT_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
# The reader may be inside a blocking read; it is a daemon, and ends with the process at the latest.
_CLOSE_TIMEOUT_S = 1.0
_DEVICE_PREFIX = "/dev/"


@dataclass(frozen=True, slots=True)
class _Newest:
    frame: av.VideoFrame
    came_s: float


class LiveCamera:
    """A `Source` that connects at once, in the background.

    url: rtsp://..., http://..., tcp://..., udp://... or a Linux video device such as /dev/video0.
    stale_after_s: older than this a picture is not shown. A stream that is silent for as long, or lags behind its own
    time stamps by as much because it comes faster than it can be decoded, is connected anew.
    losses: how often the stream was lost, by reason.
    """

    def __init__(self, url: str, *, stale_after_s: float = 2.0) -> None:
        self.losses: Counter[str] = Counter()
        self._url = url
        self._name = label_of(without_password(url))
        self._stale_after_s = stale_after_s
        self._began_s = time.monotonic()
        self._newest: _Newest | None = None
        self._trouble = "not connected yet"
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, name="live camera", daemon=True)
        self._reader.start()

    def view(self, elapsed_s: float) -> View:
        """See `Source`; what is seen now, whatever `elapsed_s` says. There is no telemetry and no truth."""
        newest, now_s = self._newest, time.monotonic()
        if newest is None:
            raise VideoError(
                "camera without a picture",
                f"{self._name} has shown nothing yet ({self._trouble}): check the URL and that the camera runs",
            )
        if now_s - newest.came_s > self._stale_after_s:
            raise VideoError(
                "camera silent",
                f"{self._name} has shown nothing new for {now_s - newest.came_s:.1f} s ({self._trouble}): "
                "check the camera and the way to it",
            )
        return View(self._name, newest.came_s - self._began_s, upright(newest.frame), {}, None)

    def wait_for_picture(self, timeout_s: float) -> None:
        """Return once there is a picture. Raises VideoError where none has come in time."""
        give_up_s = time.monotonic() + timeout_s
        while self._newest is None and time.monotonic() < give_up_s:
            self._closing.wait(0.05)
        self.view(0.0)

    def close(self) -> None:
        self._closing.set()
        self._reader.join(_CLOSE_TIMEOUT_S)

    def _read(self) -> None:
        """The reader thread: connect, read until the stream ends, pause, and again."""
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            before = self._newest
            try:
                self._read_stream()
                reason, detail = "camera ended its stream", "the stream ended"
            except VideoError as error:
                reason, detail = error.reason, str(error)
            except (FFmpegError, OSError, ValueError) as error:
                # The error's whole text would repeat the URL, password and all.
                reason, detail = "camera not readable", getattr(error, "strerror", None) or type(error).__name__
            if self._closing.is_set():
                return
            pause_s = _FIRST_PAUSE_S if self._newest is not before else min(2 * pause_s, _LONGEST_PAUSE_S)
            told, self._trouble = self._trouble, detail
            self.losses[reason] += 1
            if detail != told:
                log.warning(reason, camera=self._name, error=detail, connecting_again_in_s=pause_s)
            self._closing.wait(pause_s)

    def _read_stream(self) -> None:
        with self._connect() as stream:
            if not stream.streams.video:
                raise VideoError("camera without a picture", "the stream carries no picture")
            lag = _Lag()
            for frame in stream.decode(video=0):
                now_s = time.monotonic()
                if self._closing.is_set():
                    return
                if frame.is_corrupt:
                    continue
                self._newest = _Newest(frame, now_s)
                if lag.after(frame.time, now_s) > self._stale_after_s:
                    raise VideoError("camera too fast to follow", "its pictures come faster than they are decoded")

    def _connect(self) -> InputContainer:
        if self._url.startswith(_DEVICE_PREFIX):
            if "v4l2" not in av.formats_available:
                raise VideoError(
                    "camera not readable",
                    "this build of PyAV reads no video devices; build it against the system's FFmpeg "
                    "(pip install --no-binary av av), or stream the camera over RTSP",
                )
            return av.open(self._url, format="v4l2")
        # Over UDP a lost packet smears the picture; no waiting for packets to be put in order.
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer"}
        return av.open(self._url, options=options, timeout=(_CONNECT_TIMEOUT_S, self._stale_after_s))


class _Lag:
    """How far a stream's pictures have fallen behind the clock since its first one, in seconds."""

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._began_s = 0.0
        self._last_s = 0.0

    def after(self, time_s: float | None, now_s: float) -> float:
        """time_s: the picture's own time stamp, None where it has none."""
        if time_s is None:
            return 0.0
        if self._first_s is None or time_s < self._last_s:
            # The first picture, or the camera has begun to count anew.
            self._first_s, self._began_s = time_s, now_s
        self._last_s = time_s
        return (now_s - self._began_s) - (time_s - self._first_s)
