"""A driving log on disk: what a vehicle replays.

A log is a folder in BDD-X's format: a CSV of annotations, `info/<name>.json` with readings, `videos/<name>.mp4` or
`.mov` (both may lie in folders below), and split files. Opening one reads the CSV and no more: a log may hold
thousands of videos, and each is opened when it is its turn.
"""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from pathlib import Path

from PIL import Image

from ..bus.errors import LogError
from .bddx import Annotations, Row, Segment, read_annotations
from .info_files import read_info
from .telemetry import Reading, signals_at
from .video import Video

VIDEO_SUFFIXES = (".mp4", ".mov")


def bundled_log_path() -> Path:
    """The folder of the rendered log that comes with the package."""
    return Path(str(resources.files("roadside.datasets").joinpath("rendered")))


class DriveLog:
    """An opened log."""

    def __init__(self, folder: Path, annotations: Annotations) -> None:
        self.folder = folder
        self.annotations = annotations

    @classmethod
    def open(cls, folder: Path | str) -> DriveLog:
        """Read a log's annotations. Raises LogError where the folder holds none."""
        folder = Path(folder)
        if not folder.is_dir():
            hint = (
                "for a video file there is --video" if folder.exists() else "or make one with `roadside log make DIR`"
            )
            raise LogError(f"there is no folder {folder}: point --log at one; {hint}")
        tables = sorted(folder.glob("*.csv"))
        if len(tables) != 1:
            found = ", ".join(path.name for path in tables) or "none"
            raise LogError(
                f"{folder} must hold exactly one CSV of annotations (found: {found}): "
                "copy BDD-X's there, or make a log with `roadside log make DIR`"
            )
        return cls(folder, read_annotations(tables[0]))

    @cached_property
    def video_paths(self) -> dict[str, Path]:
        """The video files that are there, by name without suffix."""
        files = sorted((self.folder / "videos").rglob("*"))
        return {path.stem: path for path in files if path.suffix.lower() in VIDEO_SUFFIXES}

    @cached_property
    def info_paths(self) -> dict[str, Path]:
        """The info files that are there, by name without suffix."""
        return {path.stem: path for path in sorted((self.folder / "info").rglob("*.json"))}

    @cached_property
    def rows_without_video(self) -> tuple[Row, ...]:
        return tuple(row for row in self.annotations.rows if row.name not in self.video_paths)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """Every usable row whose video is there, in the CSV's order. Raises LogError where there is none at all."""
        clips = tuple(
            Clip(row.clip_id, self.video_paths[row.name], self.info_paths.get(row.name), row.segments)
            for row in self.annotations.rows
            if row.name in self.video_paths
        )
        if not clips:
            raise LogError(
                f"{self.folder} has annotations but no video of theirs: put them into {self.folder / 'videos'} "
                f"as <name>{' or <name>'.join(VIDEO_SUFFIXES)}"
            )
        return clips


class Clip:
    """One video with what was recorded and written about it. Made to be read forwards; it keeps one open file until
    `close`.

    name: the row's id, `<number>_<video name>`. info_path: None where nothing was recorded beside the video.
    """

    def __init__(self, name: str, video_path: Path, info_path: Path | None, segments: tuple[Segment, ...]) -> None:
        self.name = name
        self.video_path = video_path
        self.info_path = info_path
        self.segments = segments
        self._video: Video | None = None
        self._known_duration_s: float | None = None

    @property
    def duration_s(self) -> float:
        """Seconds of video; less than before where reading has shown that it ends earlier than its file says.

        Opens the video the first time. Raises VideoError where it cannot be read.
        """
        if self._video is not None or self._known_duration_s is None:
            self._note_duration(self._opened())
        assert self._known_duration_s is not None
        return self._known_duration_s

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What the receiver recorded; empty without an info file. Raises LogError where the file is broken."""
        return read_info(self.info_path).readings if self.info_path else ()

    def frame(self, at_s: float) -> Image.Image:
        """The newest picture (RGB, the video's own size) at a moment; the last one after the end.

        Raises VideoError where the video cannot be read.
        """
        return self._opened().picture(at_s)

    def telemetry(self, at_s: float) -> dict[str, float]:
        """VSS names to values (signals.py); readings that are missing or invalid are left out."""
        return signals_at(self.readings, at_s)

    def truth(self, at_s: float) -> Segment | None:
        """The annotation of a moment; where two overlap, the one that began later. None between annotations."""
        covering = [segment for segment in self.segments if segment.start_s <= at_s < segment.end_s]
        return covering[-1] if covering else None

    def close(self) -> None:
        """Let go of the video; the next look opens it again."""
        if self._video is not None:
            self._note_duration(self._video)
            self._video.close()
            self._video = None

    def _note_duration(self, video: Video) -> None:
        """A video that is opened again states its length anew; what reading has shown of it stays known."""
        known_s = self._known_duration_s
        self._known_duration_s = video.duration_s if known_s is None else min(known_s, video.duration_s)

    def _opened(self) -> Video:
        if self._video is None:
            self._video = Video(self.video_path)
        return self._video
