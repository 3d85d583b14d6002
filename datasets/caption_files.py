"""Captions that some model generated, read from its files and brought beside their references.

CSV: a header line with `id` and `action`, `justification`, or both; `speed_mps` and `course_deg` are scored too.
JSON: a list of objects with those keys, or with `id` and one `caption`, which is split into its parts. COCO's
annotations or results (`image_id`, `caption`) are read as one part where the file's name says which
(`..._action.json`, `..._justification.json`), so that a pair of RAG-Driver's files is given as two.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bus.errors import LogError
from .caption_table import PARTS
from .captions import Caption, split_explanation
from .findings import NAMED_PER_REASON, Findings
from .motion_metrics import Motion
from .references import Reference, read_json

_KEYS = (*PARTS, "caption", "speed_mps", "course_deg")
EMPTY = "empty caption"
# Swapped columns show in how texts begin; single ones may begin oddly.
_REASON_OPENINGS = ("because", "since", "as ", "due to", "for ", "to ", "so ")
_FEWEST_TO_TELL = 10


@dataclass(frozen=True, slots=True)
class Generated:
    """parts: those of PARTS that the files hold; captions and motions: one for each reference, in its order."""

    parts: tuple[str, ...]
    captions: tuple[Caption, ...]
    motions: tuple[Motion, ...]


def read_generated(paths: Sequence[Path], references: Sequence[Reference], findings: Findings) -> Generated:
    """Captions for all references. findings: counts empty ones, which are scored as they are.

    Raises LogError where a file is in none of the formats, where ids are missing, unknown or twice there, and where
    actions and justifications have changed places.
    """
    entries: dict[str, dict[str, str]] = {}
    for path in paths:
        for entry_id, entry in _entries(path):
            known = entries.setdefault(entry_id, {})
            if repeated := sorted(known.keys() & entry.keys()):
                raise LogError(f"{path} has a second {repeated[0]} for id {entry_id}: leave one of them")
            known.update(entry)
    _check_ids(entries, references, paths)
    parts = tuple(part for part in PARTS if any(part in entry for entry in entries.values()))
    if not parts:
        raise LogError(f"{_names(paths)} holds no caption: give it a column action, justification or caption")
    _check_columns(entries, paths)
    ordered = [entries[reference.id] for reference in references]
    for reference, entry in zip(references, ordered, strict=True):
        for part in parts:
            findings.add(f"{EMPTY} ({part})", reference.id, int(not entry.get(part, "").strip()))
    return Generated(
        parts,
        tuple(Caption.of_parts(*(entry.get(part, "") for part in PARTS)) for entry in ordered),
        tuple(_motion(entry, reference.id) for entry, reference in zip(ordered, references, strict=True)),
    )


def _entries(path: Path) -> Iterable[tuple[str, dict[str, str]]]:
    """(id, what is said of it), "caption" already split or given its part."""
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    # Of COCO's files, which hold one part each.
    own_part = next((part for part in reversed(PARTS) if part in path.stem.lower()), None)
    for number, row in enumerate(rows, start=1):
        entry_id = row.get("id") if "image_id" not in row else row["image_id"]
        said = {key: str(row[key]) for key in _KEYS if row.get(key) is not None}
        if entry_id in (None, "") or not said:
            raise LogError(
                f"entry {number} of {path} has no id or no caption: each needs id (or image_id) and one of "
                f"{', '.join(_KEYS)}"
            )
        if "caption" in said:
            caption = said.pop("caption")
            parts = {own_part: caption} if own_part else dict(zip(PARTS, split_explanation(caption), strict=True))
            said = parts | said
        yield str(entry_id), said


def _csv_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            titles = [title.strip().lower() for title in reader.fieldnames or ()]
            if not {"id", "image_id"} & set(titles) or not set(_KEYS) & set(titles):
                raise LogError(
                    f"{path} needs a header line with id and action, justification or caption; "
                    f"it has: {', '.join(titles) or 'nothing'}"
                )
            reader.fieldnames = titles
            return [{key: value for key, value in row.items() if key} for row in reader]
    except (OSError, csv.Error) as error:
        raise LogError(f"{path} cannot be read as CSV ({error}); restore it, or name another file") from None


def _json_rows(path: Path) -> list[Mapping[str, Any]]:
    content = read_json(path)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(
            f"{path} does not hold captions: a list of objects with id and action, justification or caption, "
            "or COCO's annotations"
        )
    return rows


def _check_ids(entries: Mapping[str, Any], references: Sequence[Reference], paths: Sequence[Path]) -> None:
    wanted = {reference.id for reference in references}
    missing = [reference.id for reference in references if reference.id not in entries]
    unknown = [entry_id for entry_id in entries if entry_id not in wanted]
    for what, ids in (("lacks captions for", missing), ("has captions for unknown", unknown)):
        if ids:
            more = ", ..." if len(ids) > NAMED_PER_REASON else ""
            raise LogError(
                f"{_names(paths)} {what} {len(ids):,} ids ({', '.join(ids[:NAMED_PER_REASON])}{more}); there are "
                f"{len(references):,} references and {len(entries):,} captions: generate one for each"
            )


def _check_columns(entries: Mapping[str, Mapping[str, str]], paths: Sequence[Path]) -> None:
    counts = {part: sum(_opens_a_reason(entry.get(part, "")) for entry in entries.values()) for part in PARTS}
    if counts["action"] >= _FEWEST_TO_TELL and counts["action"] > len(entries) / 4 > counts["justification"]:
        raise LogError(
            f"{counts['action']:,} of {len(entries):,} actions in {_names(paths)} begin with because, since ..., and "
            f"{counts['justification']:,} justifications: swap the columns"
        )


def _opens_a_reason(text: str) -> bool:
    return text.lower().lstrip().startswith(_REASON_OPENINGS)


def _motion(entry: Mapping[str, str], entry_id: str) -> Motion:
    return Motion(*(_number(entry, key, entry_id) for key in ("speed_mps", "course_deg")))


def _number(entry: Mapping[str, str], key: str, entry_id: str) -> float | None:
    if not entry.get(key, "").strip():
        return None
    try:
        value = float(entry[key])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LogError(f"the {key} of id {entry_id} is {entry[key]!r}: give a number, or leave it empty")
    return value


def _names(paths: Sequence[Path]) -> str:
    return " and ".join(str(path) for path in paths)
