"""The situations that a rendered drive is made of: what the own car does, why, and what must stand there for it.

Each situation is a function that appends to a `Plan`. It starts and ends with a rolling car, takes whole seconds
(so that readings at 1 Hz and BDD-X's whole-second annotations meet its boundaries exactly), and tells its truth as
stretches. Braking looks the same in the telemetry whether for a light, a sign, a person or the car ahead.

A new situation is one function and one row of `SITUATIONS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .kinematics import Bend, Motion
from .phrases import VEHICLES
from .scene import (
    Crosswalk,
    Junction,
    LaneChange,
    Person,
    Road,
    StopLine,
    StopSign,
    Stretch,
    TrafficLight,
    Vehicle,
)
from .surroundings import COAT_COLOURS, TROUSER_COLOURS, vehicle_colour

# From the camera behind the windscreen to a stop line that the bumper has not quite reached.
CAMERA_TO_LINE_M = 4.0
TOWN_SPEED_MPS = 13.5


@dataclass
class Lead:
    """The vehicle ahead in the own lane; its motion ends where the plan's does."""

    kind: str
    motion: Motion
    lane_change: LaneChange | None = None


@dataclass
class Plan:
    """A drive in the making. Everything is appended in time order; `motion` is the own car's."""

    rng: random.Random
    road: Road
    motion: Motion
    lead: Lead | None = None
    stretches: list[Stretch] = field(default_factory=list)
    bends: list[Bend] = field(default_factory=list)
    lights: list[TrafficLight] = field(default_factory=list)
    signs: list[StopSign] = field(default_factory=list)
    vehicles: list[Vehicle] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)
    crosswalks: list[Crosswalk] = field(default_factory=list)
    stop_lines: list[StopLine] = field(default_factory=list)

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
        if self.lead is None:
            raise ValueError("there is no lead vehicle to keep a gap to")
        return self.lead.motion.station_m(self.now_s) - self.station_m

    def drive(
        self,
        duration_s: int,
        to_mps: float,
        action: str,
        justification: str,
        *,
        vehicle: str | None = None,
        side: str | None = None,
    ) -> None:
        """Append a stretch in which the own car reaches a speed."""
        start_s = self.now_s
        self.motion.change_speed(to_mps, duration_s)
        self.stretches.append(Stretch(start_s, start_s + duration_s, action, justification, vehicle, side))

    def dismiss_lead(self) -> None:
        """Hand the lead over to the ordinary traffic; from here on the own lane is free."""
        if self.lead is not None:
            colour = vehicle_colour(self.rng)
            self.vehicles.append(Vehicle(self.lead.kind, "lead", colour, self.lead.motion, 0.0, self.lead.lane_change))
            self.lead = None


def _braking_s(plan: Plan) -> int:
    """Whole seconds of an ordinary braking to a standstill."""
    return max(3, round(plan.speed_mps / plan.rng.uniform(2.2, 3.8)))


def _drive_off(plan: Plan, duration_s: int) -> float:
    """A speed (m/s) that ordinary acceleration reaches in this time, within a town's limit."""
    return min(plan.speed_mps + duration_s * plan.rng.uniform(1.2, 2.4), TOWN_SPEED_MPS)


def clear_road(plan: Plan) -> None:
    duration_s = plan.rng.randint(3, 6)
    plan.drive(duration_s, plan.speed_mps + plan.rng.uniform(-0.15, 0.15) * duration_s, "keeps", "clear-road")
    if plan.speed_mps < 9.0 and plan.rng.random() < 0.5:
        duration_s = plan.rng.randint(2, 4)
        plan.drive(duration_s, _drive_off(plan, duration_s), "accelerates", "clear-road")


def red_light(plan: Plan) -> None:
    rng, red_from_s = plan.rng, plan.now_s - 0.2
    braking_s, waiting_s = _braking_s(plan), rng.randint(3, 5)
    line_m = plan.station_m + plan.speed_mps * braking_s / 2 + CAMERA_TO_LINE_M
    light_m = line_m + rng.uniform(10.0, 13.0)
    green_from_s = plan.now_s + braking_s + waiting_s
    plan.lights.append(
        TrafficLight(
            light_m,
            ((-1.0, "green"), (red_from_s - 2.5, "yellow"), (red_from_s, "red"), (float(green_from_s), "green")),
        )
    )
    plan.stop_lines.append(StopLine(line_m))
    plan.junctions.append(Junction(line_m + 2.5, light_m - 1.0))
    plan.drive(braking_s, 0.0, "slows", "red-light")
    plan.drive(waiting_s, 0.0, "stopped", "red-light")
    plan.drive(3, _drive_off(plan, 3), "accelerates", "green-light")
    duration_s = rng.randint(2, 3)
    plan.drive(duration_s, _drive_off(plan, duration_s), "accelerates", "clear-road")


