"""The satellite receiver of a rendered car: BDD-X's readings, one a second, with a receiver's habits."""

from __future__ import annotations

import math
import random

import numpy as np

from .scene import Drive
from .telemetry import Reading

# Where rendered drives take place; nobody can look anything up there.
ORIGIN_LATITUDE_DEG = 37.0
ORIGIN_LONGITUDE_DEG = -122.0
_METRES_PER_DEGREE = 111_320.0
# Below this speed a receiver cannot tell where the car points, and repeats its last course.
COURSE_FREEZES_MPS = 0.8


def readings_of(drive: Drive) -> tuple[Reading, ...]:
    """A reading at every whole second from start to end, rounded as info files write them. Deterministic."""
    rng = random.Random(f"receiver {drive.seed}")
    readings: list[Reading] = []
    course_deg = math.degrees(drive.centre_line.heading_rad(0.0)) % 360.0
    for at_s in range(drive.duration_s + 1):
        station_m = drive.motion.station_m(at_s)
        true_mps = drive.motion.speed_mps(at_s)
        speed_mps = max(0.0, true_mps + rng.gauss(0.0, 0.04)) if true_mps > 0 else 0.0
        heading_deg = math.degrees(drive.centre_line.heading_rad(station_m)) + rng.gauss(0.0, 0.2)
        if speed_mps >= COURSE_FREEZES_MPS:
            course_deg = heading_deg % 360.0
        east, north = drive.centre_line.place(np.array([station_m]), np.array([0.0]))
        latitude = ORIGIN_LATITUDE_DEG + float(north[0]) / _METRES_PER_DEGREE
        longitude = ORIGIN_LONGITUDE_DEG + float(east[0]) / (
            _METRES_PER_DEGREE * math.cos(math.radians(ORIGIN_LATITUDE_DEG))
        )
        readings.append(
            Reading(float(at_s), round(speed_mps, 2), round(course_deg, 2), round(latitude, 7), round(longitude, 7))
        )
    return tuple(readings)
