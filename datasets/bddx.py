"""BDD-X's annotation format: the CSV with its 61 columns and its dirt, the split files and the info files.

Kim et al., "Textual Explanations for Self-Driving Vehicles" (ECCV 2018). A row annotates one video in up to 15 slots
of (start, end, action, justification), whole seconds, both inclusive. Rows that are usable are numbered from 1, and
`<number>_<name>` is the id by which the split files list them; other rows do not count.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..bus.errors import LogError
from .telemetry import Reading

SLOTS = 15
VIDEO_COLUMN = "Input.Video"
PARTS = ("start", "end", "action", "justification")
COLUMNS = (VIDEO_COLUMN, *(f"Answer.{slot}{part}" for slot in range(1, SLOTS + 1) for part in PARTS))
SPLITS = ("train", "val", "test")
# Videos last about 40 s and none reaches two minutes; a later end is a typing error.
LATEST_END_S = 100


@dataclass(frozen=True, slots=True)
class Segment:
    """One annotation. It covers the moments from start_s until before end_s, seconds from the video's start."""

    start_s: float
    end_s: float
    action: str
    justification: str


@dataclass(frozen=True, slots=True)
class Row:
    """A usable row. clip_id: `<number>_<name>`; name: the video's file name without its suffix."""

    clip_id: str
    name: str
    split: str | None
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Annotations:
    """What a CSV holds: its usable rows, and what was counted on the way.

    videos: annotated videos, one a row; one that two people annotated counts twice, as in BDD-X's split files.
    complete: slots with all four parts, by split ("train", "val", "test", and "complete" over all rows);
    dropped: why slots and rows were left out, to how many.
    """

    rows: tuple[Row, ...]
    row_count: int
    blank_rows: int
    videos: int
    complete: Mapping[str, int]
    dropped: Mapping[str, int]


def read_annotations(csv_path: Path) -> Annotations:
    """Read a CSV and the split files beside it. Raises LogError for a file that is not in BDD-X's format."""
    split_of = _read_splits(csv_path.parent)
    try:
        with csv_path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            table = list(csv.reader(file))
    except (OSError, csv.Error) as error:
        raise LogError(f"{csv_path} cannot be read ({error}): point --log at a folder with BDD-X's CSV") from None
    if not table or [title.strip() for title in table[0]] != list(COLUMNS):
        raise LogError(
            f"{csv_path} does not have BDD-X's columns ({VIDEO_COLUMN}, Answer.1start ...): "
            "`roadside log make DIR` writes a log that does"
        )
    return _read_table(table[1:], split_of)


def _read_table(table: list[list[str]], split_of: Mapping[str, str]) -> Annotations:
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    complete: Counter[str] = Counter()
    videos = 0
    blank_rows = 0
    for cells in table:
        cells = [cell.strip() for cell in cells] + [""] * (len(COLUMNS) - len(cells))
        if not any(cells):
            blank_rows += 1
            continue
        slots = [cells[1 + 4 * slot : 5 + 4 * slot] for slot in range(SLOTS)]
        name = PurePosixPath(cells[0].replace("\\", "/")).stem
        videos += bool(name)
        full = sum(all(slot) for slot in slots)
        complete["complete"] += full
        # The rule that reproduces the ids of BDD-X's own split files.
        if not (name and slots[0][0] and slots[0][3]):
            dropped["row without a video or a first annotation"] += 1
            continue
        clip_id = f"{len(rows) + 1}_{name}"
        split = split_of.get(clip_id)
        if split:
            complete[split] += full
        segments = [segment for slot in slots if any(slot) and (segment := _read_slot(slot, dropped))]
        rows.append(Row(clip_id, name, split, tuple(sorted(segments, key=lambda segment: segment.start_s))))
    counts = {key: complete[key] for key in ("complete", *SPLITS)}
    return Annotations(tuple(rows), len(table), blank_rows, videos, counts, dict(dropped))


