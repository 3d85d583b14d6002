"""Situations made by vehicles of the own direction: one ahead, one that cuts in, all of them in a jam."""

from __future__ import annotations

from .kinematics import Motion
from .phrases import VEHICLES
from .plan import Lead, Plan, towards
from .scene import LaneChange, Vehicle
from .surroundings import vehicle_colour

# How long before they matter vehicles of later situations come into the scene.
APPROACH_S = 6.0


def following(plan: Plan) -> None:
    if plan.lead is None:
        plan.lead = _new_lead(plan)
    duration_s = plan.rng.randint(3, 6)
    speed_mps = max(6.0, plan.speed_mps + plan.rng.uniform(-0.2, 0.2) * duration_s)
    # The lead ends at the own speed, after it has opened or closed the gap a little.
    plan.lead.motion.change_speed(speed_mps, duration_s)
    plan.drive(duration_s, speed_mps, "keeps", "following", vehicle=plan.lead.kind)


def _new_lead(plan: Plan) -> Lead:
    """A lead from the drive's start on, or later one that has overtaken in the lane beside and moves in."""
    motion = Motion(plan.now_s, plan.station_m + plan.rng.uniform(10.0, 22.0), plan.speed_mps)
    kind = plan.rng.choice(VEHICLES)
    if plan.now_s == 0:
        return Lead(kind, motion, plan.lane_m)
    side = plan.free_side
    moves_in = LaneChange(plan.now_s - 1.5, plan.now_s + 1.5, -towards(side) * plan.road.lane_width_m)
    return Lead(kind, motion, plan.lane_beside_m(side), (moves_in,), plan.now_s - APPROACH_S)


def lead_stops(plan: Plan) -> None:
    lead = plan.lead_now()
    braking_s, waiting_s = plan.braking_s(), plan.rng.randint(2, 4)
    sooner_s = 1 if plan.gap_m - plan.speed_mps / 2 > 6.0 else 0
    lead.motion.change_speed(0.0, braking_s - sooner_s)
    lead.motion.change_speed(0.0, sooner_s + waiting_s)
    plan.drive(braking_s, 0.0, "slows", "lead-brakes", vehicle=lead.kind)
    plan.drive(waiting_s, 0.0, "stopped", "lead-brakes", vehicle=lead.kind)
    _lead_pulls_away(plan, plan.rng.randint(4, 5))


def lead_slows(plan: Plan) -> None:
    lead = plan.lead_now()
    duration_s = plan.rng.randint(3, 4)
    speed_mps = plan.speed_mps - duration_s * plan.rng.uniform(1.4, 2.0)
    speed_mps = max(speed_mps, 1.5)
    closing_m = max(0.0, min(plan.gap_m - 9.0, 4.0))
    lead.motion.change_speed(max(0.5, speed_mps - 2 * closing_m / duration_s), duration_s)
    plan.drive(duration_s, speed_mps, "slows", "lead-brakes", vehicle=lead.kind)
    _lead_pulls_away(plan, plan.rng.randint(3, 4))


def lead_leaves(plan: Plan) -> None:
    """The lead moves over to the lane beside and drives away."""
    lead, now_s = plan.lead_now(), plan.now_s
    shift_m = towards(plan.free_side) * plan.road.lane_width_m
    # The reason changes in the middle of the lane change, when the own lane is free.
    lead.lane_changes += (LaneChange(now_s + 1.5, now_s + 4.5, shift_m),)
    kind, speed_mps = lead.kind, plan.speed_mps
    lead.motion.change_speed(speed_mps + 1.0, 3)
    lead.motion.change_speed(speed_mps + 6.0, 4)
    plan.drive(3, speed_mps, "keeps", "following", vehicle=kind)
    plan.dismiss_lead()
    plan.drive(4, speed_mps, "keeps", "clear-road")


