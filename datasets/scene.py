"""What a rendered drive consists of: the road, what stands and moves on it, and what is true at each moment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .kinematics import CentreLine, Motion

Colour = tuple[int, int, int]
# A vehicle that loses no more than this has its foot off the pedals, not on the brake.
COASTING_MPS2 = 1.0
Role = Literal["traffic", "oncoming", "parked"]
Side = Literal["left", "right"]
Lamp = Literal["red", "yellow", "green"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a drive with one action and one reason; seconds from the drive's start."""

    start_s: int
    end_s: int
    action: str
    justification: str
    vehicle: str | None = None
    side: str | None = None


@dataclass(frozen=True, slots=True)
class Road:
    """The cross-section, in metres from the centre of the car's own lane, positive to the right."""

    lane_width_m: float
    lanes_left: int
    lanes_right: int
    oncoming_lanes: int
    parking_right: bool
    pavement_width_m: float

    def edge_m(self, side: Side) -> float:
        """Where the carriageway ends on a side."""
        return self.right_edge_m if side == "right" else self.left_edge_m

    @property
    def centre_m(self) -> float:
        """The line between the two directions."""
        return -(0.5 + self.lanes_left) * self.lane_width_m

    @property
    def left_edge_m(self) -> float:
        return self.centre_m - self.oncoming_lanes * self.lane_width_m

    @property
    def lanes_end_m(self) -> float:
        """Right end of the rightmost lane; a parking strip may follow."""
        return (0.5 + self.lanes_right) * self.lane_width_m

    @property
    def right_edge_m(self) -> float:
        return self.lanes_end_m + (2.3 if self.parking_right else 0.4)


@dataclass(frozen=True, slots=True)
class Junction:
    """A cross street between two stations."""

    start_m: float
    end_m: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A junction at which the own way leaves the road by a right angle; closed: a barrier stands straight ahead."""

    start_m: float
    end_m: float
    closed: bool


@dataclass(frozen=True, slots=True)
class Crosswalk:
    station_m: float


@dataclass(frozen=True, slots=True)
class StopLine:
    station_m: float


@dataclass(frozen=True, slots=True)
class LaneArrow:
    """An arrow painted on a lane that bends to a side."""

    station_m: float
    lateral_m: float
    side: Side


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """A lane that narrows from start_m on, is hatched until end_m, and may not be used there; traffic moves to side."""

    start_m: float
    taper_m: float
    end_m: float
    lane_m: float
    side: Side


@dataclass(frozen=True, slots=True)
class Cone:
    station_m: float
    lateral_m: float


@dataclass(frozen=True, slots=True)
class Barrier:
    """A striped board across a closed lane."""

    station_m: float
    lateral_m: float
    width_m: float


@dataclass(frozen=True, slots=True)
class WarningSign:
    """A diamond at the edge of the road, on the side of the lane that it speaks of."""

    station_m: float
    side: Side
    warns_of: Literal["lane-end", "construction"]


@dataclass(frozen=True, slots=True)
class TrafficLight:
    """lamps: (from second, lamp), in order; the first one holds from the drive's start.

    lateral_m: the middle of the lane that it hangs over.
    """

    station_m: float
    lateral_m: float
    lamps: tuple[tuple[float, Lamp], ...]

    def lit(self, at_s: float) -> Lamp:
        lit = self.lamps[0][1]
        for since_s, lamp in self.lamps:
            if at_s >= since_s:
                lit = lamp
        return lit


@dataclass(frozen=True, slots=True)
class StopSign:
    station_m: float


@dataclass(frozen=True, slots=True)
class LaneChange:
    """A sideways move by `shift_m` between two moments."""

    start_s: float
    end_s: float
    shift_m: float

    def shift_at(self, at_s: float) -> float:
        share = self._share(at_s)
        return self.shift_m * share * share * (3 - 2 * share)

    def rate_mps(self, at_s: float) -> float:
        """The speed to the side, positive to the right."""
        share = self._share(at_s)
        return 6 * self.shift_m * share * (1 - share) / (self.end_s - self.start_s)

    def goes_on(self, at_s: float) -> bool:
        return self.start_s <= at_s < self.end_s

    def _share(self, at_s: float) -> float:
        return min(max((at_s - self.start_s) / (self.end_s - self.start_s), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Vehicle:
    """Another vehicle. kind: car, truck, bus or van; lateral_m: its middle, before its lane changes if it makes any.

    backwards: it comes the other way, and its motion counts stations in that direction, from zero downwards here.
    hazard_lights: it stands where nobody parks.
    from_s: when it comes into the scene; nothing of it is seen before.
    """

    kind: str
    role: Role
    colour: Colour
    motion: Motion
    lateral_m: float
    lane_changes: tuple[LaneChange, ...] = ()
    backwards: bool = False
    hazard_lights: bool = False
    from_s: float = -math.inf

    def station_m(self, at_s: float) -> float:
        return -self.motion.station_m(at_s) if self.backwards else self.motion.station_m(at_s)

    def lateral_at(self, at_s: float) -> float:
        return self.lateral_m + sum(change.shift_at(at_s) for change in self.lane_changes)

    def lane_change_at(self, at_s: float) -> LaneChange | None:
        """The lane change that it makes or announces at this moment."""
        for change in self.lane_changes:
            if change.start_s - 1.0 <= at_s < change.end_s:
                return change
        return None

    def brakes(self, at_s: float) -> bool:
        """Brake lights: while it decelerates, and while it stands with its driver's foot on the pedal."""
        if self.role == "parked":
            return False
        return self.motion.acceleration_mps2(at_s) < -COASTING_MPS2 or (
            self.motion.speed_mps(at_s) < 0.1 and self.motion.acceleration_mps2(at_s) <= 0
        )


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody on foot. A crossing person walks sideways from start_s to end_s; a bystander stands.

    walk_mps is positive to the right; zero for a bystander.
    """

    station_m: float
    lateral_m: float
    coat: Colour
    trousers: Colour
    start_s: float = 0.0
    end_s: float = 0.0
    walk_mps: float = 0.0

    def lateral_at(self, at_s: float) -> float:
        return self.lateral_m + self.walk_mps * (min(max(at_s, self.start_s), self.end_s) - self.start_s)

    def walks(self, at_s: float) -> bool:
        return self.walk_mps != 0 and self.start_s <= at_s < self.end_s


@dataclass(frozen=True, slots=True)
class Cyclist:
    """Somebody on a bicycle, riding along the road, or across it at cross_mps (positive to the right).

    A crossing cyclist is at lateral_m at start_s and rides on without end.
    """

    motion: Motion
    lateral_m: float
    coat: Colour
    trousers: Colour
    start_s: float = 0.0
    cross_mps: float = 0.0

    def station_m(self, at_s: float) -> float:
        return self.motion.station_m(at_s)

    def lateral_at(self, at_s: float) -> float:
        return self.lateral_m + self.cross_mps * (at_s - self.start_s)


@dataclass(frozen=True, slots=True)
class Tree:
    station_m: float
    lateral_m: float
    height_m: float
    colour: Colour


@dataclass(frozen=True, slots=True)
class Building:
    """A block whose wall runs along the road; lateral_m is the wall's."""

    station_m: float
    lateral_m: float
    length_m: float
    height_m: float
    colour: Colour