def _read_slot(slot: Sequence[str], dropped: Counter[str]) -> Segment | None:
    """The segment in a slot, or None with the reason counted."""
    reason = ""
    start_s = end_s = 0
    action, justification = slot[2], slot[3]
    if not all(slot):
        reason = "part missing"
    elif not (slot[0].isdecimal() and slot[1].isdecimal()):
        reason = "time is not a number"
    else:
        start_s, end_s = int(slot[0]), int(slot[1])
        if end_s < start_s:
            reason = "end before start"
        elif end_s > LATEST_END_S:
            reason = "end beyond any video"
        elif action.strip(". ").lower() == justification.strip(". ").lower():
            reason = "justification repeats action"
    if reason:
        dropped[reason] += 1
        return None
    if _opens_a_reason(action) and not _opens_a_reason(justification):
        action, justification = justification, action
    return Segment(float(start_s), float(end_s + 1), action, justification)


def _opens_a_reason(text: str) -> bool:
    return re.match(r"(because|as|since|due to|for|to)\b", text.lower()) is not None


def _read_splits(folder: Path) -> dict[str, str]:
    """Clip id to split, from the split files that are there."""
    split_of: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        if path.is_file():
            split_of.update(dict.fromkeys(path.read_text(encoding="utf-8").split(), split))
    return split_of


def write_annotations(folder: Path, videos: Sequence[tuple[str, Sequence[Segment]]], split: str) -> None:
    """Write a CSV of (video file name, segments) and split files that list all of it under one split.

    Segments start and end at whole seconds. As in BDD-X both written seconds are inclusive.
    """
    with (folder / "annotations.csv").open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for video, segments in videos:
            if len(segments) > SLOTS:
                raise ValueError(f"{video} has {len(segments)} segments; the format has room for {SLOTS}")
            cells = [video]
            for segment in segments:
                cells += [str(int(segment.start_s)), str(int(segment.end_s) - 1), segment.action, segment.justification]
            writer.writerow(cells + [""] * (len(COLUMNS) - len(cells)))
    ids = [f"{number}_{PurePosixPath(video).stem}" for number, (video, _) in enumerate(videos, start=1)]
    for each in SPLITS:
        listed = ids if each == split else []
        (folder / f"{each}.txt").write_text("".join(f"{clip_id}\n" for clip_id in listed), encoding="ascii")


def read_readings(path: Path) -> tuple[Reading, ...]:
    """The readings of an info file, in time order, seconds from the video's start.

    Raises LogError for a file that is not one. Values of -1 are the receiver's way to say that it has none.
    """
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        start_ms = float(info["startTime"])
        readings = [_reading(location, start_ms) for location in info.get("locations") or ()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(
            f"{path} is not an info file ({type(error).__name__}: {error}): repair or delete it; "
            "a clip without one is driven without telemetry"
        ) from None
    return tuple(sorted(readings, key=lambda reading: reading.at_s))


def _reading(location: Mapping[str, float], start_ms: float) -> Reading:
    def valid(key: str) -> float | None:
        value = location.get(key)
        return None if value is None or float(value) == -1.0 else float(value)

    at_s = (float(location["timestamp"]) - start_ms) / 1000.0
    return Reading(at_s, valid("speed"), valid("course"), valid("latitude"), valid("longitude"))


def write_readings(path: Path, ride_id: str, start_ms: int, duration_s: float, readings: Sequence[Reading]) -> None:
    """Write an info file. start_ms: Unix milliseconds of the video's first frame."""
    locations = [
        {
            "course": -1.0 if reading.course_deg is None else reading.course_deg,
            "timestamp": start_ms + round(reading.at_s * 1000),
            "latitude": reading.latitude_deg,
            "longitude": reading.longitude_deg,
            "speed": -1.0 if reading.speed_mps is None else reading.speed_mps,
            "accuracy": 5.0,
        }
        for reading in readings
    ]
    info = {
        "rideID": ride_id,
        "startTime": start_ms,
        "endTime": start_ms + round(duration_s * 1000),
        "locations": locations,
    }
    path.write_text(json.dumps(info, indent=1) + "\n", encoding="ascii")