def green_light(plan: Plan) -> None:
    # About 45 m: from farther away nobody would name the light as the reason.
    duration_s = max(3, round(45.0 / plan.speed_mps))
    # The lamps leave the picture's top about 12 m before the car passes under them.
    light_m = plan.station_m + plan.speed_mps * duration_s + 12.0
    plan.lights.append(TrafficLight(light_m, ((-1.0, "green"),)))
    plan.stop_lines.append(StopLine(light_m - 12.0))
    plan.junctions.append(Junction(light_m - 9.5, light_m - 1.0))
    plan.drive(duration_s, plan.speed_mps + plan.rng.uniform(-0.5, 0.0), "keeps", "green-light")


def stop_sign(plan: Plan) -> None:
    braking_s, waiting_s = _braking_s(plan), plan.rng.randint(2, 4)
    standing_m = plan.station_m + plan.speed_mps * braking_s / 2
    # Nearer than this the sign at the right edge would be out of the picture while the car stands.
    sign_m = standing_m + 2.0 * (plan.road.right_edge_m + 1.4) + plan.rng.uniform(0.3, 1.5)
    plan.signs.append(StopSign(sign_m))
    plan.stop_lines.append(StopLine(standing_m + CAMERA_TO_LINE_M))
    plan.junctions.append(Junction(sign_m + 1.5, sign_m + plan.rng.uniform(8.0, 11.0)))
    plan.drive(braking_s, 0.0, "slows", "stop-sign")
    plan.drive(waiting_s, 0.0, "stopped", "stop-sign")
    duration_s = plan.rng.randint(4, 5)
    plan.drive(duration_s, _drive_off(plan, duration_s), "accelerates", "clear-road")


def pedestrian(plan: Plan) -> None:
    rng, road, now_s = plan.rng, plan.road, plan.now_s
    braking_s, waiting_s = _braking_s(plan), rng.randint(3, 4)
    away_s = now_s + braking_s + waiting_s
    crossing_m = plan.station_m + plan.speed_mps * braking_s / 2 + rng.uniform(7.5, 10.0)
    side = rng.choice(("left", "right"))
    # Where the person is when the car may go: past the own lane, still in the picture.
    passed_m = road.lane_width_m / 2 + rng.uniform(0.6, 1.2)
    kerb_m = road.right_edge_m if side == "right" else -road.left_edge_m
    way_m = min(kerb_m + 0.8 + passed_m, 1.7 * (away_s - now_s))
    pace_mps = max(0.9, way_m / (away_s - now_s))
    far_kerb_m = (-road.left_edge_m if side == "right" else road.right_edge_m) + 1.2
    to_the_right = 1.0 if side == "left" else -1.0
    plan.people.append(
        Person(
            crossing_m,
            to_the_right * (passed_m - way_m),
            rng.choice(COAT_COLOURS),
            rng.choice(TROUSER_COLOURS),
            start_s=away_s - way_m / pace_mps,
            end_s=away_s + (far_kerb_m - passed_m) / pace_mps,
            walk_mps=to_the_right * pace_mps,
        )
    )
    if rng.random() < 0.6:
        plan.crosswalks.append(Crosswalk(crossing_m - 1.2))
    plan.drive(braking_s, 0.0, "slows", "pedestrian", side=side)
    plan.drive(waiting_s, 0.0, "stopped", "pedestrian", side=side)
    duration_s = rng.randint(4, 5)
    plan.drive(duration_s, _drive_off(plan, duration_s), "accelerates", "clear-road")


def curve(plan: Plan) -> None:
    rng = plan.rng
    duration_s = rng.randint(4, 6)
    side = rng.choice(("left", "right"))
    yaw_rad_s = rng.uniform(0.08, 0.19) * (1.0 if side == "right" else -1.0)
    length_m = plan.speed_mps * duration_s
    plan.bends.append(Bend(plan.station_m + 1.0, plan.station_m + length_m - 1.0, yaw_rad_s / plan.speed_mps))
    plan.drive(duration_s, plan.speed_mps, f"steers-{side}", "curve", side=side)


def following(plan: Plan) -> None:
    if plan.lead is None:
        gap_m = plan.rng.uniform(10.0, 18.0)
        motion = Motion(plan.now_s, plan.station_m + gap_m, plan.speed_mps)
        plan.lead = Lead(plan.rng.choice(VEHICLES), motion)
    duration_s = plan.rng.randint(3, 6)
    speed_mps = max(6.0, plan.speed_mps + plan.rng.uniform(-0.2, 0.2) * duration_s)
    # The lead ends at the own speed, after it has opened or closed the gap a little.
    plan.lead.motion.change_speed(speed_mps, duration_s)
    plan.drive(duration_s, speed_mps, "keeps", "following", vehicle=plan.lead.kind)


