"""What `roadside log info` counts and names, on logs with every kind of damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from roadside.datasets.bddx import Segment, write_annotations
from roadside.datasets.drivelog import DriveLog, bundled_log_path
from roadside.datasets.info_files import write_readings
from roadside.datasets.inventory import take_inventory
from roadside.datasets.telemetry import Reading

REAL_LOG = Path(__file__).parents[3] / "shared" / "data" / "bddx"


@pytest.fixture
def damaged(film, tmp_path) -> Path:
    """Five rows: whole; without video; video broken and info broken; cut short with -1 speeds; whole without info."""
    names = ("whole", "gone", "broken", "cut", "bare")
    (tmp_path / "videos").mkdir()
    (tmp_path / "info").mkdir()
    readings = [Reading(float(second), 5.0, 90.0, 1.0, 2.0) for second in range(4)]
    for name in names:
        film.write(tmp_path / "videos" / f"{name}.mp4", 60, options={"movflags": "faststart"})
        write_readings(tmp_path / "info" / f"{name}.json", name, 1_000_000, 6.0, readings)
    (tmp_path / "videos" / "gone.mp4").unlink()
    (tmp_path / "info" / "gone.json").unlink()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"?")
    (tmp_path / "info" / "broken.json").write_text("{")
    data = (tmp_path / "videos" / "cut.mp4").read_bytes()
    (tmp_path / "videos" / "cut.mp4").write_bytes(data[: len(data) // 2])
    lost = [Reading(0.0, None, 90.0, 1.0, 2.0), Reading(9.0, None, 90.0, 1.0, 2.0)]
    write_readings(tmp_path / "info" / "cut.json", "cut", 1_000_000, 6.0, lost)
    (tmp_path / "info" / "bare.json").unlink()
    film.write(tmp_path / "videos" / "foreign.mp4", 2)
    segments = [Segment(0.0, 6.0, "The car stops.", "The light is red.")]
    write_annotations(tmp_path, [(f"{name}.mp4", segments) for name in names], split="val")
    return tmp_path


def test_every_kind_of_damage_is_counted_and_named(damaged):
    told: list[tuple[int, int]] = []
    inventory = take_inventory(
        DriveLog.open(damaged), open_videos=True, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(done, 5) for done in range(6)]
    assert inventory["segments"] == {"complete": 5, "train": 0, "val": 5, "test": 0}
    assert inventory["clips"] == 4
    assert inventory["dropped"] == inventory["kept"] == {}
    assert inventory["info_faults"] == {
        "info file missing": 2,
        "info file unreadable": 1,
        "location without a valid speed (-1)": 2,
        "gap of more than 3 s between locations": 1,
    }
    assert inventory["video_faults"] == {
        "video missing": 1,
        "video unreadable": 1,
        "video cut short": 1,
        "video without a row": 1,
    }
    examples = inventory["examples"]
    assert examples["info file missing"] == ["gone", "bare"]
    assert examples["video cut short"] == examples["location without a valid speed (-1)"] == ["cut"]
    assert examples["video without a row"] == ["foreign"]
    assert json.loads(json.dumps(inventory)) == inventory


def test_videos_are_opened_only_where_that_is_asked(damaged):
    faults = take_inventory(DriveLog.open(damaged))["video_faults"]
    assert faults == {"video missing": 1, "video without a row": 1}


def test_the_bundled_log_is_whole():
    inventory = take_inventory(DriveLog.open(bundled_log_path()), open_videos=True)
    assert (inventory["rows"], inventory["clips"]) == (10, 10)
    assert inventory["segments"]["complete"] == inventory["segments"]["test"] > 40
    for key in ("dropped", "kept", "info_faults", "video_faults", "examples"):
        assert inventory[key] == {}, key


def test_the_real_annotations():
    if not REAL_LOG.is_dir():
        pytest.skip("BDD-X's annotations are not beside the repository (../shared/data/bddx)")
    inventory = take_inventory(DriveLog.open(REAL_LOG))
    assert (inventory["rows"], inventory["blank_rows"], inventory["clips"]) == (12_997, 5_998, 0)
    assert inventory["segments"] == {"complete": 26_521, "train": 21_135, "val": 2_514, "test": 2_856}
    assert inventory["video_faults"]["video missing"] == inventory["info_faults"]["info file missing"] > 5_000
    assert inventory["examples"]["end beyond any video"][0] == "row 328 slot 1"
