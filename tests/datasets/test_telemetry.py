"""From readings at 1 Hz to signals at any moment."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.datasets import telemetry
from roadside.datasets.signals import (
    ACCELERATION_MPS2,
    HEADING_DEG,
    LATITUDE_DEG,
    LONGITUDE_DEG,
    SPEED_KMH,
    YAW_RATE_DEG_S,
)
from roadside.datasets.telemetry import Reading, joined_signals, known_signals, signals_at

READINGS = (Reading(-0.5, 10.0, 358.0, 37.0, -122.0), Reading(0.5, 8.0, 2.0, 37.1, -122.0), Reading(1.5, 8.0, None))


def test_between_two_readings_signals_run_straight():
    signals = joined_signals(READINGS, 0.0)
    assert signals[SPEED_KMH] == pytest.approx(9.0 * 3.6)
    assert signals[ACCELERATION_MPS2] == pytest.approx(-2.0)
    # Across north, clockwise: positive to the right.
    assert signals[YAW_RATE_DEG_S] == pytest.approx(4.0)
    assert signals[HEADING_DEG] == pytest.approx(0.0, abs=1e-9) or signals[HEADING_DEG] == pytest.approx(360.0)
    assert (signals[LATITUDE_DEG], signals[LONGITUDE_DEG]) == (37.0, -122.0)


def test_an_invalid_reading_leaves_its_signal_out():
    signals = joined_signals(READINGS, 1.0)
    assert signals[ACCELERATION_MPS2] == 0.0
    assert YAW_RATE_DEG_S not in signals
    # The last valid course is still known.
    assert signals[HEADING_DEG] == 2.0


def test_outside_the_readings_only_what_one_reading_tells():
    assert joined_signals(READINGS, 2.0) == {SPEED_KMH: pytest.approx(28.8)}
    assert ACCELERATION_MPS2 not in joined_signals(READINGS, -1.0)
    assert joined_signals(READINGS, 60.0) == {}
    assert joined_signals((), 1.0) == {}


def test_a_gap_is_not_bridged():
    readings = (Reading(0.0, 10.0, 0.0), Reading(20.0, 0.0, 90.0))
    assert joined_signals(readings, 10.0) == {}
    assert joined_signals(readings, 1.0) == {SPEED_KMH: 36.0, HEADING_DEG: 0.0}


def test_what_is_known_is_carried_on_and_no_later_reading_is_looked_at():
    signals = known_signals(READINGS, 1.0)
    assert signals[SPEED_KMH] == pytest.approx(7.0 * 3.6)
    assert signals[ACCELERATION_MPS2] == pytest.approx(-2.0)
    assert signals[YAW_RATE_DEG_S] == pytest.approx(4.0)
    assert signals[HEADING_DEG] == pytest.approx(4.0)
    assert (signals[LATITUDE_DEG], signals[LONGITUDE_DEG]) == (37.1, -122.0)
    # After one reading nothing is known of a change; before any, nothing at all.
    assert known_signals(READINGS, 0.0) == {
        SPEED_KMH: 36.0,
        HEADING_DEG: 358.0,
        LATITUDE_DEG: 37.0,
        LONGITUDE_DEG: -122.0,
    }
    assert known_signals(READINGS, -1.0) == known_signals((), 1.0) == known_signals(READINGS, 60.0) == {}
    # A car that brakes comes to a stop and does not go backwards.
    assert known_signals((Reading(0.0, 3.0, 0.0), Reading(1.0, 1.0, 0.0)), 2.0)[SPEED_KMH] == 0.0


values = st.none() | st.floats(0, 50)


@given(st.lists(st.tuples(st.floats(0.1, 5), values, values), min_size=1, max_size=8), st.floats(-1, 20))
def test_known_signals_do_not_change_when_later_readings_do(rows, at_s):
    times = [sum(step for step, _, _ in rows[: index + 1]) for index in range(len(rows))]
    assert all(later > earlier for earlier, later in pairwise(times))
    readings = [Reading(time_s, speed, course) for time_s, (_, speed, course) in zip(times, rows, strict=True)]
    past = [reading for reading in readings if reading.at_s <= at_s]
    assert known_signals(readings, at_s) == known_signals(past, at_s)


def test_one_switch_chooses_for_logs_and_training_alike(monkeypatch):
    assert signals_at(READINGS, 1.0) == known_signals(READINGS, 1.0) != joined_signals(READINGS, 1.0)
    monkeypatch.setattr(telemetry, "JOINS_FOLLOWING_READING", True)
    assert signals_at(READINGS, 1.0) == joined_signals(READINGS, 1.0)
