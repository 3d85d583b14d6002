"""Drives: possible motion, whole-second truth, and telemetry that shows the action but not its reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.datasets.drives import make_drive
from roadside.datasets.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2, Bend, CentreLine, Motion
from roadside.datasets.narrator import action_of
from roadside.datasets.phrases import COMBINATIONS, JUSTIFICATIONS, telemetry_text
from roadside.datasets.receiver import readings_of
from roadside.datasets.signals import YAW_RATE_DEG_S
from roadside.datasets.situations import SITUATIONS
from roadside.datasets.telemetry import signals_at
from roadside.datasets.vehicle_figures import SHAPES

DRIVES = [make_drive(seed) for seed in range(80)]


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


def test_vehicles_keep_their_distance():
    """Nobody drives through the own car, from before or behind."""
    met = 0
    for drive in DRIVES:
        for at_s in moments(drive.duration_s):
            own_m, beside_m = drive.motion.station_m(at_s), drive.lateral_at(at_s)
            for vehicle in drive.vehicles:
                if at_s < vehicle.from_s or abs(vehicle.lateral_at(at_s) - beside_m) > 1.6:
                    continue
                ahead_m = vehicle.station_m(at_s) - own_m
                length_m = SHAPES[vehicle.kind].length_m
                if -20.0 < ahead_m < 40.0:
                    met += 1
                assert not -length_m < ahead_m < 2.4, (drive.seed, at_s)
    assert met > 500


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
        for seed in range(16)
        for stretch in make_drive(seed, must_show=name).stretches
    }
    assert set(SITUATIONS[name].shows) <= pairs
    for seed in range(12):
        shown = {(stretch.action, stretch.justification) for stretch in make_drive(seed, must_show=name).stretches}
        assert shown & set(SITUATIONS[name].shows)


def test_telemetry_shows_the_action_along_the_road():
    """What happens across the road (lane changes, swerves) shows in the course too briefly for a single moment."""
    right = total = 0
    for drive in DRIVES:
        readings = readings_of(drive)
        for at_s in moments(drive.duration_s)[3::7]:
            stretch = drive.stretch_at(at_s)
            if stretch.action in ("slows", "stopped", "accelerates") and at_s - stretch.start_s > 0.4:
                right += action_of(signals_at(readings, at_s)) == stretch.action
                total += 1
    assert total > 500
    assert right / total > 0.95


def test_facts_fill_the_slots_of_their_words_and_no_others():
    for drive in DRIVES:
        for stretch in drive.stretches:
            words = "".join(JUSTIFICATIONS[stretch.justification])
            assert (stretch.vehicle is not None) == ("{vehicle}" in words), stretch
            assert (stretch.side is not None) == ("{side}" in words), stretch


def test_telemetry_follows_turns_and_lane_changes():
    for name, action in (("turn", "turns"), ("merge", "changes")):
        for seed in range(6):
            drive = make_drive(seed, must_show=name)
            stretch = next(stretch for stretch in drive.stretches if stretch.action.startswith(action))
            share = 0.5 if action == "turns" else 0.2
            at_s = stretch.start_s + share * (stretch.end_s - stretch.start_s)
            yaw_deg_s = signals_at(readings_of(drive), at_s)[YAW_RATE_DEG_S]
            assert yaw_deg_s > 2.0 if stretch.action.endswith("right") else yaw_deg_s < -2.0


def test_the_same_telemetry_occurs_under_every_reason_to_stop():
    lines: dict[str, set[str]] = {}
    for drive in DRIVES:
        readings = readings_of(drive)
        for stretch in (stretch for stretch in drive.stretches if stretch.action == "slows"):
            for second in range(stretch.start_s, stretch.end_s):
                line = telemetry_text(signals_at(readings, second + 0.5))
                lines.setdefault(stretch.justification, set()).add(line)
    braking = ("red-light", "stop-sign", "pedestrian", "cyclist", "lead-brakes")
    assert set(braking) <= set(lines)
    assert len(set.intersection(*(lines[reason] for reason in braking))) >= 5


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
