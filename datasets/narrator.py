"""The vehicle's own voice: one honest sentence from its telemetry, when no model answers in time.

It says what the car does and never why: telemetry holds no reason. As a rule without vision it is also the baseline
that a model has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping

from .phrases import ACTIONS
from .signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S

STANDING_KMH = 1.5
STEADY_MPS2 = 0.6
STEERING_DEG_S = 2.5

KNOWS_NOTHING = "nothing is known of the car's motion ."
ONLY_MOVES = "the car is moving ."


def narrate(telemetry: Mapping[str, float]) -> str:
    """A sentence about the car's action from VSS signals (signals.py), as far as they carry."""
    action = action_of(telemetry)
    if action is not None:
        return f"the car {ACTIONS[action][0]} ."
    return ONLY_MOVES if telemetry.get(SPEED_KMH, 0.0) > STANDING_KMH else KNOWS_NOTHING


def action_of(telemetry: Mapping[str, float]) -> str | None:
    """The action class that the signals show; None where they do not suffice for one."""
    speed_kmh = telemetry.get(SPEED_KMH)
    acceleration = telemetry.get(ACCELERATION_MPS2)
    yaw_rate = telemetry.get(YAW_RATE_DEG_S, 0.0)
    if acceleration is not None and acceleration >= STEADY_MPS2:
        return "accelerates"
    if acceleration is not None and acceleration <= -STEADY_MPS2:
        return "slows"
    if speed_kmh is None:
        return None
    if speed_kmh <= STANDING_KMH:
        return "stopped"
    if abs(yaw_rate) >= STEERING_DEG_S:
        return "steers-right" if yaw_rate > 0 else "steers-left"
    return None if acceleration is None else "keeps"
