"""What models are scored on: pictures with what is true of them, from the rendered test split or from a log."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from ..bus.errors import VideoError
from ..bus.kinds import EXPLAIN
from .bddx import Segment
from .captions import split_explanation
from .drivelog import Clip, DriveLog
from .findings import Findings
from .jpeg import encode_jpeg, fit_within
from .references import Reference
from .samples import TEST_FIRST_SEED, TEST_OBSCURED_FIRST_SEED, TRAINING_FIRST_SEED, Sample, make_samples
from .video import MISSING

# As vehicles send their frames.
JPEG_QUALITY = 85
LONGEST_SIDE_PX = 640

BEYOND_VIDEO = "annotation beyond the end of its video"


@dataclass(frozen=True, slots=True)
class EvaluationScene:
    """jpeg: the newest frame; blank: a black one of the same size, for a model that is not to see.

    earlier: the frames before the newest, oldest first.
    """

    reference: Reference
    jpeg: bytes
    blank: bytes
    earlier: tuple[bytes, ...] = ()


def rendered_scenes(count: int, *, processes: int = 1) -> Iterator[EvaluationScene]:
    """The first so many of the rendered test split, whose seeds no training sees."""
    for sample in make_samples(TEST_FIRST_SEED, count, processes):
        yield _scene(_reference_of(sample), sample.image)


def obscured_scenes(count: int, *, processes: int = 1) -> Iterator[EvaluationScene]:
    """The first so many test scenes of two frames whose newest one hides the reason."""
    for sample in make_samples(TEST_OBSCURED_FIRST_SEED, count, processes, draw="obscured", frames=2):
        *earlier, newest = (frame.image for frame in sample.frames)
        yield _scene(_reference_of(sample), newest, earlier)


def rendered_training_references(count: int, *, processes: int = 1) -> list[Reference]:
    """Words and telemetry of training scenes, for a baseline that learns."""
    return [_reference_of(sample) for sample in make_samples(TRAINING_FIRST_SEED, count, processes)]


def log_scenes(log: DriveLog, references: Sequence[Reference], findings: Findings) -> Iterator[EvaluationScene]:
    """The picture of each reference, clip by clip. findings: counts what could not be shown, which is left out.

    Raises LogError where none of the log's videos is there.
    """
    # At once, and not with the first scene: a log without videos is refused before a model is loaded for it.
    return _scenes_of({clip.name: clip for clip in log.clips}, references, findings)


def _scenes_of(
    clips: Mapping[str, Clip], references: Sequence[Reference], findings: Findings
) -> Iterator[EvaluationScene]:
    by_clip: defaultdict[str, list[Reference]] = defaultdict(list)
    for reference in references:
        by_clip[reference.clip].append(reference)
    for name, moments in by_clip.items():
        if name not in clips:
            findings.add(MISSING, name, len(moments))
            continue
        # A video is read forwards.
        for reference in sorted(moments, key=lambda each: each.moment_s):
            if (picture := _picture(clips[name], reference, findings)) is not None:
                yield _scene(reference, picture)
        clips[name].close()


def _picture(clip: Clip, reference: Reference, findings: Findings) -> Image.Image | None:
    try:
        picture = clip.frame(reference.moment_s)
    except VideoError as error:
        findings.add(error.reason, reference.id)
        return None
    if reference.moment_s >= clip.duration_s:
        findings.add(BEYOND_VIDEO, reference.id)
        return None
    return picture


def _reference_of(sample: Sample) -> Reference:
    words = sample.answer(EXPLAIN, random.Random(f"reference {sample.seed}"))
    segment = Segment(0.0, 0.0, *split_explanation(words))
    return Reference(f"scene {sample.seed}", segment, telemetry=sample.telemetry, known=sample.telemetry)


def _scene(reference: Reference, picture: Image.Image, earlier: Iterable[Image.Image] = ()) -> EvaluationScene:
    black = Image.new("RGB", fit_within(picture, LONGEST_SIDE_PX).size)
    return EvaluationScene(reference, _as_sent(picture), _as_sent(black), tuple(map(_as_sent, earlier)))


def _as_sent(picture: Image.Image) -> bytes:
    return encode_jpeg(fit_within(picture, LONGEST_SIDE_PX), JPEG_QUALITY)
