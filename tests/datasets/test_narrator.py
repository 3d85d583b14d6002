"""The narrator says what telemetry shows, never why, and admits what it does not know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.datasets.drivelog import DriveLog, bundled_log_path
from roadside.datasets.narrator import KNOWS_NOTHING, narrate
from roadside.datasets.phrases import parse, parse_action
from roadside.datasets.signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S


@pytest.mark.parametrize(
    ("speed_kmh", "acceleration", "yaw_rate", "said"),
    [
        (0.0, 0.0, 0.0, "the car is stopped ."),
        (40.0, -2.0, 0.0, "the car slows down ."),
        (3.0, 1.5, 0.0, "the car accelerates ."),
        (40.0, 0.1, 0.5, "the car keeps its speed ."),
        (30.0, 0.0, 6.0, "the car steers right ."),
        (30.0, 0.0, -6.0, "the car steers left ."),
    ],
)
def test_each_action(speed_kmh, acceleration, yaw_rate, said):
    assert narrate({SPEED_KMH: speed_kmh, ACCELERATION_MPS2: acceleration, YAW_RATE_DEG_S: yaw_rate}) == said


def test_it_admits_what_it_does_not_know():
    assert narrate({}) == KNOWS_NOTHING
    assert narrate({YAW_RATE_DEG_S: 3.0}) == KNOWS_NOTHING
    assert narrate({SPEED_KMH: 50.0}) == "the car is moving ."
    assert parse(KNOWS_NOTHING).action is None


@given(
    st.dictionaries(st.sampled_from([SPEED_KMH, ACCELERATION_MPS2, YAW_RATE_DEG_S]), st.floats(-200, 200)),
)
def test_it_never_gives_a_reason(telemetry):
    assert parse(narrate(telemetry)).justification is None


def test_it_is_mostly_right_about_rendered_drives():
    """Along the road; a lane change it cannot tell from a swerve, nor a turn from a bend."""
    right = total = 0
    for clip in DriveLog.open(bundled_log_path()).clips:
        for segment in clip.segments:
            if parse_action(segment.action) not in ("stopped", "slows", "accelerates", "keeps"):
                continue
            at_s = (segment.start_s + segment.end_s) / 2
            right += parse(narrate(clip.telemetry(at_s))).action == parse_action(segment.action)
            total += 1
    assert right / total > 0.9
