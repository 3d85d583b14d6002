"""What stands and moves beside the story of a drive: oncoming and parked vehicles, bystanders, trees, houses.

None of it is a reason for anything the car does; it is there so that a reason has to be told from decoration.
"""

from __future__ import annotations

import random

from .kinematics import Motion
from .phrases import VEHICLES
from .scene import Building, Colour, Drive, Person, Tree, Vehicle

VEHICLE_COLOURS: tuple[Colour, ...] = (
    (208, 210, 214),
    (44, 46, 52),
    (140, 34, 38),
    (42, 74, 140),
    (124, 128, 134),
    (236, 236, 230),
    (34, 96, 72),
    (176, 148, 74),
)
COAT_COLOURS: tuple[Colour, ...] = (
    (196, 46, 50),
    (44, 88, 176),
    (226, 190, 60),
    (52, 54, 62),
    (232, 232, 228),
    (70, 140, 84),
    (150, 82, 160),
)
TROUSER_COLOURS: tuple[Colour, ...] = ((36, 42, 66), (50, 46, 44), (96, 88, 76))
WALL_COLOURS: tuple[Colour, ...] = ((148, 128, 112), (166, 150, 128), (120, 122, 128), (142, 98, 84), (178, 170, 158))
LEAF_COLOURS: tuple[Colour, ...] = ((58, 96, 50), (74, 112, 56), (46, 82, 54))

# Nothing that could hide a sign, a person or a light stands this near before or after one, in metres.
KEPT_CLEAR_BEFORE_M = 32.0
KEPT_CLEAR_AFTER_M = 14.0

# What holds up the traffic of every lane, and what needs room on the other side of the road.
STOPS_ALL = frozenset({"red-light", "stop-sign", "pedestrian", "cyclist", "turn-lane", "road-closed"})
TAKES_THE_MIDDLE = frozenset({"oncoming", "parked", "cyclist-ahead"})


def vehicle_colour(rng: random.Random) -> Colour:
    return rng.choice(VEHICLE_COLOURS)


def add_surroundings(drive: Drive, rng: random.Random) -> None:
    """Dress a drive whose story is complete."""
    length_m = drive.motion.station_m(drive.duration_s) + 110.0
    _plant_trees(drive, rng, length_m)
    _build_houses(drive, rng, length_m)
    _park_vehicles(drive, rng, length_m)
    _place_bystanders(drive, rng, length_m)
    _send_oncoming(drive, rng)
    _send_overtaking(drive, rng)


def _story_stations(drive: Drive) -> list[float]:
    stations = [junction.start_m for junction in drive.junctions]
    stations += [turn.start_m for turn in drive.turns]
    stations += [person.station_m for person in drive.people if person.walk_mps]
    stations += [vehicle.station_m(0.0) for vehicle in drive.vehicles if vehicle.hazard_lights]
    return stations


def _in_junction(drive: Drive, station_m: float, margin_m: float) -> bool:
    return any(start_m - margin_m < station_m < end_m + margin_m for start_m, end_m in _junction_stretches(drive))


def _junction_stretches(drive: Drive) -> list[tuple[float, float]]:
    """From where to where nothing may stand beside the road; a turn also needs its inner corner free."""
    stretches = [(junction.start_m, junction.end_m) for junction in drive.junctions]
    return stretches + [(turn.start_m - 3.0, turn.end_m + 12.0) for turn in drive.turns]


def _plant_trees(drive: Drive, rng: random.Random, length_m: float) -> None:
    road, density = drive.road, rng.choice((0.0, 14.0, 22.0, 40.0))
    if not density:
        return
    for side in (-1, 1):
        station_m = rng.uniform(0.0, density)
        while station_m < length_m:
            edge_m = road.right_edge_m if side > 0 else -road.left_edge_m
            lateral_m = side * (edge_m + road.pavement_width_m + rng.uniform(1.5, 4.0))
            if not _in_junction(drive, station_m, 5.0):
                drive.standing.append(Tree(station_m, lateral_m, rng.uniform(4.5, 8.0), rng.choice(LEAF_COLOURS)))
            station_m += density * rng.uniform(0.6, 1.5)


def _build_houses(drive: Drive, rng: random.Random, length_m: float) -> None:
    road, share = drive.road, rng.choice((0.0, 0.3, 0.8))
    for side in (-1, 1):
        station_m = rng.uniform(0.0, 30.0)
        while station_m < length_m:
            front_m = rng.uniform(10.0, 20.0)
            edge_m = road.right_edge_m if side > 0 else -road.left_edge_m
            lateral_m = side * (edge_m + road.pavement_width_m + rng.uniform(6.5, 11.0))
            crosses = any(
                start_m - 4.0 < station_m + front_m and station_m < end_m + 4.0
                for start_m, end_m in _junction_stretches(drive)
            )
            if rng.random() < share and not crosses:
                height_m = rng.uniform(4.0, 11.0)
                drive.standing.append(Building(station_m, lateral_m, front_m, height_m, rng.choice(WALL_COLOURS)))
            station_m += front_m + rng.uniform(2.0, 14.0)


