"""The satellite receiver of a rendered car: readings as BDD-X's, five a second, with a receiver's habits.

BDD-X's phones wrote one reading a second, and what is known of a moment from the readings before it lags by as much.
Today's receivers are quicker, so that a vehicle need not look ahead in its log to know what it does.
"""

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
READINGS_PER_S = 5
# Below this speed a receiver cannot tell where the car points, and repeats its last course.
COURSE_FREEZES_MPS = 0.8


def readings_of(drive: Drive) -> tuple[Reading, ...]:
    """READINGS_PER_S from start to end, rounded as info files write them. Deterministic."""
    rng = random.Random(f"receiver {drive.seed}")
    readings: list[Reading] = []
    course_deg = math.degrees(drive.centre_line.heading_rad(0.0)) % 360.0
    for index in range(READINGS_PER_S * drive.duration_s + 1):
        at_s = index / READINGS_PER_S
        station_m = drive.motion.station_m(at_s)
        true_mps = drive.motion.speed_mps(at_s)
        speed_mps = max(0.0, true_mps + rng.gauss(0.0, 0.02)) if true_mps > 0 else 0.0
        heading_deg = math.degrees(drive.heading_rad(at_s)) + rng.gauss(0.0, 0.05)
        if speed_mps >= COURSE_FREEZES_MPS:
            course_deg = heading_deg % 360.0
        east, north = drive.centre_line.place(np.array([station_m]), np.array([drive.lateral_at(at_s)]))
        latitude = ORIGIN_LATITUDE_DEG + float(north[0]) / _METRES_PER_DEGREE
        longitude = ORIGIN_LONGITUDE_DEG + float(east[0]) / (
            _METRES_PER_DEGREE * math.cos(math.radians(ORIGIN_LATITUDE_DEG))
        )
        readings.append(
            Reading(at_s, round(speed_mps, 2), round(course_deg, 2), round(latitude, 7), round(longitude, 7))
        )
    return tuple(readings)
