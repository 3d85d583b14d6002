"""What a model is fine-tuned on: annotated moments of a driving log, as vehicles photograph them.

Videos are read once, forwards, before the training: each chosen moment becomes a JPEG in a folder, with which a
training that was stopped goes on. Nothing is dropped silently: `Findings` counts what could not be used, by reason.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from ..bus.errors import LogError, VideoError
from ..bus.kinds import TaskKind
from ..datasets import keywords
from ..datasets.bddx import Segment
from ..datasets.drivelog import Clip, DriveLog
from ..datasets.findings import Findings
from ..datasets.info_files import BROKEN
from ..datasets.jpeg import encode_jpeg, fit_within
from .questions import Question

# As a vehicle sends its frames by default.
LONGEST_SIDE_PX = 640
JPEG_QUALITY = 85
# In a smaller picture there is nothing to be seen, and some image processors fail on it.
SHORTEST_SIDE_PX = 32

TOO_SMALL = f"picture with a side below {SHORTEST_SIDE_PX} px"
AFTER_THE_END = "annotation after the video's end"


@dataclass(frozen=True)
class Moment:
    """One annotated moment. picture: a JPEG file; telemetry: VSS names to values; segment: what people wrote of it."""

    picture: Path
    telemetry: dict[str, float]
    segment: Segment

    def question(self, kind: TaskKind, jpeg: bytes | None = None) -> Question:
        """A task of this kind about the moment, or about another picture with its telemetry."""
        return Question(kind.prompt, (jpeg or self.picture.read_bytes(),), self.telemetry, max_tokens=kind.max_tokens)

    def blank_picture(self) -> bytes:
        """A black JPEG of the picture's size: what is answered to it comes from the telemetry alone."""
        with Image.open(self.picture) as picture:
            return encode_jpeg(Image.new("RGB", picture.size), JPEG_QUALITY)


@dataclass(frozen=True)
class Stop:
    """Where a clip is to be looked at, in the order of time."""

    clip: Clip
    at_s: float
    segment: Segment


def right_answer(kind: TaskKind, segment: Segment) -> str:
    """What people wrote, as an answer to a task of this kind.

    BDD-X's annotations hold an action and a reason, so the longest answer is the two of them.
    """
    reason = _lower_first(_without_stop(segment.justification))
    bare_reason = keywords.without_connective(reason)
    if "action" not in kind.asks_for:
        return f"{_upper_first(bare_reason)}."
    joined = reason if reason != bare_reason or reason.startswith("to ") else f"because {reason}"
    return f"{_upper_first(_without_stop(segment.action))} {joined}."


def choose_stops(log: DriveLog, split: str, *, per_segment: int, seed: int, at_most: int | None = None) -> list[Stop]:
    """Moments of a split's clips whose videos are there: a random one in each of a segment's `per_segment` equal parts.

    The same seed chooses the same; at_most: of a random choice of clips. Videos are not opened.
    Raises LogError where the folder holds no video at all.
    """
    split_of = {row.clip_id: row.split for row in log.annotations.rows}
    clips = [clip for clip in log.clips if split_of[clip.name] == split and clip.segments]
    if at_most is not None:
        random.Random(f"{split} {seed}").shuffle(clips)
    stops = (stop for clip in clips for stop in _stops_of(clip, per_segment, seed))
    return list(islice(stops, at_most))


def _stops_of(clip: Clip, per_segment: int, seed: int) -> Iterator[Stop]:
    rng = random.Random(f"{clip.name} {seed}")
    stops: list[Stop] = []
    for segment in clip.segments:
        part_s = (segment.end_s - segment.start_s) / per_segment
        stops += [Stop(clip, segment.start_s + (part + rng.random()) * part_s, segment) for part in range(per_segment)]
    yield from sorted(stops, key=lambda stop: stop.at_s)


def gather(
    stops: Iterable[Stop], folder: Path, findings: Findings, advance: Callable[[int], None] = lambda _: None
) -> list[Moment]:
    """Photograph the stops into a folder, but those whose picture is there already; findings: what was left out.

    stops: those of a clip together. advance: told after each how many more are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moments: list[Moment] = []
    lost: set[str] = set()
    clip: Clip | None = None
    for stop in stops:
        if clip is not None and clip is not stop.clip:
            clip.close()
        clip = stop.clip
        if clip.name not in lost:
            try:
                if moment := _photograph(stop, folder, findings):
                    moments.append(moment)
            except VideoError as error:
                findings.add(error.reason, clip.name)
                lost.add(clip.name)
        advance(1)
    if clip is not None:
        clip.close()
    return moments


def _photograph(stop: Stop, folder: Path, findings: Findings) -> Moment | None:
    path = folder / f"{stop.clip.name}-{round(stop.at_s * 1000)}.jpg"
    if not path.is_file():
        picture = stop.clip.frame(stop.at_s)
        # The clip knows its true length only after it was read up to there.
        if stop.at_s > stop.clip.duration_s:
            findings.add(AFTER_THE_END, stop.clip.name)
            return None
        if min(picture.size) < SHORTEST_SIDE_PX:
            findings.add(TOO_SMALL, stop.clip.name)
            return None
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(encode_jpeg(fit_within(picture, LONGEST_SIDE_PX), JPEG_QUALITY))
        unfinished.replace(path)
    return Moment(path, _telemetry(stop, findings), stop.segment)


def _telemetry(stop: Stop, findings: Findings) -> dict[str, float]:
    try:
        return stop.clip.telemetry(stop.at_s)
    except LogError:
        findings.add(BROKEN, stop.clip.name)
        return {}


def _without_stop(text: str) -> str:
    return text.strip().rstrip(". ")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]
