"""Situations at lights, signs, crossings and turns: the reason stands at a junction, and the own car is alone."""

from __future__ import annotations

import math

from .kinematics import Bend, Motion
from .plan import CAMERA_TO_LINE_M, Plan, opposite, towards
from .scene import (
    Cone,
    Crosswalk,
    Cyclist,
    Junction,
    Lamp,
    LaneArrow,
    Person,
    Side,
    StopLine,
    StopSign,
    TrafficLight,
    Turn,
)
from .surroundings import COAT_COLOURS, TROUSER_COLOURS


def red_light(plan: Plan) -> None:
    rng, red_from_s = plan.rng, plan.now_s - 0.2
    braking_s, waiting_s = plan.braking_s(), rng.randint(3, 5)
    line_m = plan.station_m + plan.speed_mps * braking_s / 2 + CAMERA_TO_LINE_M
    light_m = line_m + rng.uniform(10.0, 22.0)
    green_from_s = plan.now_s + braking_s + waiting_s
    lamps: tuple[tuple[float, Lamp], ...] = (
        (-1.0, "green"),
        (red_from_s - 2.5, "yellow"),
        (red_from_s, "red"),
        (float(green_from_s), "green"),
    )
    plan.standing.append(TrafficLight(light_m, plan.lane_m, lamps))
    plan.stop_lines.append(StopLine(line_m))
    plan.junctions.append(Junction(line_m + 2.5, light_m - 1.0))
    plan.drive(braking_s, 0.0, "slows", "red-light")
    plan.drive(waiting_s, 0.0, "stopped", "red-light")
    # The light is the reason until it is out of sight, some ten metres before the car passes under it.
    passing_s = max(3, math.ceil(math.sqrt(2 * (light_m - plan.station_m - 10.0) / 1.8)))
    plan.drive(passing_s, plan.driving_off_mps(passing_s), "accelerates", "green-light")
    duration_s = rng.randint(2, 3)
    plan.drive(duration_s, plan.driving_off_mps(duration_s), "accelerates", "clear-road")


def green_light(plan: Plan) -> None:
    # About 45 m: from farther away nobody would name the light as the reason.
    duration_s = max(3, round(45.0 / plan.speed_mps))
    # The lamps leave the picture's top about 12 m before the car passes under them.
    light_m = plan.station_m + plan.speed_mps * duration_s + 12.0
    plan.standing.append(TrafficLight(light_m, plan.lane_m, ((-1.0, "green"),)))
    plan.stop_lines.append(StopLine(light_m - 12.0))
    plan.junctions.append(Junction(light_m - 9.5, light_m - 1.0))
    plan.drive(duration_s, plan.speed_mps + plan.rng.uniform(-0.5, 0.0), "keeps", "green-light")


def stop_sign(plan: Plan) -> None:
    braking_s, waiting_s = plan.braking_s(), plan.rng.randint(2, 4)
    standing_m = plan.station_m + plan.speed_mps * braking_s / 2
    # Nearer than this the sign at the right edge would be out of the picture while the car stands.
    sign_m = standing_m + 2.0 * (plan.road.right_edge_m - plan.lane_m + 1.4) + plan.rng.uniform(0.3, 3.0)
    plan.standing.append(StopSign(sign_m))
    plan.stop_lines.append(StopLine(standing_m + CAMERA_TO_LINE_M))
    plan.junctions.append(Junction(sign_m + 1.5, sign_m + plan.rng.uniform(8.0, 11.0)))
    plan.drive(braking_s, 0.0, "slows", "stop-sign")
    plan.drive(waiting_s, 0.0, "stopped", "stop-sign")
    duration_s = plan.rng.randint(4, 5)
    plan.drive(duration_s, plan.driving_off_mps(duration_s), "accelerates", "clear-road")


def pedestrian(plan: Plan) -> None:
    rng, now_s = plan.rng, plan.now_s
    side: Side = rng.choice(("left", "right"))
    braking_s, before_s = plan.braking_s(), rng.randint(1, 2)
    kerb_m = abs(plan.road.edge_m(side) - plan.lane_m)
    walk_mps = min(max((kerb_m + rng.uniform(0.6, 2.0)) / (braking_s + before_s), 0.95), 1.8)
    crossing_m = plan.station_m + plan.speed_mps * braking_s / 2 + rng.uniform(7.5, 11.0)
    past_m = plan.road.lane_width_m / 2 + 0.8
    after_s = math.ceil(past_m / walk_mps)
    far_kerb_m = abs(plan.road.edge_m(opposite(side)) - plan.lane_m) + 1.2
    plan.people.append(
        Person(
            crossing_m,
            plan.lane_m + towards(side) * walk_mps * (braking_s + before_s),
            rng.choice(COAT_COLOURS),
            rng.choice(TROUSER_COLOURS),
            start_s=now_s,
            end_s=now_s + braking_s + before_s + far_kerb_m / walk_mps,
            walk_mps=-towards(side) * walk_mps,
        )
    )
    if rng.random() < 0.7:
        plan.crosswalks.append(Crosswalk(crossing_m - 1.2))
    _wait_for_crossing(plan, "pedestrian", side, braking_s, before_s, after_s)


