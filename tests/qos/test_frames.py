"""Kept frames: found by vehicle and time, gone when they are due, and never left where nothing would delete them."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.configuration import load_configuration
from roadside.bus.errors import ConfigurationError, RunError
from roadside.qos.frames import FrameStore, Origin, delete_due_of_all_runs
from roadside.qos.recording import RecorderConfiguration
from roadside.qos.retention import FrameRetention, parse_retention

JPEG = b"\xff\xd8\xff\xe0" + bytes(96)
NOW_S = 1_700_000_000.0


def frame(age_s: float, *, vehicle: str = "vehicle-1", task_id: str | None = None) -> Origin:
    return Origin(vehicle, NOW_S - age_s, task_id=task_id, clip="clip-1", moment_s=3.0)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*g"))


def indexed(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        return sorted(file for (file,) in connection.execute("SELECT file FROM frames"))


def test_files_stand_by_vehicle_and_time(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames", FrameRetention("sampled")) as store:
        assert store.add(JPEG, frame(10.0))
        assert store.add(b"\x89PNG" + bytes(8), frame(0.0, vehicle="vehicle-2", task_id="task-1"))
        assert store.remaining() == (2, len(JPEG) + 12)
        assert store.has_task("vehicle-2", "task-1")
        assert not store.has_task("vehicle-1", "task-1")
    first, second = files(tmp_path / "frames")
    assert first.startswith("vehicle-1/20231114-221310")
    assert second.startswith("vehicle-2/20231114-221320")
    assert (first[-4:], second[-4:]) == (".jpg", ".png")
    assert indexed(tmp_path / "frames") == [first, second]
    assert (tmp_path / "frames" / first).read_bytes() == JPEG
    assert stat.S_IMODE((tmp_path / "frames").stat().st_mode) == 0o700


def test_what_is_no_image_is_not_kept(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames", FrameRetention("sampled")) as store:
        assert not store.add(b"#!/bin/sh\n", frame(0.0))
        assert store.remaining() == (0, 0)
    assert not files(tmp_path / "frames")


def test_old_frames_are_deleted_and_younger_ones_are_not(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames", FrameRetention("sampled", max_age_s=60.0)) as store:
        for age_s in (61.0, 3600.0, 59.0):
            store.add(JPEG, frame(age_s))
        store.delete_due(NOW_S)
        assert (store.expired, store.gave_way, store.remaining()[0]) == (2, 0, 1)
        store.delete_due(NOW_S + 2.0)
        assert store.remaining() == (0, 0)
    assert not files(tmp_path / "frames")


@given(
    ages_s=st.lists(st.floats(0, 200, allow_nan=False), max_size=12),
    max_age_s=st.floats(1, 200),
    max_frames=st.integers(0, 8),
)
def test_what_remains_is_young_and_fits_and_the_oldest_went(
    tmp_path_factory: pytest.TempPathFactory, ages_s: list[float], max_age_s: float, max_frames: int
) -> None:
    folder = tmp_path_factory.mktemp("run") / "frames"
    retention = FrameRetention("sampled", max_age_s=max_age_s, max_bytes=max_frames * len(JPEG))
    with FrameStore(folder, retention) as store:
        for age_s in ages_s:
            store.add(JPEG, frame(age_s))
        store.delete_due(NOW_S)
        # The store's clock readings are what its index holds, rounded as floats are.
        young = [age_s for age_s in ages_s if NOW_S - age_s >= NOW_S - max_age_s]
        assert store.expired == len(ages_s) - len(young)
        assert store.gave_way == max(0, len(young) - max_frames)
        with sqlite3.connect(folder / "index.sqlite") as connection:
            kept = sorted(at_s for (at_s,) in connection.execute("SELECT received_at_s FROM frames"))
    assert kept == sorted(NOW_S - age_s for age_s in young)[-max_frames or len(young) :]
    assert files(folder) == indexed(folder)


def test_the_index_remembers_its_rule_for_whoever_comes_later(tmp_path: Path) -> None:
    for name, max_age_s in (("short", 60.0), ("long", 6000.0)):
        (tmp_path / name).mkdir()
        with FrameStore(tmp_path / name / "frames", FrameRetention("tasks", max_age_s=max_age_s)) as store:
            store.add(JPEG, frame(600.0))
    assert delete_due_of_all_runs(tmp_path, NOW_S) == 1
    assert not files(tmp_path / "short")
    assert len(files(tmp_path / "long")) == 1


def test_a_neighbour_that_cannot_be_used_keeps_nobody_from_cleaning(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with FrameStore(tmp_path / name / "frames", FrameRetention("tasks", max_age_s=60.0)) as store:
            store.add(JPEG, frame(600.0))
    for file in (tmp_path / "a" / "frames").glob("index.sqlite*"):
        file.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    assert delete_due_of_all_runs(tmp_path, NOW_S) == 1
    assert not files(tmp_path / "b")


def test_a_file_that_is_gone_already_does_not_stand_in_the_way(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames", FrameRetention("sampled", max_age_s=60.0)) as store:
        store.add(JPEG, frame(600.0))
        (tmp_path / "frames" / files(tmp_path / "frames")[0]).unlink()
        store.delete_due(NOW_S)
        assert store.remaining() == (0, 0)


def test_a_frame_that_cannot_be_written_leaves_no_row(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames", FrameRetention("sampled")) as store:
        (tmp_path / "frames" / "vehicle-1").write_text("in the way of the vehicle's folder")
        with pytest.raises(RunError, match="frame"):
            store.add(JPEG, frame(0.0))
        (tmp_path / "frames" / "vehicle-1").unlink()
        assert store.remaining() == (0, 0)


def test_amounts_in_words() -> None:
    assert parse_retention("tasks", "90s", "500kB") == FrameRetention("tasks", 90.0, 500_000)
    assert parse_retention("sampled", "1.5h", "2 GB") == FrameRetention("sampled", 5400.0, 2 * 10**9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("all", "24h", "1GB"), "none, sampled, tasks"),
        (("tasks", "24", "1GB"), "24h or 7d"),
        (("tasks", "0h", "1GB"), "24h or 7d"),
        (("tasks", "-1h", "1GB"), "24h or 7d"),
        (("tasks", "24h", "much"), "200MB"),
    ],
)
def test_amounts_that_are_none(words: tuple[str, str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_retention(*words)


def test_a_recorder_refuses_a_rule_before_it_begins() -> None:
    with pytest.raises(ConfigurationError, match="7d"):
        load_configuration(RecorderConfiguration, {"frame_retention": "for ever"}, {})
    configuration = load_configuration(RecorderConfiguration, {"keep_frames": "tasks"}, {"frame_limit": "2MB"})
    assert configuration.retention == FrameRetention("tasks", 24 * 3600.0, 2_000_000)
