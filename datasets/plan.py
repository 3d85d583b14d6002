"""A drive in the making: what situations append to, and what several of them need."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from .kinematics import Bend, Motion
from .scene import (
    Barrier,
    Cone,
    Crosswalk,
    Cyclist,
    Junction,
    LaneArrow,
    LaneChange,
    LaneEnd,
    Person,
    Road,
    Side,
    StopLine,
    StopSign,
    Stretch,
    TrafficLight,
    Turn,
    Vehicle,
    WarningSign,
)
from .surroundings import vehicle_colour

# From the camera behind the windscreen to a stop line that the bumper has not quite reached.
CAMERA_TO_LINE_M = 4.0
TOWN_SPEED_MPS = 13.5


@dataclass
class Lead:
    """The vehicle ahead in the own lane; its motion ends where the plan's does."""

    kind: str
    motion: Motion
    lateral_m: float
    lane_changes: tuple[LaneChange, ...] = ()
    from_s: float = -math.inf


@dataclass
class Plan:
    """Everything is appended in time order.

    motion: the own car's along the road; sways: its moves to the side; lane_m: the middle of the lane that it is in.
    """

    rng: random.Random
    road: Road
    motion: Motion
    lane_m: float = 0.0
    lead: Lead | None = None
    stretches: list[Stretch] = field(default_factory=list)
    sways: list[LaneChange] = field(default_factory=list)
    bends: list[Bend] = field(default_factory=list)
    standing: list[TrafficLight | StopSign | WarningSign | Cone | Barrier] = field(default_factory=list)
    vehicles: list[Vehicle] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    cyclists: list[Cyclist] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)
    crosswalks: list[Crosswalk] = field(default_factory=list)
    stop_lines: list[StopLine] = field(default_factory=list)
    lane_arrows: list[LaneArrow] = field(default_factory=list)
    lane_ends: list[LaneEnd] = field(default_factory=list)

    @property
    def now_s(self) -> int:
        return self.stretches[-1].end_s if self.stretches else 0

    @property
    def station_m(self) -> float:
        return self.motion.station_m(self.now_s)

    @property
    def speed_mps(self) -> float:
        return self.motion.speed_mps(self.now_s)

    @property
    def gap_m(self) -> float:
        """From the camera to the lead's rear."""
        return self.lead_now().motion.station_m(self.now_s) - self.station_m

    @property
    def free_side(self) -> Side:
        """The side on which there is another lane of the own direction; roads have one such side at most."""
        if self.road.lanes_left + self.road.lanes_right == 0:
            raise ValueError("this situation needs a road with two lanes in the own direction")
        from_first_lane: Side = "left" if self.road.lanes_left else "right"
        if abs(self.lane_m) < 0.1:
            return from_first_lane
        return "right" if from_first_lane == "left" else "left"

    def lead_now(self) -> Lead:
        if self.lead is None:
            raise ValueError("this situation needs a vehicle ahead: plan `following` first")
        return self.lead

    def lane_beside_m(self, side: Side) -> float:
        return self.lane_m + towards(side) * self.road.lane_width_m

    def drive(
        self,
        duration_s: int,
        to_mps: float,
        action: str,
        justification: str,
        *,
        vehicle: str | None = None,
        side: Side | None = None,
    ) -> None:
        """Append a stretch in which the own car reaches a speed."""
        start_s = self.now_s
        self.motion.change_speed(to_mps, duration_s)
        self.stretches.append(Stretch(start_s, start_s + duration_s, action, justification, vehicle, side))

    def sway(self, start_s: float, end_s: float, shift_m: float) -> None:
        """Move the own car to a side between two moments."""
        self.sways.append(LaneChange(start_s, end_s, shift_m))

    def change_lane(self, side: Side, start_s: float, end_s: float) -> None:
        self.sway(start_s, end_s, towards(side) * self.road.lane_width_m)
        self.lane_m = self.lane_beside_m(side)

    def dismiss_lead(self) -> None:
        """Hand the lead over to the ordinary traffic; from here on the own lane is free."""
        if self.lead is not None:
            self.vehicles.append(
                Vehicle(
                    self.lead.kind,
                    "traffic",
                    vehicle_colour(self.rng),
                    self.lead.motion,
                    self.lead.lateral_m,
                    self.lead.lane_changes,
                    from_s=self.lead.from_s,
                )
            )
            self.lead = None

    def braking_s(self) -> int:
        """Whole seconds of an ordinary braking to a standstill."""
        return max(3, round(self.speed_mps / self.rng.uniform(2.2, 3.8)))

    def driving_off_mps(self, duration_s: int) -> float:
        """A speed that ordinary acceleration reaches in this time, within a town's limit."""
        return min(self.speed_mps + duration_s * self.rng.uniform(1.2, 2.4), TOWN_SPEED_MPS)


def towards(side: Side) -> float:
    """The sign of laterals on a side."""
    return 1.0 if side == "right" else -1.0


def opposite(side: Side) -> Side:
    return "left" if side == "right" else "right"
