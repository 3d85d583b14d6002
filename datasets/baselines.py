"""Answers that need no model: what a model's score has to stand beside.

    constant         the same words for everything: those that BDD-X's training split has most often
    narrator         the vehicle's own sentence from telemetry (narrator.py); it gives no reason
    telemetry-rule   the narrator's classes, each in the training split's most frequent words for it, reason included
    nearest          the words of the training moment with the most similar telemetry
    human            BDD-X's second annotation of the same stretch of video, where two people annotated one

None of them looks at a picture.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from .bddx import Row, Segment
from .captions import Caption
from .narrator import action_of, narrate
from .references import Reference
from .signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S

Baseline: TypeAlias = Callable[[Reference], Caption]

CONSTANT = ("The car is stopped", "because the light is red.")

# The most frequent action and justification of each class in BDD-X's training split.
FREQUENT_WORDS: dict[str, tuple[str, str]] = {
    "stopped": CONSTANT,
    "slows": ("The car slows down", "because the light is red."),
    "accelerates": ("The car accelerates", "because the road is clear."),
    "keeps": ("The car is driving forward", "because the road is clear."),
    "steers-left": ("The car is turning left", "to enter another road."),
    "steers-right": ("The car is turning right", "to enter another road."),
}
# Walking pace: a car at no more is mostly about to stop, where its acceleration is not known.
_ROLLING_KMH = 7.2
_FEATURES = (SPEED_KMH, ACCELERATION_MPS2, YAW_RATE_DEG_S)
# Two people mean the same stretch where they share more than half of what either of them marked.
_SAME_STRETCH = 0.5


def constant(reference: Reference) -> Caption:
    del reference
    return Caption.of_parts(*CONSTANT)


def narrator(reference: Reference) -> Caption:
    return Caption.of_answer(narrate(reference.telemetry))


def telemetry_rule(reference: Reference) -> Caption:
    """Where acceleration is missing, as beside RAG-Driver's captions, a rolling car is taken to be slowing down."""
    telemetry = reference.telemetry
    action = action_of(telemetry)
    if action is None:
        action = "slows" if telemetry.get(SPEED_KMH, _ROLLING_KMH) < _ROLLING_KMH else "keeps"
    return Caption.of_parts(*FREQUENT_WORDS[action])


class Nearest:
    """moments: those of the training moments that have speed, acceleration and yaw rate; it cannot be asked without."""

    def __init__(self, training: Sequence[Reference]) -> None:
        self.moments = [each for each in training if _has_features(each.telemetry)]
        features = np.array([_features(each.telemetry) for each in self.moments]).reshape(-1, len(_FEATURES))
        self._scale = features.std(axis=0) + 1e-6 if self.moments else np.ones(len(_FEATURES))
        self._features = features / self._scale

    def __call__(self, reference: Reference) -> Caption:
        """The words of the nearest moment by Euclidean distance in standard deviations; the constant's for a moment
        without all three signals.
        """
        if not _has_features(reference.telemetry):
            return constant(reference)
        distances = self._features - np.array(_features(reference.telemetry)) / self._scale
        return self.moments[int((distances**2).sum(axis=1).argmin())].caption


def _has_features(telemetry: Mapping[str, float]) -> bool:
    return all(signal in telemetry for signal in _FEATURES)


def _features(telemetry: Mapping[str, float]) -> list[float]:
    return [telemetry[signal] for signal in _FEATURES]


def human_pairs(rows: Sequence[Row]) -> list[tuple[Caption, Caption]]:
    """(one person's words, another's) for stretches of video that two rows both annotate.

    The later row's annotations speak, each with that of the earlier row which it overlaps most for its reference. The
    other way round, BDD-X's people score .7 more in the actions' BLEU-4: their texts are shorter.
    """
    rows_of: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.segments:
            rows_of[row.name].append(row)
    return [
        pair
        for same_video in rows_of.values()
        for earlier, later in itertools.combinations(same_video, 2)
        for pair in _same_stretches(later.segments, earlier.segments)
    ]


def _same_stretches(segments: Sequence[Segment], others: Sequence[Segment]) -> list[tuple[Caption, Caption]]:
    matched = [(segment, max(others, key=lambda other: _overlap(segment, other))) for segment in segments]
    return [
        (Caption.of_segment(segment), Caption.of_segment(other))
        for segment, other in matched
        if _overlap(segment, other) > _SAME_STRETCH
    ]


def _overlap(one: Segment, other: Segment) -> float:
    """Intersection over union of two stretches of time."""
    shared_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return shared_s / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s))
