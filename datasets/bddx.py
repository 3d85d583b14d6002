"""BDD-X's annotation format: the CSV with its 61 columns and its dirt, and the split files.

Kim et al., "Textual Explanations for Self-Driving Vehicles" (ECCV 2018). A row annotates one video in up to 15 slots
of (start, end, action, justification), whole seconds, both inclusive. Rows that are usable are numbered from 1, and
`<number>_<name>` is the id by which the split files list them; other rows do not count.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ..bus.errors import LogError
from .findings import Findings

SLOTS = 15
VIDEO_COLUMN = "Input.Video"
PARTS = ("start", "end", "action", "justification")
COLUMNS = (VIDEO_COLUMN, *(f"Answer.{slot}{part}" for slot in range(1, SLOTS + 1) for part in PARTS))
SPLITS = ("train", "val", "test")
# Videos last about 40 s and none reaches two minutes; a later end is a typing error.
LATEST_END_S = 100
# More than four times BDD-X's longest text, and no more than a message has room for.
LONGEST_TEXT = 1000
_SECONDS = re.compile(r"[0-9]{1,9}")


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
    complete: slots with all four parts, by split ("train", "val", "test", and "complete" over all rows).
    dropped: why slots, rows and split ids were left out; kept: what is odd about slots that were used all the same.
    """

    rows: tuple[Row, ...]
    row_count: int
    blank_rows: int
    videos: int
    complete: Mapping[str, int]
    dropped: Findings
    kept: Findings


def read_annotations(csv_path: Path) -> Annotations:
    """Read a CSV and the split files beside it. Raises LogError for a file that is not in BDD-X's format."""
    dropped, kept = Findings(), Findings()
    split_of = _read_splits(csv_path.parent, dropped)
    try:
        with csv_path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = _cells(file, dropped)
            if (titles := next(lines, None)) is None or [title.strip() for title in titles] != list(COLUMNS):
                raise LogError(
                    f"{csv_path} does not have BDD-X's columns ({VIDEO_COLUMN}, Answer.1start ...): "
                    "`roadside log make DIR` writes a log that does"
                )
            return _read_table(lines, split_of, dropped, kept)
    except OSError as error:
        raise LogError(f"{csv_path} cannot be read ({error}): point --log at a folder with BDD-X's CSV") from None


def _cells(file: Iterable[str], dropped: Findings) -> Iterator[list[str] | None]:
    """The rows of a CSV; None for one that cannot be parsed, as where a quote never closes."""
    reader = csv.reader(file)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            dropped.add("row that is not CSV", f"line {reader.line_num}")
            yield None


def _read_table(
    lines: Iterable[list[str] | None], split_of: Mapping[str, str], dropped: Findings, kept: Findings
) -> Annotations:
    rows: list[Row] = []
    complete: Counter[str] = Counter()
    row_count = videos = blank_rows = 0
    for row_count, line in enumerate(lines, start=1):
        if line is None:
            continue
        cells = [cell.strip() for cell in line] + [""] * (len(COLUMNS) - len(line))
        if not any(cells):
            blank_rows += 1
            continue
        where = f"row {row_count}"
        slots = [cells[1 + 4 * slot : 5 + 4 * slot] for slot in range(SLOTS)]
        name = PurePosixPath(cells[0].replace("\\", "/")).stem
        videos += bool(name)
        full = sum(all(slot) for slot in slots)
        complete["complete"] += full
        # The rule that reproduces the ids of BDD-X's own split files.
        if not (name and slots[0][0] and slots[0][3]):
            dropped.add("row without a video or a first annotation", where)
            continue
        clip_id = f"{len(rows) + 1}_{name}"
        split = split_of.get(clip_id)
        if split:
            complete[split] += full
        rows.append(Row(clip_id, name, split, _read_slots(slots, where, dropped, kept)))
    known = {row.clip_id for row in rows}
    for clip_id in split_of.keys() - known:
        dropped.add("split id that matches no row", clip_id)
    counts = {key: complete[key] for key in ("complete", *SPLITS)}
    return Annotations(tuple(rows), row_count, blank_rows, videos, counts, dropped, kept)


def _read_slots(slots: Sequence[Sequence[str]], where: str, dropped: Findings, kept: Findings) -> tuple[Segment, ...]:
    """The segments in a row's slots, in time order."""
    segments: list[Segment] = []
    last_filled = max((number for number, slot in enumerate(slots) if any(slot)), default=-1)
    for number, slot in enumerate(slots[: last_filled + 1], start=1):
        if not any(slot):
            kept.add("empty slot before a filled one", f"{where} slot {number}")
        elif fault := _slot_fault(slot):
            dropped.add(fault, f"{where} slot {number}")
        else:
            segments.append(_segment(slot, f"{where} slot {number}", kept))
    segments.sort(key=lambda segment: segment.start_s)
    kept.add(
        "annotation overlaps the next",
        where,
        sum(later.start_s < earlier.end_s - 1 for earlier, later in pairwise(segments)),
    )
    return tuple(segments)


def _slot_fault(slot: Sequence[str]) -> str:
    """Why a slot cannot be used; empty where it can."""
    start, end, action, justification = slot
    if not all(slot):
        return "part missing"
    if not (_SECONDS.fullmatch(start) and _SECONDS.fullmatch(end)):
        return "time is not a number"
    if int(end) < int(start):
        return "end before start"
    if int(end) > LATEST_END_S:
        return "end beyond any video"
    if max(len(action), len(justification)) > LONGEST_TEXT:
        return "text is endless"
    if action.strip(". ").lower() == justification.strip(". ").lower():
        return "justification repeats action"
    return ""


def _segment(slot: Sequence[str], where: str, kept: Findings) -> Segment:
    action, justification = slot[2], slot[3]
    if _opens_a_reason(action) and not _opens_a_reason(justification):
        kept.add("action and justification swapped", where)
        action, justification = justification, action
    return Segment(float(int(slot[0])), float(int(slot[1]) + 1), action, justification)


def _opens_a_reason(text: str) -> bool:
    return re.match(r"(because|as|since|due to|for|to)\b", text.lower()) is not None


def _read_splits(folder: Path, dropped: Findings) -> dict[str, str]:
    """Clip id to split, from the split files that are there. Raises LogError for one that cannot be read."""
    split_of: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        if not path.is_file():
            continue
        try:
            clip_ids = path.read_text(encoding="utf-8", errors="replace").split()
        except OSError as error:
            raise LogError(f"{path} cannot be read ({error.strerror}): repair or delete it") from None
        for clip_id in clip_ids:
            if split_of.setdefault(clip_id, split) != split:
                dropped.add("split id that another split has", clip_id)
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
