"""BDD-X's info files: what a phone in the car recorded beside the video, as JSON. Only its locations are read.

Phones lose their satellites, write -1 for what they do not know, and start before the video does. A file is read as
far as it makes sense, and what was found wrong with it is counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..bus.errors import LogError
from .telemetry import LONGEST_GAP_S, Reading

# Real files have less than 1 MB; a larger one is something else, and would only fill the memory.
LARGEST_FILE_BYTES = 32 * 1024 * 1024
# Faster than any car, and longer than any clip: a typing error or another unit.
_FASTEST_MPS = 100.0
_LONGEST_CLIP_S = 24 * 3600.0

NO_FILE = "info file missing"
BROKEN = "info file unreadable"
NO_LOCATIONS = "info file without locations"
UNUSABLE = "location without a usable time"
SAME_TIME = "location at the time of another"
OUT_OF_ORDER = "location out of order"
BEFORE_START = "location before the video starts"
NO_SPEED = "location without a valid speed (-1)"
NO_COURSE = "location without a valid course (-1)"
ABSURD = "absurd value in a location"
GAP = f"gap of more than {LONGEST_GAP_S:.0f} s between locations"


@dataclass(frozen=True, slots=True)
class InfoFile:
    """readings: in time order, seconds from the video's start. faults: how often each was found, by reason."""

    readings: tuple[Reading, ...]
    faults: Mapping[str, int]


def read_info(path: Path) -> InfoFile:
    """Read an info file. Raises LogError for a file that is not one."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ValueError(f"more than {LARGEST_FILE_BYTES // 1024**2} MB")
        info = json.loads(path.read_bytes())
        start_ms = float(info["startTime"])
        if not math.isfinite(start_ms):
            raise ValueError(f"startTime is {start_ms}")
        locations = info.get("locations") or []
        if not isinstance(locations, list):
            raise TypeError("locations is not a list")
    # RecursionError: JSON that is nested deeper than Python's stack.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise LogError(
            f"{path} is not an info file ({type(error).__name__}: {error}): repair or delete it; "
            "its clip is driven without telemetry"
        ) from None
    faults: Counter[str] = Counter()
    readings = [reading for location in locations if (reading := _reading(location, start_ms, faults))]
    if not readings:
        faults[NO_LOCATIONS] += 1
    faults[OUT_OF_ORDER] += sum(later.at_s < earlier.at_s for earlier, later in pairwise(readings))
    faults[BEFORE_START] += sum(reading.at_s < 0 for reading in readings)
    by_time = {reading.at_s: reading for reading in readings}
    faults[SAME_TIME] += len(readings) - len(by_time)
    ordered = tuple(by_time[at_s] for at_s in sorted(by_time))
    faults[GAP] += sum(later.at_s - earlier.at_s > LONGEST_GAP_S for earlier, later in pairwise(ordered))
    return InfoFile(ordered, {reason: count for reason, count in faults.items() if count})


def _reading(location: Any, start_ms: float, faults: Counter[str]) -> Reading | None:
    if not isinstance(location, dict):
        faults[UNUSABLE] += 1
        return None
    timestamp_ms = _number(location.get("timestamp"))
    if timestamp_ms is None or abs(timestamp_ms - start_ms) > _LONGEST_CLIP_S * 1000:
        faults[UNUSABLE] += 1
        return None
    speed_mps = _value(location, "speed", 0.0, _FASTEST_MPS, faults, NO_SPEED)
    course_deg = _value(location, "course", 0.0, 360.0, faults, NO_COURSE)
    latitude_deg = _value(location, "latitude", -90.0, 90.0, faults)
    longitude_deg = _value(location, "longitude", -180.0, 180.0, faults)
    return Reading((timestamp_ms - start_ms) / 1000.0, speed_mps, course_deg, latitude_deg, longitude_deg)


def _value(
    location: Mapping[str, Any], key: str, lowest: float, highest: float, faults: Counter[str], missing: str = ""
) -> float | None:
    """A value within its range; None, and a fault, for any other. missing: the fault of a value that is -1 or none."""
    value = location.get(key)
    if value is None or value == -1:
        faults[missing] += bool(missing)
        return None
    number = _number(value)
    if number is None or not lowest <= number <= highest:
        faults[ABSURD] += 1
        return None
    return number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def write_readings(path: Path, ride_id: str, start_ms: int, duration_s: float, readings: Sequence[Reading]) -> None:
    """Write an info file. start_ms: Unix milliseconds of the video's first frame."""
    locations = [
        {
            "course": -1.0 if reading.course_deg is None else reading.course_deg,
            "timestamp": start_ms + round(reading.at_s * 1000),
            "latitude": reading.latitude_deg,
            "longitude": reading.longitude_deg,
            "speed": -1.0 if reading.speed_mps is None else reading.speed_mps,
            "accuracy": 5.0,
        }
        for reading in readings
    ]
    info = {
        "rideID": ride_id,
        "startTime": start_ms,
        "endTime": start_ms + round(duration_s * 1000),
        "locations": locations,
    }
    path.write_text(json.dumps(info, indent=1) + "\n", encoding="ascii")
