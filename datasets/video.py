"""A recorded video, read forwards: the picture of any moment, decoding no more than it takes.

People's videos come rotated, with a variable frame rate, without a stated length, damaged, or cut short by a recorder
that lost its power. What can be shown is shown; what cannot is a `VideoError` that says what to do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import av
from av.error import FFmpegError
from av.stream import Disposition
from PIL import Image

from ..bus.errors import VideoError

# Reasons of a `VideoError`, and of a video that can be played in part.
MISSING = "video missing"
UNREADABLE = "video unreadable"
NO_PICTURE = "video without a picture"
NO_TIME_STAMPS = "video without time stamps"
CUT_SHORT = "video cut short"

# A video that lacks less than this at its end is not worth a word.
CUT_SHORT_S = 1.0
# A longer jump is made by seeking; up to here, reading packets without decoding them is as quick, and exact.
_SEEK_BEYOND_S = 30.0
# 0.3 s and the third frame's rounded time stamp are the same moment.
_SAME_MOMENT_S = 1e-3
# No video is over in no time, whatever its file says.
_SHORTEST_S = 0.01
# Larger pictures, decoded on one thread, would not keep up with a replay at several times the recorded speed.
_ONE_THREAD_PIXELS = 1_000_000
# `rotation` counts counterclockwise, as Pillow does.
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class Video:
    """An open video file. Moments are seconds from its first picture.

    duration_s: as the file states it, or measured where it states none; corrected as soon as reading shows that the
    pictures end earlier.
    """

    def __init__(self, path: Path) -> None:
        """Raises VideoError for what is missing, no video, or a video without pictures."""
        self._path = path
        if not path.is_file():
            what = "is a folder, not a video" if path.is_dir() else "is not there"
            raise VideoError(MISSING, f"the video {path} {what}: give the path of a video file")
        try:
            self._open()
            self.duration_s = max(_SHORTEST_S, self._stated_duration_s() or self._measured_duration_s())
        except (FFmpegError, OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def picture(self, at_s: float) -> Image.Image:
        """The newest picture at a moment, RGB, upright, in the video's own size; the last one after the end."""
        try:
            self._advance(max(0.0, at_s) + self._first_s)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._unreadable(error) from None
        if self._shown is None:
            raise VideoError(NO_PICTURE, f"no picture of {self._path} can be decoded: replace it, or leave it out")
        return upright(self._shown.picture)

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        self._container = av.open(str(self._path))
        pictures = [stream for stream in self._container.streams.video if not _is_cover(stream.disposition)]
        # FFmpeg draws any .txt as a terminal would.
        if not pictures or self._container.format.name == "tty":
            self._container.close()
            raise VideoError(
                NO_PICTURE, f"{self._path} holds no moving picture (only sound or text): give a dash-camera video"
            )
        self._stream = pictures[0]
        codec = self._stream.codec_context
        large = codec.width * codec.height > _ONE_THREAD_PIXELS
        codec.thread_type, codec.thread_count = ("AUTO", 0) if large else ("SLICE", 1)
        self._frame_s = 1.0 / float(self._stream.average_rate or self._stream.guessed_rate or 25)
        # Recorders may start counting anywhere.
        self._first_s = _seconds(self._stream.start_time, self._stream) or 0.0
        self._begin_reading()

    def _begin_reading(self) -> None:
        """Forget what was read: the file is read from another place now."""
        self._packets = self._container.demux(self._stream)
        self._read_s = self._first_s  # how far it was read, on the file's own clock
        self._waiting: deque[av.Packet] = deque()  # read, to be decoded
        self._coming: deque[_Frame] = deque()  # decoded, not yet due
        self._shown: _Frame | None = None
        self._ended = False

    def _stated_duration_s(self) -> float | None:
        """Of the pictures, or else of the whole file; None where it states neither."""
        return _seconds(self._stream.duration, self._stream) or (self._container.duration or 0) / 1_000_000 or None

    def _measured_duration_s(self) -> float:
        """Read through the file without decoding: a recording that was never closed states no length."""
        end_s = self._first_s
        while (packet := self._read_packet()) is not None:
            end_s = max(end_s, self._time_of(packet) + self._frame_s)
        if end_s == self._first_s:
            raise VideoError(NO_PICTURE, f"the video {self._path} holds no picture: replace it, or leave it out")
        self._reopen()
        return end_s - self._first_s

    def _seek(self, at_s: float) -> None:
        """Go to the key frame before a moment, or to the beginning where the file cannot tell where that is."""
        try:
            self._container.seek(round(at_s * 1_000_000), backward=True)
        except FFmpegError:
            self._reopen()
            return
        self._begin_reading()
        # Without an index a seek may end anywhere.
        while (packet := self._read_packet()) is not None:
            if packet.is_keyframe:
                break
        if packet is None or self._time_of(packet) > at_s:
            self._reopen()
            return
        self._read_s = self._time_of(packet)
        self._waiting.append(packet)

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _advance(self, at_s: float) -> None:
        """Put the newest frame of a moment on show; the first one that comes where there is none before it."""
        gone_by = self._shown is not None and at_s < self._shown.from_s
        if gone_by or at_s > self._read_s + _SEEK_BEYOND_S:
            self._seek(at_s)
        self._read_ahead(at_s)
        while True:
            while self._coming and (self._shown is None or self._coming[0].from_s <= at_s + _SAME_MOMENT_S):
                self._shown = self._coming.popleft()
            if self._coming or self._ended:
                return
            self._decode_next()

    def _read_ahead(self, at_s: float) -> None:
        """Read up to a moment; what lies before the last key frame up to there need not be decoded."""
        while self._read_s <= at_s and (packet := self._read_packet()) is not None:
            self._read_s = self._time_of(packet)
            if packet.is_keyframe and self._read_s <= at_s:
                self._waiting.clear()
                self._coming.clear()
                self._stream.codec_context.flush_buffers()
            self._waiting.append(packet)

    def _decode_next(self) -> None:
        packet = self._waiting.popleft() if self._waiting else self._read_packet()
        try:
            # Without a packet the decoder gives out what it still holds.
            frames = self._stream.codec_context.decode(packet)
        except FFmpegError:
            # A damaged packet; later ones may be whole.
            frames = []
        for frame in frames:
            self._coming.append(self._timed(frame))
        if packet is None:
            self._ended = True
            last = self._coming[-1] if self._coming else self._shown
            if last is not None:
                self.duration_s = max(_SHORTEST_S, min(self.duration_s, last.until_s - self._first_s))

    def _read_packet(self) -> av.Packet | None:
        """The next packet; None at the end, and where the file cannot be read on."""
        try:
            return next((packet for packet in self._packets if packet.size), None)
        except FFmpegError:
            return None

    def _time_of(self, packet: av.Packet) -> float:
        time_s = _seconds(packet.dts if packet.pts is None else packet.pts, self._stream)
        if time_s is None:
            raise VideoError(
                NO_TIME_STAMPS,
                f"the video {self._path} has no time stamps: put it into a container, "
                f"as with `ffmpeg -i {self._path.name} -c copy {self._path.stem}.mp4`",
            )
        return time_s

    def _timed(self, frame: av.VideoFrame) -> _Frame:
        before = self._coming[-1] if self._coming else self._shown
        expected_s = before.until_s if before else self._first_s
        from_s = _seconds(frame.pts, self._stream)
        from_s = expected_s if from_s is None else from_s
        return _Frame(frame, from_s, from_s + (_seconds(frame.duration, self._stream) or self._frame_s))

    def _unreadable(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or str(error)
        return VideoError(
            UNREADABLE,
            f"the video {self._path} cannot be decoded ({reason}): it may have been cut short; "
            "copy it again, or leave it out",
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    """A decoded frame and when it is on show, in seconds of the file's own clock."""

    picture: av.VideoFrame
    from_s: float
    until_s: float


def upright(frame: av.VideoFrame) -> Image.Image:
    """A frame as people are to see it: a camera that was mounted turned says so beside the picture."""
    image = frame.to_image()
    turn = _TURNS.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


def _seconds(ticks: int | None, stream: av.VideoStream) -> float | None:
    return None if ticks is None or stream.time_base is None else float(ticks * stream.time_base)


def _is_cover(disposition: Disposition) -> bool:
    """The cover of a song counts as a video to FFmpeg."""
    return bool(disposition & Disposition.attached_pic)
