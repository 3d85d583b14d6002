"""Few-shot examples for a large model: annotated moments of a driving log's training split.

As Hu et al. prompt their cloud's model ("Cloud-edge collaborative ADAS", IEEE IoT-J 2025): picture, telemetry, action
and justification. A question comes with those whose telemetry is most like its own, and no two that give the same
reason while there are others, so that the picture has to decide between them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...bus.errors import LogError
from ...bus.kinds import KINDS, TaskKind
from ...datasets.bddx import Segment
from ...datasets.captions import Caption
from ...datasets.drivelog import DriveLog
from ...datasets.evaluation_scenes import log_scenes
from ...datasets.findings import Findings
from ...datasets.references import Reference, log_references
from ...datasets.signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S
from .pictures import data_url

POOL = 64
_SPLIT = "train"
_FEATURES = (SPEED_KMH, ACCELERATION_MPS2, YAW_RATE_DEG_S)
# A signal that only one of two moments has sets them as far apart as two moments mostly are, in standard deviations.
_UNKNOWN = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """id: of the moment. picture_url: the frame as a data URL."""

    id: str
    picture_url: str
    telemetry: Mapping[str, float]
    segment: Segment


class Examples:
    """examples: all that there are to choose from."""

    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples
        features = np.array([_features(each.telemetry) for each in examples]).reshape(-1, len(_FEATURES))
        self._scale = _deviations(features)
        self._features = features / self._scale
        captions = [Caption.of_segment(each.segment) for each in examples]
        self._reasons = [caption.classes.justification for caption in captions]
        self._fit_for = {kind.name: [_fits(caption, kind) for caption in captions] for kind in KINDS.values()}

    def __len__(self) -> int:
        return len(self._examples)

    @classmethod
    def of_log(cls, folder: Path, *, seed: int, size: int = POOL) -> Examples:
        """`size` moments of a log's training split; the same seed takes the same ones. Blocking: it decodes videos.

        Raises LogError where the log has no training split with videos.
        """
        log = training_part(folder)
        rng = random.Random(seed)
        # Few clips are looked into: a log may hold thousands, and each has several annotations.
        rows = rng.sample(log.annotations.rows, min(size, len(log.annotations.rows)))
        part = DriveLog(log.folder, replace(log.annotations, rows=tuple(rows)))
        findings = Findings()
        references = log_references(part, _SPLIT, findings)
        chosen = rng.sample(references, min(size, len(references)))
        scenes = log_scenes(part, chosen, findings)
        return cls([_example(scene.reference, scene.jpeg) for scene in scenes])

    def nearest(self, kind: TaskKind, telemetry: Mapping[str, float], count: int) -> list[Example]:
        """The `count` most similar moments that can answer this kind of question, the most similar one last."""
        features = np.array(_features(telemetry)) / self._scale
        apart = np.nan_to_num(np.abs(self._features - features), nan=_UNKNOWN)
        order = np.argsort((apart**2).sum(axis=1), kind="stable").tolist()
        fitting = [index for index in order if self._fit_for[kind.name][index]]
        new_reasons: list[int] = []
        repeated: list[int] = []
        seen: set[str | None] = set()
        for index in fitting:
            (repeated if self._reasons[index] in seen else new_reasons).append(index)
            seen.add(self._reasons[index])
        return [self._examples[index] for index in reversed((new_reasons + repeated)[:count])]


def training_part(folder: Path) -> DriveLog:
    """A log's rows that are for training and have a video. Raises LogError where there are none; decodes nothing."""
    log = DriveLog.open(folder)
    rows = tuple(row for row in log.annotations.rows if row.split == _SPLIT and row.name in log.video_paths)
    if not rows:
        raise LogError(
            f"{folder} has no video in its training split, which is where examples come from: list clips in"
            f" {folder / 'train.txt'}, name another log, or go without examples"
        )
    return DriveLog(log.folder, replace(log.annotations, rows=rows))


def _example(reference: Reference, jpeg: bytes) -> Example:
    return Example(reference.id, data_url(jpeg), reference.telemetry, reference.segment)


def _fits(caption: Caption, kind: TaskKind) -> bool:
    """Whether it says something of each part that the kind asks for."""
    return all(getattr(caption.classes, part) is not None for part in kind.asks_for)


def _features(telemetry: Mapping[str, float]) -> list[float]:
    return [telemetry.get(signal, np.nan) for signal in _FEATURES]


def _deviations(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column, over the moments that have it; 1 where that tells nothing."""
    deviations = np.ones(features.shape[1])
    for column in range(features.shape[1]):
        known = features[:, column][~np.isnan(features[:, column])]
        if known.size > 1 and known.std() > 0:
            deviations[column] = known.std()
    return deviations
