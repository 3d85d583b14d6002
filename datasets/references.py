"""What answers are held against: one annotated moment each, out of a log in BDD-X's format or RAG-Driver's files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bus.errors import LogError
from .bddx import SPLITS, Row, Segment
from .captions import Caption
from .drivelog import DriveLog
from .findings import Findings
from .info_files import BROKEN, NO_FILE, read_info
from .motion_metrics import Motion
from .signals import SPEED_KMH, YAW_RATE_DEG_S
from .telemetry import Reading, joined_signals, known_signals, signals_at

RAG_DRIVER_FILES = {part: f"BDDX_Test_coco_{part}.json" for part in ("action", "justification")}
RAG_DRIVER_MOTION = "BDDX_Test_control_signal.json"
# How far ahead speed and course are to be told.
_AHEAD_S = 1.0
ALL = "all"


@dataclass(frozen=True, slots=True)
class Reference:
    """id: of the moment, by which generated captions name it. segment: its annotation.

    telemetry: VSS names to values, as a vehicle would send them with its question. known: the same from readings up to
    the moment alone, for forecasts. next_motion: what a forecast is held against.
    clip: the row's id, where there may be a video; moment_s: in it.
    """

    id: str
    segment: Segment
    telemetry: Mapping[str, float] = field(default_factory=dict)
    known: Mapping[str, float] = field(default_factory=dict)
    next_motion: Motion = field(default_factory=Motion)
    clip: str = ""
    moment_s: float = 0.0

    @property
    def caption(self) -> Caption:
        return Caption.of_segment(self.segment)


def is_rag_driver(folder: Path) -> bool:
    return (folder / RAG_DRIVER_FILES["action"]).is_file()


def rag_driver_references(folder: Path) -> list[Reference]:
    """BDD-X's test captions as RAG-Driver publishes them, in COCO's format, with the speed and turn of each.

    Speed and turn are those that are to be predicted, at the end of what was seen; narrators take them for the car's
    own. The motion before is not published, so nothing forecasts the speed. Its released prompts are not read: they
    hold that speed. Raises LogError for files that are not in this format.
    """
    captions = {part: read_coco(folder / name) for part, name in RAG_DRIVER_FILES.items()}
    path = folder / RAG_DRIVER_MOTION
    motions = read_json(path)
    try:
        return [
            _rag_driver_reference(key, action, captions["justification"][key], motions[key])
            for key, action in captions["action"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogError(
            f"the captions and motions in {folder} do not belong together ({type(error).__name__}: {error}); "
            "restore RAG-Driver's files"
        ) from None


def _rag_driver_reference(key: str, action: str, justification: str, motion: Mapping[str, Any]) -> Reference:
    speed_mps, course_deg = float(motion["speed"]), float(motion["course"])
    segment = Segment(0.0, 0.0, action, justification)
    # -1: the phone had no valid speed.
    if speed_mps < 0:
        return Reference(key, segment, {YAW_RATE_DEG_S: course_deg}, next_motion=Motion(None, course_deg))
    telemetry = {SPEED_KMH: 3.6 * speed_mps, YAW_RATE_DEG_S: course_deg}
    return Reference(key, segment, telemetry, next_motion=Motion(speed_mps, course_deg))


def log_references(log: DriveLog, split: str, findings: Findings, limit: int | None = None) -> list[Reference]:
    """The middle of every annotation in a split ("all": in the whole log), in the CSV's order, or of the first ones.

    findings: counts info files that are missing or broken. Ids are `<clip id>/<number of the annotation from 1>`.
    Raises LogError where the split has no annotation.
    """
    if split not in (*SPLITS, ALL):
        raise LogError(f"there is no split {split!r}; there are {', '.join((*SPLITS, ALL))}")
    rows = [row for row in log.annotations.rows if split == ALL or row.split == split]
    # One row after the other, because info files are slow to read and a limit leaves most of them alone.
    found = (reference for row in rows for reference in _row_references(row, _readings(log, row, findings)))
    references = list(itertools.islice(found, limit))
    if not references:
        raise LogError(f"no annotation of {log.folder} is in its {split} split: give --split {ALL}, or another log")
    return references


def _readings(log: DriveLog, row: Row, findings: Findings) -> tuple[Reading, ...]:
    path = log.info_paths.get(row.name)
    if path is None:
        findings.add(NO_FILE, row.name)
        return ()
    try:
        return read_info(path).readings
    except LogError:
        findings.add(BROKEN, row.name)
        return ()


def _row_references(row: Row, readings: tuple[Reading, ...]) -> list[Reference]:
    found: list[Reference] = []
    for number, segment in enumerate(row.segments, start=1):
        moment_s = (segment.start_s + segment.end_s) / 2
        known = known_signals(readings, moment_s)
        found.append(
            Reference(
                id=f"{row.clip_id}/{number}",
                segment=segment,
                telemetry=signals_at(readings, moment_s),
                known=known,
                next_motion=_motion_after(readings, moment_s),
                clip=row.clip_id,
                moment_s=moment_s,
            )
        )
    return found


def _motion_after(readings: tuple[Reading, ...], moment_s: float) -> Motion:
    """Speed one second later, and the turn per second there, where readings tell."""
    if not readings or moment_s + _AHEAD_S > readings[-1].at_s:
        return Motion()
    signals = joined_signals(readings, moment_s + _AHEAD_S)
    speed_kmh = signals.get(SPEED_KMH)
    return Motion(None if speed_kmh is None else speed_kmh / 3.6, signals.get(YAW_RATE_DEG_S))


def read_coco(path: Path) -> dict[str, str]:
    """Captions by image id, from COCO's annotations or from a list of results. Raises LogError for another format."""
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else content
    try:
        return {str(entry["image_id"]): str(entry["caption"]) for entry in entries or ()}
    except (TypeError, KeyError):
        raise LogError(
            f"{path} does not hold COCO captions: a list of objects with image_id and caption, or one under annotations"
        ) from None


def read_json(path: Path) -> Any:
    """Raises LogError for a file that cannot be read as JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LogError(f"{path} cannot be read as JSON ({error}); restore it, or name another file") from None
