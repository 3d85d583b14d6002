"""What a log holds, and what of it cannot be used: counted by reason, the first few named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bus.errors import LogError, VideoError
from .drivelog import DriveLog
from .findings import Findings
from .info_files import BROKEN, NO_FILE, read_info
from .video import CUT_SHORT, CUT_SHORT_S, MISSING, Video

Progress = Callable[[int, int], None]

NOT_ANNOTATED = "video without a row"


def take_inventory(log: DriveLog, *, open_videos: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """What `roadside log info` prints, as plain values ready for JSON.

    rows, blank_rows, videos: of the CSV; segments: slots with all four parts, by split; clips: usable rows whose video
    is there. dropped: why slots, rows and split ids are not used; kept: what is odd about slots that are used.
    info_faults and video_faults: of the files beside the CSV, each file counted once per row's video.
    examples: by reason the first places of all these.

    Every info file is read. open_videos: every video is opened too, and its first and last pictures decoded.
    progress: called with (files done, files in all).
    """
    annotations = log.annotations
    names = list(dict.fromkeys(row.name for row in annotations.rows))
    info_faults, video_faults = Findings(), Findings()
    tell = progress or (lambda done, total: None)
    for done, name in enumerate(names):
        tell(done, len(names))
        _check_info(name, log.info_paths.get(name), info_faults)
        _check_video(name, log.video_paths.get(name), video_faults, open_it=open_videos)
    tell(len(names), len(names))
    for name in log.video_paths.keys() - set(names):
        video_faults.add(NOT_ANNOTATED, name)
    findings = {
        "dropped": annotations.dropped,
        "kept": annotations.kept,
        "info_faults": info_faults,
        "video_faults": video_faults,
    }
    return {
        "rows": annotations.row_count,
        "blank_rows": annotations.blank_rows,
        "videos": annotations.videos,
        "segments": dict(annotations.complete),
        "clips": len(annotations.rows) - len(log.rows_without_video),
        **{title: dict(found.counts) for title, found in findings.items()},
        "examples": {reason: places for found in findings.values() for reason, places in found.examples.items()},
    }


def _check_info(name: str, path: Path | None, faults: Findings) -> None:
    if path is None:
        faults.add(NO_FILE, name)
        return
    try:
        found = read_info(path).faults
    except LogError:
        faults.add(BROKEN, name)
        return
    for reason, count in found.items():
        faults.add(reason, name, count)


def _check_video(name: str, path: Path | None, faults: Findings, *, open_it: bool) -> None:
    if path is None:
        faults.add(MISSING, name)
    elif open_it:
        try:
            video = Video(path)
        except VideoError as error:
            faults.add(error.reason, name)
            return
        try:
            stated_s = video.duration_s
            video.picture(0.0)
            video.picture(stated_s)
            faults.add(CUT_SHORT, name, int(video.duration_s < stated_s - CUT_SHORT_S))
        except VideoError as error:
            faults.add(error.reason, name)
        finally:
            video.close()