def cut_in(plan: Plan) -> None:
    """A vehicle of the lane beside takes the gap ahead, and is the lead from then on."""
    rng, now_s, side = plan.rng, plan.now_s, plan.free_side
    duration_s, speed_mps = 3, max(4.0, plan.speed_mps - rng.uniform(3.5, 5.0))
    motion = Motion(now_s, plan.station_m + rng.uniform(7.0, 10.0), plan.speed_mps + 0.5)
    # It does not brake: its place between the lanes is the reason, not its lamps.
    motion.change_speed(plan.speed_mps - 1.9, duration_s)
    change = LaneChange(now_s - 0.4, now_s + duration_s + 1.0, -towards(side) * plan.road.lane_width_m)
    kind = rng.choice(VEHICLES)
    plan.lead = Lead(kind, motion, plan.lane_beside_m(side), (change,), now_s - APPROACH_S)
    plan.drive(duration_s, speed_mps, "slows", "cut-in", vehicle=kind, side=side)
    following(plan)


def jam(plan: Plan) -> None:
    """The lead and the vehicles around it come to a halt in every lane, and move on after a while."""
    rng, lead = plan.rng, plan.lead_now()
    motions = [lead.motion]
    for lateral_m, first_m, spacing_m, count in (
        (plan.lane_m, plan.gap_m + 18.0, 15.0, 2),
        (plan.lane_beside_m(plan.free_side), rng.uniform(5.0, 10.0), 13.0, 4),
    ):
        for index in range(count):
            station_m = plan.station_m + first_m + index * (spacing_m + rng.uniform(0.0, 3.0))
            # Slower than the own car, so that it catches up with them.
            motion = Motion(plan.now_s, station_m, max(3.0, plan.speed_mps - 3.0))
            motions.append(motion)
            from_s = plan.now_s - APPROACH_S
            plan.vehicles.append(
                Vehicle(rng.choice(VEHICLES), "traffic", vehicle_colour(rng), motion, lateral_m, from_s=from_s)
            )
    braking_s, waiting_s = plan.braking_s(), rng.randint(3, 4)
    sooner_s = 1 if plan.gap_m - plan.speed_mps / 2 > 6.0 else 0
    for motion in motions:
        motion.change_speed(0.0, braking_s - sooner_s)
        motion.change_speed(0.0, sooner_s + waiting_s)
    plan.drive(braking_s, 0.0, "slows", "jam")
    plan.drive(waiting_s, 0.0, "stopped", "jam")
    moving_s = rng.randint(4, 5)
    _lead_pulls_away(plan, moving_s)
    # The others draw away, so that the lane beside is free again for whatever comes next.
    for motion in motions[1:]:
        motion.change_speed(lead.motion.speed_mps(plan.now_s) + 6.0, moving_s)


def slow_vehicle(plan: Plan) -> None:
    """Change lanes because the lead has become slow, and pass it."""
    lead, side, now_s, speed_mps = plan.lead_now(), plan.free_side, plan.now_s, plan.speed_mps
    duration_s = 4
    # The lead rolls out without its brakes, so that no other reason is in sight.
    loss_mps2 = 0.9 if plan.gap_m > 13.0 else 0.4
    lead.motion.change_speed(max(3.0, speed_mps - loss_mps2 * duration_s), duration_s)
    plan.change_lane(side, now_s + 0.1, now_s + duration_s - 0.1)
    plan.drive(duration_s, speed_mps, f"changes-{side}", "slow-vehicle", vehicle=lead.kind)
    # Once passed it falls back, so that it is nowhere near when the own car slows down.
    lead.motion.change_speed(lead.motion.speed_mps(plan.now_s), 1)
    lead.motion.change_speed(0.5, 4)
    plan.dismiss_lead()
    plan.drive(plan.rng.randint(3, 4), speed_mps + 1.0, "keeps", "clear-road")


def beside_ahead(plan: Plan, gap_m: float) -> Lead:
    """A vehicle of the lane that the own car is about to enter, which will be its lead there."""
    side = plan.free_side
    motion = Motion(plan.now_s, plan.station_m + gap_m, plan.speed_mps)
    return Lead(plan.rng.choice(VEHICLES), motion, plan.lane_beside_m(side), from_s=plan.now_s - APPROACH_S)


def _lead_pulls_away(plan: Plan, duration_s: int) -> None:
    lead = plan.lead_now()
    speed_mps = plan.driving_off_mps(duration_s)
    opening_m = min(max(15.0 - plan.gap_m, 0.0), 8.0)
    lead.motion.change_speed(speed_mps + opening_m / duration_s, duration_s)
    plan.drive(duration_s, speed_mps, "accelerates", "lead-moves", vehicle=lead.kind)
