"""Speed and course ahead, as the field scores them beside captions: RMSE, and the share that is right to within delta.

ADAPT, DriveGPT4 and RAG-Driver predict both for the step after what was seen; the forecast here, from the last known
motion alone, is the baseline that such a figure has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .signals import ACCELERATION_MPS2, SPEED_KMH

# A_delta's thresholds, in m/s for speed and degrees for course.
DELTAS = (0.1, 0.5, 1.0, 5.0, 10.0)
# Of the last second's change of speed, so much is expected to go on.
_CARRIED_ON = 0.5


@dataclass(frozen=True, slots=True)
class Motion:
    """speed_mps: at the next step. course_deg: the turn until then, positive to the right. None: not known."""

    speed_mps: float | None = None
    course_deg: float | None = None


def forecast(telemetry: Mapping[str, float]) -> Motion:
    """From VSS signals (signals.py): the speed with half of its last change (v + a/2), and straight ahead."""
    speed_kmh = telemetry.get(SPEED_KMH)
    if speed_kmh is None:
        return Motion(None, 0.0)
    change_mps = _CARRIED_ON * telemetry.get(ACCELERATION_MPS2, 0.0)
    return Motion(max(0.0, speed_kmh / 3.6 + change_mps), 0.0)


def motion_scores(predicted: Sequence[Motion], true: Sequence[Motion]) -> dict[str, Any]:
    """`speed_rmse` (m/s), `course_rmse` (deg), and for each `_a_delta`: share by delta.

    A quantity is left out where no prediction of it meets a true value.
    """
    scores: dict[str, Any] = {}
    for name in ("speed", "course"):
        field = "speed_mps" if name == "speed" else "course_deg"
        errors = [
            abs(getattr(said, field) - getattr(is_so, field))
            for said, is_so in zip(predicted, true, strict=True)
            if getattr(said, field) is not None and getattr(is_so, field) is not None
        ]
        if errors:
            scores[f"{name}_rmse"] = math.sqrt(sum(error * error for error in errors) / len(errors))
            scores[f"{name}_a_delta"] = {
                str(delta): sum(error < delta for error in errors) / len(errors) for delta in DELTAS
            }
    return scores
