"""Whole drives: situations put one after the other, on a road, with surroundings. Deterministic for a seed."""

from __future__ import annotations

import random

from .kinematics import CentreLine, Motion
from .phrases import TIMES_OF_DAY
from .scene import Drive, Road
from .situations import SITUATIONS, Plan, clear_road, following, lead_leaves
from .surroundings import add_surroundings

SHORTEST_DRIVE_S = 24


def make_drive(seed: int, *, must_show: str | None = None, time_of_day: str | None = None) -> Drive:
    """A drive of 24 s or more.

    must_show: a key of SITUATIONS that occurs in it; time_of_day: one of TIMES_OF_DAY. Either is drawn where not given.
    """
    rng = random.Random(seed)
    time_of_day = time_of_day or rng.choice(TIMES_OF_DAY)
    wanted = must_show or rng.choice(list(SITUATIONS))
    behind_lead = SITUATIONS[wanted].needs_lead or rng.random() < 0.3
    # A lead that is followed by other situations has to leave the lane, so that road needs a second one.
    lead_leaves_early = behind_lead and (not SITUATIONS[wanted].needs_lead or rng.random() < 0.5)
    road = _draw_road(rng, neighbour_lane=lead_leaves_early)
    plan = Plan(rng, road, Motion(0.0, 0.0, rng.uniform(7.5, 12.5)))
    if behind_lead:
        _fill_lead_part(plan, wanted, until_s=8 if lead_leaves_early else SHORTEST_DRIVE_S)
    if lead_leaves_early:
        lead_leaves(plan)
    if lead_leaves_early or not behind_lead:
        _fill_free_part(plan, wanted)
    plan.dismiss_lead()
    duration_s = plan.now_s
    drive = Drive(
        seed=seed,
        time_of_day=time_of_day,
        duration_s=duration_s,
        motion=plan.motion,
        road=road,
        centre_line=CentreLine(plan.station_m, tuple(plan.bends), rng.uniform(0.0, 360.0)),
        stretches=tuple(plan.stretches),
        standing=[*plan.lights, *plan.signs],
        vehicles=plan.vehicles,
        people=plan.people,
        junctions=plan.junctions,
        crosswalks=plan.crosswalks,
        stop_lines=plan.stop_lines,
    )
    add_surroundings(drive, rng)
    return drive


def _draw_road(rng: random.Random, *, neighbour_lane: bool) -> Road:
    """neighbour_lane: a second lane of the own direction must be there."""
    lanes_left, lanes_right = rng.choice(((1, 0), (0, 1)) if neighbour_lane else ((0, 0), (0, 0), (1, 0), (0, 1)))
    return Road(
        lane_width_m=rng.uniform(3.3, 3.8),
        lanes_left=lanes_left,
        lanes_right=lanes_right,
        oncoming_lanes=rng.choice((1, 1, 1, 2)),
        parking_right=rng.random() < 0.4,
        pavement_width_m=rng.uniform(1.5, 2.6),
    )


def _fill_lead_part(plan: Plan, wanted: str, until_s: int) -> None:
    """Follow a lead through situations of its own; `wanted` comes first where it is one of them."""
    following(plan)
    if SITUATIONS[wanted].needs_lead:
        SITUATIONS[wanted].build(plan)
    names = [name for name, situation in SITUATIONS.items() if situation.needs_lead]
    while plan.now_s < until_s:
        SITUATIONS[plan.rng.choice(names)].build(plan)


def _fill_free_part(plan: Plan, wanted: str) -> None:
    """Situations without a lead, until the drive is long enough and has shown `wanted`."""
    names = [name for name, situation in SITUATIONS.items() if not situation.needs_lead]
    still_wanted = wanted in names
    while plan.now_s < SHORTEST_DRIVE_S or still_wanted:
        if still_wanted and (plan.rng.random() < 0.5 or plan.now_s >= SHORTEST_DRIVE_S):
            name = wanted
            still_wanted = False
        else:
            name = plan.rng.choice(names)
        # Some way between two stories, so that the next light is not in sight while this one is the reason.
        if plan.stretches and name != "clear-road":
            clear_road(plan)
        SITUATIONS[name].build(plan)