Standing = TrafficLight | StopSign | WarningSign | Cone | Barrier | Tree | Building


@dataclass
class Drive:
    """A whole drive, ready to be rendered: who moves where and why, and what stands around.

    Times are seconds from its start; `motion` is the own car's along the road, `sways` are its moves to the side.
    """

    seed: int
    conditions: str
    duration_s: int
    motion: Motion
    road: Road
    centre_line: CentreLine
    stretches: tuple[Stretch, ...]
    sways: tuple[LaneChange, ...] = ()
    standing: list[Standing] = field(default_factory=list)
    vehicles: list[Vehicle] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    cyclists: list[Cyclist] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    lane_arrows: list[LaneArrow] = field(default_factory=list)
    lane_ends: list[LaneEnd] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)
    crosswalks: list[Crosswalk] = field(default_factory=list)
    stop_lines: list[StopLine] = field(default_factory=list)

    def lateral_at(self, at_s: float) -> float:
        """The own car's middle."""
        return sum(sway.shift_at(at_s) for sway in self.sways)

    def heading_rad(self, at_s: float) -> float:
        """The own car's compass heading, not wrapped: the road's, and a little aside while it moves to a side."""
        along_mps = max(self.motion.speed_mps(at_s), 1.0)
        aside_mps = sum(sway.rate_mps(at_s) for sway in self.sways)
        return self.centre_line.heading_rad(self.motion.station_m(at_s)) + math.atan2(aside_mps, along_mps)

    def stretch_at(self, at_s: float) -> Stretch:
        """The stretch in force; the last one where the drive has ended."""
        for stretch in self.stretches:
            if at_s < stretch.end_s:
                return stretch
        return self.stretches[-1]
