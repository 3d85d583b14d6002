"""Whole drives: situations put one after the other, on a road, with surroundings. Deterministic for a seed."""

from __future__ import annotations

import random

from .kinematics import CentreLine, Motion
from .phrases import CONDITIONS
from .plan import Plan
from .road_situations import clear_road
from .scene import Drive, Road
from .situations import SITUATIONS, RoadKind
from .surroundings import add_surroundings
from .traffic_situations import following, lead_leaves

SHORTEST_DRIVE_S = 24


def make_drive(seed: int, *, must_show: str | None = None, conditions: str | None = None) -> Drive:
    """A drive of 24 s or more.

    must_show: a key of SITUATIONS that occurs in it; conditions: one of CONDITIONS. Either is drawn where not given.
    """
    rng = random.Random(seed)
    conditions = conditions or rng.choice(CONDITIONS)
    wanted = must_show or rng.choice(list(SITUATIONS))
    road_kind = SITUATIONS[wanted].road
    if road_kind == "any":
        road_kind = rng.choice(("one-lane", "two-lane"))
    plan = Plan(rng, _draw_road(rng, road_kind), Motion(0.0, 0.0, rng.uniform(7.5, 12.5)))
    _fill(plan, wanted, road_kind)
    plan.dismiss_lead()
    drive = Drive(
        seed=seed,
        conditions=conditions,
        duration_s=plan.now_s,
        motion=plan.motion,
        road=plan.road,
        centre_line=CentreLine(plan.station_m, tuple(plan.bends), rng.uniform(0.0, 360.0)),
        stretches=tuple(plan.stretches),
        sways=tuple(plan.sways),
        standing=list(plan.standing),
        vehicles=plan.vehicles,
        people=plan.people,
        cyclists=plan.cyclists,
        turns=plan.turns,
        lane_arrows=plan.lane_arrows,
        lane_ends=plan.lane_ends,
        junctions=plan.junctions,
        crosswalks=plan.crosswalks,
        stop_lines=plan.stop_lines,
    )
    add_surroundings(drive, rng)
    return drive


def _draw_road(rng: random.Random, kind: RoadKind) -> Road:
    lanes_left, lanes_right = rng.choice(((1, 0), (0, 1))) if kind == "two-lane" else (0, 0)
    return Road(
        lane_width_m=rng.uniform(3.3, 3.8),
        lanes_left=lanes_left,
        lanes_right=lanes_right,
        oncoming_lanes=rng.choice((1, 1, 1, 2)),
        parking_right=rng.random() < 0.4,
        pavement_width_m=rng.uniform(1.5, 2.6),
    )


def _fill(plan: Plan, wanted: str, road_kind: RoadKind) -> None:
    """Situations in random order, until the drive is long enough and has shown the wanted one."""
    rng = plan.rng
    usable = [name for name, situation in SITUATIONS.items() if situation.road in ("any", road_kind)]
    if road_kind == "one-lane":
        # Nobody can leave that lane or come into it: there is a lead all the time, or never.
        led = SITUATIONS[wanted].needs_lead
        usable = [name for name in usable if SITUATIONS[name].needs_lead == led]
        if led:
            following(plan)
    still_wanted = True
    while plan.now_s < SHORTEST_DRIVE_S or still_wanted:
        name = wanted
        if not still_wanted or (rng.random() < 0.4 and plan.now_s < SHORTEST_DRIVE_S / 2):
            name = rng.choice(usable)
        still_wanted = still_wanted and name != wanted
        _lead_in(plan, name)
        SITUATIONS[name].build(plan)


def _lead_in(plan: Plan, name: str) -> None:
    """What has to come before a situation: another vehicle ahead or none, and some way after the last one."""
    if SITUATIONS[name].needs_lead:
        if plan.lead is None or name in ("slow-vehicle", "jam"):
            following(plan)
        return
    if plan.lead is not None:
        lead_leaves(plan)
    elif plan.stretches and name != "clear-road":
        # The next light must not be in sight while this one is the reason.
        clear_road(plan)
