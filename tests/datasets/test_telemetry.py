"""From readings at 1 Hz to signals at any moment."""

from __future__ import annotations

import pytest
from roadside.datasets.signals import (
    ACCELERATION_MPS2,
    HEADING_DEG,
    LATITUDE_DEG,
    LONGITUDE_DEG,
    SPEED_KMH,
    YAW_RATE_DEG_S,
)
from roadside.datasets.telemetry import Reading, signals_at

READINGS = (Reading(-0.5, 10.0, 358.0, 37.0, -122.0), Reading(0.5, 8.0, 2.0, 37.1, -122.0), Reading(1.5, 8.0, None))


def test_between_two_readings_signals_run_straight():
    signals = signals_at(READINGS, 0.0)
    assert signals[SPEED_KMH] == pytest.approx(9.0 * 3.6)
    assert signals[ACCELERATION_MPS2] == pytest.approx(-2.0)
    # Across north, clockwise: positive to the right.
    assert signals[YAW_RATE_DEG_S] == pytest.approx(4.0)
    assert signals[HEADING_DEG] == pytest.approx(0.0, abs=1e-9) or signals[HEADING_DEG] == pytest.approx(360.0)
    assert (signals[LATITUDE_DEG], signals[LONGITUDE_DEG]) == (37.0, -122.0)


def test_an_invalid_reading_leaves_its_signal_out():
    signals = signals_at(READINGS, 1.0)
    assert signals[ACCELERATION_MPS2] == 0.0
    assert YAW_RATE_DEG_S not in signals
    # The last valid course is still known.
    assert signals[HEADING_DEG] == 2.0


def test_outside_the_readings_only_what_one_reading_tells():
    assert signals_at(READINGS, 2.0) == {SPEED_KMH: pytest.approx(28.8)}
    assert ACCELERATION_MPS2 not in signals_at(READINGS, -1.0)
    assert signals_at(READINGS, 60.0) == {}
    assert signals_at((), 1.0) == {}


def test_a_gap_is_not_bridged():
    readings = (Reading(0.0, 10.0, 0.0), Reading(20.0, 0.0, 90.0))
    assert signals_at(readings, 10.0) == {}
    assert signals_at(readings, 1.0) == {SPEED_KMH: 36.0, HEADING_DEG: 0.0}
