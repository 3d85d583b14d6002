"""Theta for answers that mean what the whole model's do, from scenes that are not scored."""

from __future__ import annotations

from collections.abc import Iterable

from ..datasets.link_traces import parse_link
from .collab_clock import VirtualLink
from .collab_contenders import Contender, replay
from .collab_edge import whole_answer
from .collab_profiles import PAPER
from .collab_traces import TracedScene

# One for both exits, as in the paper. Above 1 no exit is ever sure.
_THETAS = (0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 1.01)
# Times do not matter here, only words.
_LINK = "1Gbps,0ms"


def calibrated_thresholds(scenes: Iterable[TracedScene]) -> tuple[float, float]:
    """The lowest theta at which no answer of `ce` names other classes than the whole model's.

    A model's own calibration lets one token of a hundred differ: an answer has a dozen of them, and one can turn its
    meaning. Of n scenes without a difference, up to 3 / n of all answers may still differ, at 95% confidence.
    """
    shape, position = parse_link(_LINK), 0
    for scene in scenes:
        right = scene.caption(whole_answer(scene, max_tokens=scene.question.max_tokens)).classes
        # What a scene has ruled out, those after it need not try.
        while position < len(_THETAS) - 1:
            contender = Contender("ce", "ce", (_THETAS[position],) * 2)
            link = VirtualLink(shape)
            replayed = replay(contender, scene, PAPER, link, max_tokens=scene.question.max_tokens)
            if scene.caption(tuple(replayed.generation.tokens)).classes == right:
                break
            position += 1
    return _THETAS[position], _THETAS[position]
