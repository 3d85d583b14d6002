"""A driving log on disk: what a vehicle replays.

A log is a folder in BDD-X's format: a CSV of annotations, `info/<name>.json` with readings, `videos/<name>.mp4` or
`.mov`, and split files. The reader keeps what is usable of a dirty log and counts what it dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from PIL import Image

from ..bus.errors import LogError
from .bddx import Annotations, Segment, read_annotations, read_readings
from .telemetry import Reading, signals_at

VIDEO_SUFFIXES = (".mp4", ".mov")
# A jump ahead of more than this is made by seeking; a shorter one by decoding what lies between.
_SEEK_BEYOND_S = 4.0


def bundled_log_path() -> Path:
    """The folder of the rendered log that comes with the package."""
    return Path(str(resources.files("roadside.datasets").joinpath("rendered")))


class DriveLog:
    """An opened log. `clips` are the annotated videos that are there, in the CSV's order."""

    def __init__(self, folder: Path, annotations: Annotations) -> None:
        self.folder = folder
        self.annotations = annotations

    @classmethod
    def open(cls, folder: Path | str) -> DriveLog:
        """Read a log's annotations. Raises LogError where the folder holds none."""
        folder = Path(folder)
        if not folder.is_dir():
            raise LogError(f"there is no folder {folder}: point --log at one, or make one with `roadside log make DIR`")
        tables = sorted(folder.glob("*.csv"))
        if len(tables) != 1:
            found = ", ".join(path.name for path in tables) or "none"
            raise LogError(
                f"{folder} must hold exactly one CSV of annotations (found: {found}): "
                "copy BDD-X's there, or make a log with `roadside log make DIR`"
            )
        return cls(folder, read_annotations(tables[0]))

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """Every usable row whose video is there. Raises LogError where there is no video at all."""
        videos = {path.stem: path for path in _videos_in(self.folder)}
        clips = tuple(
            Clip(row.clip_id, videos[row.name], self.folder / "info" / f"{row.name}.json", row.segments)
            for row in self.annotations.rows
            if row.name in videos
        )
        if not clips:
            raise LogError(
                f"{self.folder} has annotations but no video of theirs: put them into {self.folder / 'videos'} "
                f"as <name>{' or <name>'.join(VIDEO_SUFFIXES)}"
            )
        return clips

    @cached_property
    def duration_s(self) -> float:
        """Seconds of all clips together. Raises LogError where a video cannot be read."""
        return sum(clip.duration_s for clip in self.clips)

    def summary(self) -> dict[str, Any]:
        """What `roadside log info` prints; needs no video.

        "segments" counts slots with all four parts, "dropped" why slots and rows were left out; "clips" is how many
        usable rows have their video here.
        """
        annotations = self.annotations
        here = {path.stem for path in _videos_in(self.folder)}
        return {
            "rows": annotations.row_count,
            "blank_rows": annotations.blank_rows,
            "videos": annotations.videos,
            "segments": dict(annotations.complete),
            "dropped": dict(annotations.dropped),
            "clips": sum(row.name in here for row in annotations.rows),
        }


class Clip:
    """One annotated video. Made to be read forwards; it keeps one decoded frame and an open file until `close`.

    name: the row's id, `<number>_<video name>`.
    """

    def __init__(self, name: str, video_path: Path, info_path: Path, segments: tuple[Segment, ...]) -> None:
        self.name = name
        self.segments = segments
        self._video_path = video_path
        self._info_path = info_path
        self._decoder: _Decoder | None = None

    @cached_property
    def duration_s(self) -> float:
        """Seconds of video. Raises LogError where the video cannot be read."""
        if self._decoder is not None:
            return self._decoder.duration_s
        duration_s = self._open_decoder().duration_s
        # A log may hold thousands of videos: none stays open for having been asked its length.
        self.close()
        return duration_s

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What the receiver recorded; empty without an info file. Raises LogError where the file is broken."""
        return read_readings(self._info_path) if self._info_path.is_file() else ()

    def frame(self, at_s: float) -> Image.Image:
        """The newest picture (RGB, the video's own size) at a moment; the last one after the end."""
        return self._open_decoder().frame(at_s)

    def telemetry(self, at_s: float) -> dict[str, float]:
        """VSS names to values (signals.py); readings that are missing or invalid are left out."""
        return signals_at(self.readings, at_s)

    def truth(self, at_s: float) -> Segment | None:
        """The annotation of a moment; where two overlap, the one that began later. None between annotations."""
        covering = [segment for segment in self.segments if segment.start_s <= at_s < segment.end_s]
        return covering[-1] if covering else None

    def close(self) -> None:
        """Let go of the video; the next `frame` opens it again."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def _open_decoder(self) -> _Decoder:
        if self._decoder is None:
            self._decoder = _Decoder(self._video_path)
        return self._decoder


class _Decoder:
    """Decodes one video forwards and keeps the newest picture."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = 1
            duration_us = self._container.duration
            first_us = self._container.start_time or 0
        except (FFmpegError, OSError, IndexError) as error:
            raise self._unreadable(error) from None
        if not duration_us:
            raise self._unreadable("it has no length")
        self.duration_s = duration_us / 1_000_000
        # Recorders may start counting anywhere; moments count from the first picture.
        self._first_s = first_us / 1_000_000
        self._frames = self._decode()
        self._shown: av.VideoFrame | None = None
        self._next: av.VideoFrame | None = None

    def frame(self, at_s: float) -> Image.Image:
        try:
            self._advance(at_s + self._first_s)
            if self._shown is None:
                raise self._unreadable("it holds no picture")
            return self._shown.to_image()
        except FFmpegError as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        self._container.close()

    def _advance(self, at_s: float) -> None:
        """Decode up to a moment of the file's own clock."""
        shown_s = self._shown.time if self._shown is not None else None
        if shown_s is not None and (at_s < shown_s or at_s > shown_s + _SEEK_BEYOND_S):
            self._container.seek(round(at_s * 1_000_000), backward=True)
            self._frames, self._shown, self._next = self._decode(), None, None
        while True:
            if self._next is None:
                self._next = next(self._frames, None)
            # A little tolerance: 0.3 s and the third frame's rounded time stamp are the same moment.
            if self._next is None or (self._shown is not None and (self._next.time or 0.0) > at_s + 1e-3):
                return
            self._shown, self._next = self._next, None

    def _decode(self) -> Iterator[av.VideoFrame]:
        return iter(self._container.decode(self._stream))

    def _unreadable(self, reason: object) -> LogError:
        return LogError(
            f"the video {self._path} cannot be decoded ({reason}): replace it, or take its row out of the CSV"
        )


def _videos_in(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "videos").glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