def cyclist(plan: Plan) -> None:
    """Somebody rides across the road, out of a side street."""
    rng, now_s = plan.rng, plan.now_s
    side: Side = rng.choice(("left", "right"))
    braking_s, before_s = plan.braking_s(), rng.randint(1, 2)
    crossing_m = plan.station_m + plan.speed_mps * braking_s / 2 + rng.uniform(9.0, 13.0)
    # Any faster, and it would come into the picture after the braking has begun.
    ride_mps = min(rng.uniform(1.9, 2.8), 0.45 * (crossing_m - plan.station_m) / (braking_s + before_s))
    after_s = math.ceil((plan.road.lane_width_m / 2 + 1.2) / ride_mps)
    plan.cyclists.append(
        Cyclist(
            Motion(0.0, crossing_m, 0.0),
            plan.lane_m + towards(side) * ride_mps * (braking_s + before_s),
            rng.choice(COAT_COLOURS),
            rng.choice(TROUSER_COLOURS),
            start_s=now_s,
            cross_mps=-towards(side) * ride_mps,
        )
    )
    plan.junctions.append(Junction(crossing_m - 2.5, crossing_m + 3.5))
    _wait_for_crossing(plan, "cyclist", side, braking_s, before_s, after_s)


def _wait_for_crossing(plan: Plan, justification: str, side: Side, braking_s: int, before_s: int, after_s: int) -> None:
    """Stop for somebody who passes the middle of the own lane `before_s` after the car has come to its halt."""
    plan.drive(braking_s, 0.0, "slows", justification, side=side)
    plan.drive(before_s, 0.0, "stopped", justification, side=side)
    plan.drive(after_s, 0.0, "stopped", justification, side=opposite(side))
    duration_s = plan.rng.randint(4, 5)
    plan.drive(duration_s, plan.driving_off_mps(duration_s), "accelerates", "clear-road")


def turn_lane(plan: Plan) -> None:
    """Turn off where the arrows on the own lane point."""
    _turn(plan, "turn-lane")


def road_closed(plan: Plan) -> None:
    """Turn off because a barrier stands across the road; cones lead round the corner."""
    _turn(plan, "road-closed")


def _turn(plan: Plan, justification: str) -> None:
    rng = plan.rng
    side: Side = rng.choice(("left", "right"))
    turning_mps = rng.uniform(4.6, 5.4) if side == "left" else rng.uniform(3.9, 4.5)
    braking_s, turning_s = max(2, round((plan.speed_mps - turning_mps) / rng.uniform(1.6, 2.4))), 4
    # A closed road is closed whichever way the car turns off, and its words name no side.
    told_side = side if justification == "turn-lane" else None
    plan.drive(braking_s, turning_mps, "slows", justification, side=told_side)
    start_m, end_m = plan.station_m, plan.station_m + turning_mps * turning_s
    # A centre line comes into a bend and out of it over four metres each.
    bend = Bend(start_m + 3.0, end_m - 4.0, 0.0)
    curvature_per_m = towards(side) * math.pi / 2 / (math.ceil(bend.end_m) - math.ceil(bend.start_m))
    plan.bends.append(Bend(bend.start_m, bend.end_m, curvature_per_m))
    plan.turns.append(Turn(start_m, end_m, closed=justification == "road-closed"))
    if justification == "turn-lane":
        plan.lane_arrows += [LaneArrow(start_m - before_m, plan.lane_m, side) for before_m in (2.0, 14.0)]
    else:
        outer_m = plan.lane_m - towards(side) * (plan.road.lane_width_m / 2 + 0.3)
        first_m, last_m = math.ceil(start_m + 2.0), math.ceil(end_m + 14.0)
        plan.standing += [Cone(float(station_m), outer_m) for station_m in range(first_m, last_m, 3)]
    plan.drive(turning_s, turning_mps, f"turns-{side}", justification, side=told_side)
    duration_s = rng.randint(3, 4)
    plan.drive(duration_s, plan.driving_off_mps(duration_s), "accelerates", "clear-road")
