"""Situations made by the road itself or by what stands on it: bends, lanes that end, closed lanes, obstacles."""

from __future__ import annotations

from .kinematics import Bend, Motion
from .phrases import VEHICLES
from .plan import Plan, opposite, towards
from .scene import (
    Barrier,
    Cone,
    Cyclist,
    LaneArrow,
    LaneChange,
    LaneEnd,
    Person,
    Side,
    Vehicle,
    WarningSign,
)
from .surroundings import COAT_COLOURS, TROUSER_COLOURS, vehicle_colour
from .traffic_situations import beside_ahead

WORKER_COAT = (255, 122, 24)


def clear_road(plan: Plan) -> None:
    duration_s = plan.rng.randint(3, 6)
    plan.drive(duration_s, plan.speed_mps + plan.rng.uniform(-0.15, 0.15) * duration_s, "keeps", "clear-road")
    if plan.speed_mps < 9.0 and plan.rng.random() < 0.5:
        duration_s = plan.rng.randint(2, 4)
        plan.drive(duration_s, plan.driving_off_mps(duration_s), "accelerates", "clear-road")


def curve(plan: Plan) -> None:
    rng = plan.rng
    duration_s = rng.randint(4, 6)
    side: Side = rng.choice(("left", "right"))
    yaw_rad_s = rng.uniform(0.08, 0.19) * towards(side)
    length_m = plan.speed_mps * duration_s
    plan.bends.append(Bend(plan.station_m + 1.0, plan.station_m + length_m - 1.0, yaw_rad_s / plan.speed_mps))
    plan.drive(duration_s, plan.speed_mps, f"steers-{side}", "curve", side=side)


def lane_ends(plan: Plan) -> None:
    """Merge into the lane beside, where now and then another vehicle drives that becomes the lead."""
    rng, side, speed_mps = plan.rng, plan.free_side, plan.speed_mps
    taper_m = plan.station_m + 2.0 * speed_mps + rng.uniform(4.0, 8.0)
    plan.lane_ends.append(LaneEnd(taper_m, 24.0, taper_m + 60.0, plan.lane_m, side))
    plan.lane_arrows += [LaneArrow(taper_m - before_m, plan.lane_m, side) for before_m in (4.0, 16.0)]
    plan.standing.append(WarningSign(taper_m + 8.0, opposite(side), "lane-end"))
    lead = beside_ahead(plan, rng.uniform(14.0, 24.0)) if rng.random() < 0.5 else None
    plan.change_lane(side, plan.now_s + 0.1, plan.now_s + 3.9)
    plan.drive(4, speed_mps, f"changes-{side}", "lane-ends")
    if lead is None:
        plan.drive(3, speed_mps, "keeps", "clear-road")
        return
    lead.motion.change_speed(speed_mps, 4)
    plan.lead = lead


def construction(plan: Plan) -> None:
    """Cones close the own lane; slow down, and pass in the lane beside."""
    rng, side, road = plan.rng, plan.free_side, plan.road
    slowing_s, changing_s = 3, 4
    speed_mps = max(5.5, plan.speed_mps - slowing_s * rng.uniform(1.0, 1.8))
    first_m = plan.station_m + (plan.speed_mps + speed_mps) * slowing_s / 2 + 2.6 * speed_mps + rng.uniform(3.0, 6.0)
    half_m = road.lane_width_m / 2
    outer_m, inner_m = plan.lane_m - towards(side) * half_m, plan.lane_m + towards(side) * (half_m - 0.35)
    plan.standing += [Cone(first_m + 2.5 * index, outer_m + (inner_m - outer_m) * index / 5) for index in range(6)]
    plan.standing += [Cone(first_m + 12.5 + 4.0 * index, inner_m) for index in range(1, 8)]
    plan.standing.append(Barrier(first_m + 15.0, plan.lane_m - towards(side) * 0.3, 2.2))
    plan.standing += [WarningSign(first_m - before_m, opposite(side), "construction") for before_m in (2.0, 15.0)]
    if rng.random() < 0.6:
        worker_m = plan.lane_m - towards(side) * rng.uniform(0.0, 0.8)
        plan.people.append(
            Person(first_m + rng.uniform(18.0, 26.0), worker_m, WORKER_COAT, rng.choice(TROUSER_COLOURS))
        )
    plan.drive(slowing_s, speed_mps, "slows", "construction")
    plan.change_lane(side, plan.now_s + 0.1, plan.now_s + changing_s - 0.2)
    plan.drive(changing_s, speed_mps, f"changes-{side}", "construction")
    plan.drive(4, speed_mps, "keeps", "clear-road")


def parked_vehicle(plan: Plan) -> None:
    """Drive around a vehicle that stands in the own lane with its hazard lights on."""
    kind = plan.rng.choice(VEHICLES)
    lateral_m = plan.road.lanes_end_m - 1.0
    motion = Motion(0.0, plan.station_m + 2.7 * plan.speed_mps + 7.0, 0.0)
    plan.vehicles.append(Vehicle(kind, "parked", vehicle_colour(plan.rng), motion, lateral_m, hazard_lights=True))
    _steer_around(plan, "left", 1.9, "parked", vehicle=kind)


def cyclist_ahead(plan: Plan) -> None:
    """Pass somebody who rides at the right edge of the own lane."""
    rng, rides_mps = plan.rng, plan.rng.uniform(3.5, 4.5)
    motion = Motion(plan.now_s, plan.station_m + 2.4 * (plan.speed_mps - rides_mps) + 6.5, rides_mps)
    lateral_m = plan.road.lanes_end_m - 0.6
    plan.cyclists.append(Cyclist(motion, lateral_m, rng.choice(COAT_COLOURS), rng.choice(TROUSER_COLOURS)))
    _steer_around(plan, "left", 1.4, "cyclist-ahead")


def oncoming_over_line(plan: Plan) -> None:
    """Give way to the right because somebody who comes the other way is over the line."""
    rng, now_s = plan.rng, plan.now_s
    kind, speed_mps = rng.choice(VEHICLES), rng.uniform(4.5, 7.0)
    meeting_s = now_s + 3.3
    met_m = plan.station_m + 3.3 * plan.speed_mps
    motion = Motion(0.0, -(met_m + speed_mps * meeting_s), speed_mps)
    lane_m = plan.road.centre_m - plan.road.lane_width_m / 2
    comes_over = LaneChange(now_s - 1.6, now_s + 0.2, plan.road.lane_width_m / 2 + 0.2)
    plan.vehicles.append(Vehicle(kind, "oncoming", vehicle_colour(rng), motion, lane_m, (comes_over,), backwards=True))
    _steer_around(plan, "right", 0.8, "oncoming", vehicle=kind)


def _steer_around(plan: Plan, side: Side, shift_m: float, justification: str, *, vehicle: str | None = None) -> None:
    """Sway to a side for a reason, and come back so slowly that it is no event of its own."""
    now_s, speed_mps = plan.now_s, plan.speed_mps
    plan.sway(now_s, now_s + 2.8, towards(side) * shift_m)
    plan.sway(now_s + 4.0, now_s + 9.8, -towards(side) * shift_m)
    plan.drive(3, speed_mps, f"steers-{side}", justification, vehicle=vehicle)
    plan.drive(7, speed_mps, "keeps", "clear-road")