def _park_vehicles(drive: Drive, rng: random.Random, length_m: float) -> None:
    if not drive.road.parking_right:
        return
    lateral_m = drive.road.lanes_end_m + 1.2
    station_m = rng.uniform(5.0, 30.0)
    while station_m < length_m:
        near_story = any(
            station - KEPT_CLEAR_BEFORE_M < station_m < station + KEPT_CLEAR_AFTER_M
            for station in _story_stations(drive)
        )
        if not near_story and not _in_junction(drive, station_m + 3.0, 6.0):
            kind = rng.choice(("car", "car", "car", "van", "truck"))
            motion = Motion(0.0, station_m, 0.0)
            drive.vehicles.append(Vehicle(kind, "parked", vehicle_colour(rng), motion, lateral_m))
        station_m += rng.choice((8.0, 9.0, 18.0, 40.0)) + rng.uniform(0.0, 4.0)


def _place_bystanders(drive: Drive, rng: random.Random, length_m: float) -> None:
    road = drive.road
    # Nobody stands where somebody else begins to cross: of the two only one would be a reason.
    crossings = [person.station_m for person in drive.people if person.walk_mps]
    for _ in range(rng.randint(0, 14)):
        side = rng.choice((-1, 1))
        edge_m = road.right_edge_m if side > 0 else -road.left_edge_m
        station_m = rng.uniform(10.0, length_m)
        if _in_junction(drive, station_m, 2.0) or any(abs(station_m - each) < 9.0 for each in crossings):
            continue
        lateral_m = side * (edge_m + rng.uniform(0.8, max(0.9, road.pavement_width_m - 0.3)))
        drive.people.append(Person(station_m, lateral_m, rng.choice(COAT_COLOURS), rng.choice(TROUSER_COLOURS)))


def _send_oncoming(drive: Drive, rng: random.Random) -> None:
    """Vehicles that meet the own car while nothing stops the traffic, and nobody needs the middle of the road."""
    at_s = rng.uniform(0.0, 6.0)
    while at_s < drive.duration_s + 4.0:
        if not _reasons_between(drive, at_s - 4.0, at_s + 2.0) & (STOPS_ALL | TAKES_THE_MIDDLE):
            lane = rng.randrange(drive.road.oncoming_lanes)
            lateral_m = drive.road.centre_m - (0.5 + lane) * drive.road.lane_width_m
            speed_mps = rng.uniform(7.0, 14.0)
            met_m = drive.motion.station_m(at_s)
            motion = Motion(0.0, -(met_m + speed_mps * at_s), speed_mps)
            drive.vehicles.append(
                Vehicle(rng.choice(VEHICLES), "oncoming", vehicle_colour(rng), motion, lateral_m, backwards=True)
            )
        at_s += rng.uniform(3.0, 12.0)


def _send_overtaking(drive: Drive, rng: random.Random) -> None:
    """Vehicles that pass the own car in the lane beside, where it keeps to its own and the traffic flows."""
    road = drive.road
    if drive.sways or road.lanes_left + road.lanes_right == 0:
        return
    lateral_m = road.lane_width_m * (-1 if road.lanes_left else 1)
    at_s = rng.uniform(0.0, 10.0)
    while at_s < drive.duration_s:
        reasons = _reasons_between(drive, at_s - 2.0, at_s + 8.0)
        if not reasons & STOPS_ALL and not reasons & {"jam", "cut-in", "lead-moves"}:
            passed_m = drive.motion.station_m(at_s) - 3.0
            speed_mps = drive.motion.speed_mps(at_s) + rng.uniform(1.5, 4.0)
            motion = Motion(0.0, passed_m - speed_mps * at_s, speed_mps)
            drive.vehicles.append(Vehicle(rng.choice(VEHICLES), "traffic", vehicle_colour(rng), motion, lateral_m))
            at_s += 6.0
        at_s += rng.uniform(2.0, 8.0)


def _reasons_between(drive: Drive, start_s: float, end_s: float) -> set[str]:
    """The justifications in force in a part of a drive."""
    return {stretch.justification for stretch in drive.stretches if stretch.start_s < end_s and stretch.end_s > start_s}