def lead_stops(plan: Plan) -> None:
    lead = _lead_of(plan)
    braking_s, waiting_s = _braking_s(plan), plan.rng.randint(2, 4)
    sooner_s = 1 if plan.gap_m - plan.speed_mps / 2 > 6.0 else 0
    lead.motion.change_speed(0.0, braking_s - sooner_s)
    lead.motion.change_speed(0.0, sooner_s + waiting_s)
    plan.drive(braking_s, 0.0, "slows", "lead-brakes", vehicle=lead.kind)
    plan.drive(waiting_s, 0.0, "stopped", "lead-brakes", vehicle=lead.kind)
    _lead_pulls_away(plan, plan.rng.randint(4, 5))


def lead_slows(plan: Plan) -> None:
    lead = _lead_of(plan)
    duration_s = plan.rng.randint(3, 4)
    speed_mps = plan.speed_mps - duration_s * plan.rng.uniform(1.4, 2.0)
    speed_mps = max(speed_mps, 1.5)
    closing_m = max(0.0, min(plan.gap_m - 9.0, 4.0))
    lead.motion.change_speed(max(0.5, speed_mps - 2 * closing_m / duration_s), duration_s)
    plan.drive(duration_s, speed_mps, "slows", "lead-brakes", vehicle=lead.kind)
    _lead_pulls_away(plan, plan.rng.randint(3, 4))


def lead_leaves(plan: Plan) -> None:
    """The lead moves over to another lane of the own direction and drives away; needs a road that has one."""
    lead, now_s = _lead_of(plan), plan.now_s
    if plan.road.lanes_left + plan.road.lanes_right == 0:
        raise ValueError("the lead has no lane to move over to")
    lane_m = plan.road.lane_width_m * (-1 if plan.road.lanes_left else 1)
    # The reason changes in the middle of the lane change, when the own lane is free.
    lead.lane_change = LaneChange(now_s + 1.5, now_s + 4.5, lane_m)
    kind, speed_mps = lead.kind, plan.speed_mps
    lead.motion.change_speed(speed_mps + 1.0, 3)
    lead.motion.change_speed(speed_mps + 6.0, 4)
    plan.drive(3, speed_mps, "keeps", "following", vehicle=kind)
    plan.dismiss_lead()
    plan.drive(4, speed_mps, "keeps", "clear-road")


def _lead_of(plan: Plan) -> Lead:
    if plan.lead is None:
        raise ValueError("this situation needs a vehicle ahead: plan `following` first")
    return plan.lead


def _lead_pulls_away(plan: Plan, duration_s: int) -> None:
    lead = _lead_of(plan)
    speed_mps = _drive_off(plan, duration_s)
    opening_m = min(max(15.0 - plan.gap_m, 0.0), 8.0)
    lead.motion.change_speed(speed_mps + opening_m / duration_s, duration_s)
    plan.drive(duration_s, speed_mps, "accelerates", "lead-moves", vehicle=lead.kind)


@dataclass(frozen=True, slots=True)
class Situation:
    """One row of the registry.

    needs_lead: only behind another vehicle; shows: the (action, justification) pairs that it is there for.
    """

    build: Callable[[Plan], None]
    needs_lead: bool
    shows: tuple[tuple[str, str], ...]


def _braking_for(justification: str) -> tuple[tuple[str, str], ...]:
    return (("slows", justification), ("stopped", justification))


SITUATIONS: dict[str, Situation] = {
    "red-light": Situation(red_light, False, (*_braking_for("red-light"), ("accelerates", "green-light"))),
    "lead-stops": Situation(lead_stops, True, (*_braking_for("lead-brakes"), ("accelerates", "lead-moves"))),
    "pedestrian": Situation(pedestrian, False, _braking_for("pedestrian")),
    "stop-sign": Situation(stop_sign, False, (*_braking_for("stop-sign"), ("accelerates", "clear-road"))),
    "curve": Situation(curve, False, (("steers-left", "curve"), ("steers-right", "curve"))),
    "following": Situation(following, True, (("keeps", "following"),)),
    "green-light": Situation(green_light, False, (("keeps", "green-light"),)),
    "lead-slows": Situation(lead_slows, True, (("slows", "lead-brakes"), ("accelerates", "lead-moves"))),
    "clear-road": Situation(clear_road, False, (("keeps", "clear-road"),)),
}
