"""The situations that a rendered drive is made of: what the own car does, why, and what must stand there for it.

Each situation is a function that appends to a `Plan`. It starts and ends with a rolling car, takes whole seconds
(so that readings at 1 Hz and BDD-X's whole-second annotations meet its boundaries exactly), and tells its truth as
stretches. Braking looks the same in the telemetry whether for a light, a sign, a person or the car ahead.

A new situation is one function and one row of `SITUATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .junction_situations import cyclist, green_light, pedestrian, red_light, road_closed, stop_sign, turn_lane
from .plan import Plan
from .road_situations import (
    clear_road,
    construction,
    curve,
    cyclist_ahead,
    lane_ends,
    oncoming_over_line,
    parked_vehicle,
)
from .traffic_situations import cut_in, following, jam, lead_slows, lead_stops, slow_vehicle

Pair = tuple[str, str]
RoadKind = Literal["any", "one-lane", "two-lane"]


@dataclass(frozen=True, slots=True)
class Situation:
    """One row of the registry.

    shows: the (action, justification) pairs that it is there for.
    needs_lead: only behind another vehicle; without it, only where none is ahead.
    road: how many lanes its road has in the own direction.
    """

    build: Callable[[Plan], None]
    shows: tuple[Pair, ...]
    needs_lead: bool = False
    road: RoadKind = "any"


def _braking_for(justification: str) -> tuple[Pair, Pair]:
    return (("slows", justification), ("stopped", justification))


def _either_way(action: str, justification: str) -> tuple[Pair, Pair]:
    return ((f"{action}-left", justification), (f"{action}-right", justification))


def _turning_for(justification: str) -> tuple[Pair, ...]:
    return (("slows", justification), *_either_way("turns", justification))


SITUATIONS: dict[str, Situation] = {
    "red-light": Situation(red_light, (*_braking_for("red-light"), ("accelerates", "green-light"))),
    "lead-stops": Situation(lead_stops, (*_braking_for("lead-brakes"), ("accelerates", "lead-moves")), needs_lead=True),
    "pedestrian": Situation(pedestrian, _braking_for("pedestrian")),
    "slow-vehicle": Situation(slow_vehicle, _either_way("changes", "slow-vehicle"), needs_lead=True, road="two-lane"),
    "stop-sign": Situation(stop_sign, (*_braking_for("stop-sign"), ("accelerates", "clear-road"))),
    "curve": Situation(curve, _either_way("steers", "curve")),
    "turn": Situation(turn_lane, _turning_for("turn-lane"), road="one-lane"),
    "cut-in": Situation(cut_in, (("slows", "cut-in"), ("keeps", "following")), road="two-lane"),
    "cyclist": Situation(cyclist, _braking_for("cyclist")),
    "jam": Situation(jam, (*_braking_for("jam"), ("accelerates", "lead-moves")), needs_lead=True, road="two-lane"),
    "merge": Situation(lane_ends, _either_way("changes", "lane-ends"), road="two-lane"),
    "parked-vehicle": Situation(parked_vehicle, (("steers-left", "parked"),), road="one-lane"),
    "construction": Situation(
        construction, (("slows", "construction"), *_either_way("changes", "construction")), road="two-lane"
    ),
    "following": Situation(following, (("keeps", "following"),), needs_lead=True),
    "green-light": Situation(green_light, (("keeps", "green-light"),)),
    "lead-slows": Situation(lead_slows, (("slows", "lead-brakes"), ("accelerates", "lead-moves")), needs_lead=True),
    "cyclist-ahead": Situation(cyclist_ahead, (("steers-left", "cyclist-ahead"),), road="one-lane"),
    "oncoming": Situation(oncoming_over_line, (("steers-right", "oncoming"),), road="one-lane"),
    "road-closed": Situation(road_closed, _turning_for("road-closed"), road="one-lane"),
    "clear-road": Situation(clear_road, (("keeps", "clear-road"),)),
}
