"""Renders whole driving logs and writes them in BDD-X's format."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av

from ..bus.errors import LogError
from .bddx import SLOTS, Segment, write_annotations
from .camera import FRAME_HEIGHT, FRAME_WIDTH
from .drives import make_drive
from .info_files import write_readings
from .phrases import COMBINATIONS, CONNECTIVES, action_clause, justification_clause
from .receiver import readings_of
from .renderer import Renderer
from .scene import Drive, Stretch
from .situations import SITUATIONS

FRAMES_PER_S = 10
LONGEST_DRIVE_S = 40
# Drives of logs have seeds below this bound; those of training, validation and test samples lie above it.
LOG_SEED_BITS = 20
_FIRST_START_MS = 1_750_000_000_000
# How many drives are looked at for each clip; making one up takes a fraction of a millisecond.
_CANDIDATES = 40
# Rain is costly to compress, so it falls on one clip of ten.
_CONDITIONS = ("day", "night", "raining", "dusk", "day", "foggy", "night", "day", "dusk", "day")

Progress = Callable[[int, int], None]


def make_log(folder: Path | str, *, seed: int, count: int, progress: Progress | None = None) -> None:
    """Render `count` clips of 24 to 40 s into a new folder. The same seed makes the same log.

    progress: called with (clips done, clips in all) before the first clip and after each.
    Raises LogError where the folder already holds something.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise LogError(f"{folder} is not empty: give a new folder for the log")
    for each in (folder, folder / "videos", folder / "info"):
        each.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda done, total: None)
    tell(0, count)
    written: list[tuple[str, tuple[Segment, ...]]] = []
    for index, (name, drive) in enumerate(plan_log(seed, count)):
        start_ms = _FIRST_START_MS + index * 60_000
        _write_video(folder / "videos" / f"{name}.mp4", drive)
        write_readings(folder / "info" / f"{name}.json", name, start_ms, drive.duration_s, readings_of(drive))
        written.append((f"videos/{name}.mp4", segments_of(drive)))
        tell(index + 1, count)
    write_annotations(folder, written, split="test")


def plan_log(seed: int, count: int) -> list[tuple[str, Drive]]:
    """(name, drive) of each clip. Each is the richest of some: it shows most of what the clips before it left out."""
    rng = random.Random(f"log {seed}")
    missing = set(COMBINATIONS)
    plan: list[tuple[str, Drive]] = []
    for index in range(count):
        conditions = _CONDITIONS[index % len(_CONDITIONS)]
        candidates = [_fitting_drive(rng, conditions) for _ in range(_CANDIDATES)]
        drive = max(candidates, key=lambda candidate: len(missing & _shown(candidate)))
        missing = missing - _shown(drive) or set(COMBINATIONS)
        plan.append((f"{index + 1:02d}-{conditions}-{drive.seed:05x}", drive))
    return plan


def segments_of(drive: Drive) -> tuple[Segment, ...]:
    """A drive's truth in BDD-X's words: neighbouring stretches that say the same become one."""
    rng = random.Random(f"words {drive.seed}")
    segments: list[Segment] = []
    for stretch in _joined(drive.stretches):
        action = action_clause(stretch.action, rng).capitalize()
        reason = justification_clause(stretch.justification, stretch.vehicle, stretch.side, rng)
        justification = f"{rng.choice(CONNECTIVES)} {reason}."
        segments.append(Segment(float(stretch.start_s), float(stretch.end_s), f"{action}.", justification))
    return tuple(segments)


def _shown(drive: Drive) -> set[tuple[str, str]]:
    return {(stretch.action, stretch.justification) for stretch in drive.stretches}


def _fitting_drive(rng: random.Random, conditions: str) -> Drive:
    """The first drive of random seeds that is not too long and fits into a row's slots."""
    situations = list(SITUATIONS)
    while True:
        drive = make_drive(rng.getrandbits(LOG_SEED_BITS), must_show=rng.choice(situations), conditions=conditions)
        if drive.duration_s <= LONGEST_DRIVE_S and len(_joined(drive.stretches)) <= SLOTS:
            return drive


def _joined(stretches: tuple[Stretch, ...]) -> list[Stretch]:
    joined: list[Stretch] = []
    for stretch in stretches:
        last = joined[-1] if joined else None
        if last and _says(last) == _says(stretch):
            joined[-1] = Stretch(last.start_s, stretch.end_s, *_says(last))
        else:
            joined.append(stretch)
    return joined


def _says(stretch: Stretch) -> tuple[str, str, str | None, str | None]:
    return stretch.action, stretch.justification, stretch.vehicle, stretch.side


def _write_video(path: Path, drive: Drive) -> None:
    """H.264 where this build of FFmpeg can write it, MPEG-4 part 2 otherwise; both play everywhere."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"crf": "28", "preset": "veryfast"} if codec == "libx264" else {}
    renderer = Renderer(drive)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FRAMES_PER_S, options=options)
        stream.width, stream.height, stream.pix_fmt = FRAME_WIDTH, FRAME_HEIGHT, "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 1_500_000
        # One thread: the encoder's output must not depend on the machine's number of cores.
        stream.codec_context.thread_count = 1
        stream.time_base = Fraction(1, FRAMES_PER_S)
        for index in range(drive.duration_s * FRAMES_PER_S):
            frame = av.VideoFrame.from_image(renderer.frame(index / FRAMES_PER_S).image)
            frame.pts, frame.time_base = index, Fraction(1, FRAMES_PER_S)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
