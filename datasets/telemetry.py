"""From BDD-X's readings, one a second, to vehicle signals at any moment."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from .signals import ACCELERATION_MPS2, HEADING_DEG, LATITUDE_DEG, LONGITUDE_DEG, SPEED_KMH, YAW_RATE_DEG_S

# Readings farther apart than this are not joined by a line: the receiver was away.
LONGEST_GAP_S = 3.0
# True: a moment's signals come from the readings before and after it, so they know up to a second of the future, which
# stands in for the quick signals of a vehicle's own bus. False: from readings up to the moment alone, as a receiver
# has them. Training samples and replayed logs both follow this line; the bundled model was trained with False, on
# rendered receivers that write five readings a second (receiver.py).
JOINS_FOLLOWING_READING = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One row of an info file; None where the receiver had no valid value (-1 in the file).

    at_s: seconds from the video's start, which the first reading may precede; course_deg: compass, 0 to 360.
    """

    at_s: float
    speed_mps: float | None
    course_deg: float | None
    latitude_deg: float | None = None
    longitude_deg: float | None = None


def signals_at(readings: Sequence[Reading], at_s: float) -> dict[str, float]:
    """VSS names to values at a moment; a signal that the readings do not give is left out.

    readings: in time order, no two at the same time.
    """
    return joined_signals(readings, at_s) if JOINS_FOLLOWING_READING else known_signals(readings, at_s)


def joined_signals(readings: Sequence[Reading], at_s: float) -> dict[str, float]:
    """Signals on the line between the readings before and after a moment.

    Between two readings speed and course run straight, and acceleration (m/s²) and yaw rate (deg/s, positive to the
    right) are their slopes: what a vehicle's own bus would have told continuously.
    Before the first and after the last reading only the nearest one's speed, heading and place are known.
    """
    if not readings:
        return {}
    after = bisect.bisect_right(readings, at_s, key=lambda reading: reading.at_s)
    if after in (0, len(readings)):
        nearest = readings[0] if after == 0 else readings[-1]
        return _still_signals(nearest) if abs(nearest.at_s - at_s) <= LONGEST_GAP_S else {}
    earlier, later = readings[after - 1], readings[after]
    if later.at_s - earlier.at_s > LONGEST_GAP_S:
        return _still_signals(earlier) if at_s - earlier.at_s <= LONGEST_GAP_S else {}
    return _signals_along(earlier, later, at_s, base=earlier)


def known_signals(readings: Sequence[Reading], at_s: float) -> dict[str, float]:
    """Signals from the readings up to a moment: the line through the last two, carried on; never a look ahead."""
    known = bisect.bisect_right(readings, at_s, key=lambda reading: reading.at_s)
    if known == 0 or at_s - readings[known - 1].at_s > LONGEST_GAP_S:
        return {}
    last = readings[known - 1]
    if known == 1 or last.at_s - readings[known - 2].at_s > LONGEST_GAP_S:
        return _still_signals(last)
    return _signals_along(readings[known - 2], last, at_s, base=last)


def _signals_along(earlier: Reading, later: Reading, at_s: float, *, base: Reading) -> dict[str, float]:
    """Signals at a moment on the line through two readings; `base` tells what no line can be drawn through."""
    signals = _still_signals(base)
    span_s = later.at_s - earlier.at_s
    share = (at_s - earlier.at_s) / span_s
    if earlier.speed_mps is not None and later.speed_mps is not None:
        change_mps = later.speed_mps - earlier.speed_mps
        signals[SPEED_KMH] = 3.6 * max(0.0, earlier.speed_mps + share * change_mps)
        signals[ACCELERATION_MPS2] = change_mps / span_s
    if earlier.course_deg is not None and later.course_deg is not None:
        turned_deg = (later.course_deg - earlier.course_deg + 180.0) % 360.0 - 180.0
        signals[HEADING_DEG] = (earlier.course_deg + share * turned_deg) % 360.0
        signals[YAW_RATE_DEG_S] = turned_deg / span_s
    return signals


def _still_signals(reading: Reading) -> dict[str, float]:
    """What one reading alone tells."""
    signals: dict[str, float] = {}
    if reading.speed_mps is not None:
        signals[SPEED_KMH] = 3.6 * reading.speed_mps
    if reading.course_deg is not None:
        signals[HEADING_DEG] = reading.course_deg
    if reading.latitude_deg is not None and reading.longitude_deg is not None:
        signals[LATITUDE_DEG] = reading.latitude_deg
        signals[LONGITUDE_DEG] = reading.longitude_deg
    return signals
