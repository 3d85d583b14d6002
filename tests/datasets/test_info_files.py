"""Info files: what is written is read back, faults are counted, and nothing in one raises but a LogError."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.errors import LogError
from roadside.datasets import info_files
from roadside.datasets.info_files import read_info, write_readings
from roadside.datasets.telemetry import Reading, joined_signals, known_signals

START_MS = 1_000_000


def location(timestamp: object, **values: object) -> dict[str, Any]:
    usual = {"speed": 5.0, "course": 90.0, "latitude": 1.0, "longitude": 2.0, "accuracy": 5}
    return {"timestamp": timestamp, **usual, **values}


def write(folder: Path, locations: object, start: object = START_MS) -> Path:
    path = folder / "info.json"
    path.write_text(json.dumps({"startTime": start, "endTime": 1_040_000, "locations": locations}))
    return path


readings_lists = st.lists(
    st.tuples(
        st.none() | st.floats(0, 60, allow_subnormal=False).map(lambda value: round(value, 2)),
        st.none() | st.floats(0, 359.9, allow_subnormal=False).map(lambda value: round(value, 2)),
    ),
    min_size=1,
    max_size=30,
)


@given(readings_lists)
def test_readings_are_read_back(values):
    readings = tuple(
        Reading(float(second), speed, course, 37.5, -122.25) for second, (speed, course) in enumerate(values)
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "info.json"
        write_readings(path, "ride", 1_700_000_000_000, 30.0, readings)
        info = read_info(path)
    assert info.readings == readings
    assert info.faults.get(info_files.NO_SPEED, 0) == sum(speed is None for speed, _ in values)
    assert info.faults.get(info_files.NO_COURSE, 0) == sum(course is None for _, course in values)


def test_the_first_reading_may_precede_the_video(tmp_path):
    info = read_info(write(tmp_path, [location(999_600, course=-1)]))
    assert info.readings == (Reading(-0.4, 5.0, None, 1.0, 2.0),)
    assert info.faults == {info_files.BEFORE_START: 1, info_files.NO_COURSE: 1}


def test_faults_are_counted_and_the_rest_is_kept(tmp_path):
    locations = [
        location(1_001_000, speed=-1),
        location(1_003_000),
        location(1_002_000),
        location(1_002_000, speed=7.0),
        location(1_009_000, speed=300.0, course=float("nan"), latitude=91, longitude=True),
        location(10**30),
        location(None),
        location("1001000"),
        "nothing",
        {},
    ]
    info = read_info(write(tmp_path, locations))
    assert [(reading.at_s, reading.speed_mps, reading.course_deg) for reading in info.readings] == [
        (1.0, None, 90.0),
        (2.0, 7.0, 90.0),
        (3.0, 5.0, 90.0),
        (9.0, None, None),
    ]
    assert (info.readings[3].latitude_deg, info.readings[3].longitude_deg) == (None, None)
    assert info.faults == {
        info_files.NO_SPEED: 1,
        info_files.OUT_OF_ORDER: 1,
        info_files.SAME_TIME: 1,
        info_files.ABSURD: 4,
        info_files.UNUSABLE: 5,
        info_files.GAP: 1,
    }


def test_no_locations(tmp_path):
    assert read_info(write(tmp_path, [])).faults == {info_files.NO_LOCATIONS: 1}
    assert read_info(write(tmp_path, None)).faults == {info_files.NO_LOCATIONS: 1}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", "3", '{"startTime": "x"}', '{"startTime": 1, "locations": 3}', '{"startTime": null}'),
        *('{"startTime": NaN}', '{"startTime": 1e999}'),
        *(f'{{"startTime": {"9" * 5000}}}', f'{{"startTime": 1{"0" * 400}}}'),
        *("[" * 100_000, '{"startTime": 1, "locations": {"timestamp": 1}}', "\x00"),
    ],
    ids=lambda content: content[:30],
)  # fmt: skip
def test_a_broken_info_file_names_itself(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(LogError, match=r"broken\.json is not an info file.*repair or delete it"):
        read_info(path)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(info_files, "LARGEST_FILE_BYTES", 50)
    with pytest.raises(LogError, match="not an info file"):
        read_info(write(tmp_path, [location(1_001_000)]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
numbers = st.integers(-(10**6), 3 * 10**6) | st.floats() | st.just(-1)
locations_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("timestamp", "speed", "course", "latitude", "longitude"), numbers | json_values),
    )
    | json_values,
    max_size=6,
)


@given(locations_of_any_kind, numbers | json_values, st.floats(-100, 3000))
def test_whatever_stands_in_the_file_signals_make_sense(locations, start, at_s):
    with tempfile.TemporaryDirectory() as name:
        try:
            info = read_info(write(Path(name), locations, start))
        except LogError:
            return
    times = [reading.at_s for reading in info.readings]
    assert times == sorted(set(times))
    for signals in (joined_signals(info.readings, at_s), known_signals(info.readings, at_s)):
        assert all(math.isfinite(value) for value in signals.values())
        assert 0 <= signals.get("Vehicle.Speed", 0.0) <= 3.6 * 1000


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else(garbage):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "info.json"
        path.write_bytes(garbage)
        with pytest.raises(LogError):
            read_info(path)
