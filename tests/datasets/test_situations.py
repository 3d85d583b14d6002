"""Drives: possible motion, whole-second truth, and telemetry that shows the action but not its reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.datasets.drives import make_drive
from roadside.datasets.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2, Bend, CentreLine, Motion
from roadside.datasets.narrator import action_of
from roadside.datasets.phrases import COMBINATIONS, telemetry_text
from roadside.datasets.receiver import readings_of
from roadside.datasets.situations import SITUATIONS
from roadside.datasets.telemetry import signals_at

DRIVES = [make_drive(seed) for seed in range(60)]


def moments(duration_s: float) -> list[float]:
    return [tenth / 10 for tenth in range(int(duration_s * 10))]


def test_a_seed_makes_one_drive():
    assert make_drive(7).stretches == make_drive(7).stretches
    assert readings_of(make_drive(7)) == readings_of(make_drive(7))
    assert make_drive(7).stretches != make_drive(8).stretches


def test_the_own_car_moves_as_a_car_can():
    for drive in DRIVES:
        for at_s in moments(drive.duration_s):
            assert drive.motion.speed_mps(at_s) >= 0
            assert -MAX_BRAKING_MPS2 <= drive.motion.acceleration_mps2(at_s) <= MAX_ACCELERATION_MPS2


def test_the_lead_stays_ahead_and_is_never_run_into():
    followed = 0
    for drive in DRIVES:
        for vehicle in (vehicle for vehicle in drive.vehicles if vehicle.role == "lead"):
            for at_s in moments(drive.duration_s):
                if abs(vehicle.lateral_at(at_s)) < 1.5:
                    followed += 1
                    assert vehicle.station_m(at_s) - drive.motion.station_m(at_s) > 4.0
    assert followed > 500


def test_truth_covers_every_moment_in_whole_seconds():
    for drive in DRIVES:
        ends = [0, *(stretch.end_s for stretch in drive.stretches)]
        assert [stretch.start_s for stretch in drive.stretches] == ends[:-1]
        assert ends[-1] == drive.duration_s >= 24
        assert all((stretch.action, stretch.justification) in COMBINATIONS for stretch in drive.stretches)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_wanted_situation_is_shown(name):
    pairs = {
        (stretch.action, stretch.justification)
        for seed in range(12)
        for stretch in make_drive(seed, must_show=name).stretches
    }
    assert set(SITUATIONS[name].shows) <= pairs
    for seed in range(12):
        shown = {(stretch.action, stretch.justification) for stretch in make_drive(seed, must_show=name).stretches}
        assert shown & set(SITUATIONS[name].shows)


def test_telemetry_shows_the_action():
    right = total = 0
    for drive in DRIVES[:30]:
        readings = readings_of(drive)
        for at_s in moments(drive.duration_s)[3::7]:
            right += action_of(signals_at(readings, at_s)) == drive.stretch_at(at_s).action
            total += 1
    assert right / total > 0.95


def test_the_same_telemetry_occurs_under_every_reason_to_stop():
    lines: dict[str, set[str]] = {}
    for drive in DRIVES:
        readings = readings_of(drive)
        for stretch in (stretch for stretch in drive.stretches if stretch.action == "slows"):
            for second in range(stretch.start_s, stretch.end_s):
                line = telemetry_text(signals_at(readings, second + 0.5))
                lines.setdefault(stretch.justification, set()).add(line)
    assert set(lines) == {"red-light", "stop-sign", "pedestrian", "lead-brakes"}
    assert len(set.intersection(*lines.values())) >= 5


@given(
    st.floats(0, 20),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0.5, 8)), min_size=1, max_size=6),
)
def test_a_station_is_the_integral_of_speed(first_mps, pieces):
    motion = Motion(0.0, 5.0, first_mps)
    for to_mps, duration_s in pieces:
        motion.change_speed(to_mps, duration_s)
        assert motion.speed_mps(motion.end_s) == pytest.approx(to_mps, abs=1e-6)
    step_s, driven_m, at_s = 0.01, 5.0, 0.0
    while at_s < motion.end_s + 1.0:
        driven_m += step_s * motion.speed_mps(at_s + step_s / 2)
        at_s += step_s
    assert driven_m == pytest.approx(motion.station_m(at_s), abs=0.5)


def test_a_motion_refuses_what_is_no_motion():
    with pytest.raises(ValueError, match="cannot reach"):
        Motion(0.0, 0.0, 3.0).change_speed(-1.0, 2.0)
    with pytest.raises(ValueError, match="cannot reach"):
        Motion(0.0, 0.0, 3.0).change_speed(1.0, 0.0)


def test_a_right_bend_turns_the_compass_clockwise():
    quarter = CentreLine(200.0, (Bend(20.0, 120.0, 1.5707963 / 100),), heading_deg=0.0)
    assert quarter.heading_rad(0.0) == pytest.approx(0.0)
    assert quarter.heading_rad(180.0) == pytest.approx(1.5707963, abs=0.02)
    east, north = quarter.place(np.array([0.0, 180.0]), np.array([0.0, 0.0]))
    assert east[1] - east[0] > 50
    assert north[1] - north[0] > 50
    # A lateral offset to the right lies east of a road that runs north.
    beside, _ = quarter.place(np.array([0.0]), np.array([3.0]))
    assert beside[0] - east[0] == pytest.approx(3.0)
