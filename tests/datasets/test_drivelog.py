"""A log on disk: made, opened, replayed; what is broken is named with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from roadside.bus.errors import LogError
from roadside.datasets.contact_sheet import contact_sheet
from roadside.datasets.drivelog import Clip, DriveLog, bundled_log_path
from roadside.datasets.making import make_log, plan_log, segments_of
from roadside.datasets.phrases import COMBINATIONS, CONDITIONS, parse_action, parse_justification
from roadside.datasets.receiver import readings_of
from roadside.datasets.renderer import Renderer
from roadside.datasets.samples import BUNDLED_LOG_SEED
from roadside.datasets.signals import ACCELERATION_MPS2, SPEED_KMH

SEED = 77


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "log"
    told: list[tuple[int, int]] = []
    make_log(folder, seed=SEED, count=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def first_clip(folder: Path) -> Clip:
    return DriveLog.open(folder).clips[0]


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).mean())


def test_a_log_tells_what_was_rendered(made):
    log = DriveLog.open(made)
    plan = plan_log(SEED, 2)
    assert [clip.name for clip in log.clips] == [f"{index + 1}_{name}" for index, (name, _) in enumerate(plan)]
    for clip, (_, drive) in zip(log.clips, plan, strict=True):
        assert clip.duration_s == pytest.approx(drive.duration_s, abs=0.11)
        assert clip.segments == segments_of(drive)
        assert clip.readings == readings_of(drive)
        for at_s in (0.0, 3.3, drive.duration_s - 0.2):
            truth, stretch = clip.truth(at_s), drive.stretch_at(at_s)
            assert truth is not None
            assert parse_action(truth.action) == stretch.action
            assert parse_justification(truth.justification)[0] == stretch.justification
        assert clip.truth(drive.duration_s + 1.0) is None
        clip.close()


def test_frames_are_those_of_their_moment_in_any_order(made):
    clip = first_clip(made)
    renderer = Renderer(plan_log(SEED, 2)[0][1])
    for at_s in (0.0, 0.1, 0.3, 2.0, 20.0, 5.5, 0.0, 23.9):
        shown = clip.frame(at_s)
        assert shown.size == (320, 192)
        assert difference(shown, renderer.frame(at_s).image) < 4.0
    # Between two pictures the older one is the newest that there is; after the end it is the last.
    assert clip.frame(5.58).tobytes() == clip.frame(5.5).tobytes()
    last = clip.frame(clip.duration_s - 0.05).tobytes()
    assert clip.frame(clip.duration_s + 100.0).tobytes() == last
    clip.close()
    assert difference(clip.frame(2.0), renderer.frame(2.0).image) < 4.0
    clip.close()


def test_telemetry_follows_the_readings(made):
    clip = first_clip(made)
    drive = plan_log(SEED, 2)[0][1]
    for at_s in (0.5, 7.5, 12.5):
        telemetry = clip.telemetry(at_s)
        assert telemetry[SPEED_KMH] / 3.6 == pytest.approx(drive.motion.speed_mps(at_s), abs=0.2)
        assert telemetry[ACCELERATION_MPS2] == pytest.approx(drive.motion.acceleration_mps2(at_s), abs=0.3)
    assert clip.telemetry(-50.0) == {}


def test_a_clip_without_an_info_file_has_no_telemetry(copy):
    shutil.rmtree(copy / "info")
    assert first_clip(copy).telemetry(3.0) == {}


def test_the_same_seed_makes_the_same_log(made, tmp_path):
    again = tmp_path / "again"
    make_log(again, seed=SEED, count=1)
    assert (again / "annotations.csv").read_bytes().split(b"\r\n")[1] == (made / "annotations.csv").read_bytes().split(
        b"\r\n"
    )[1]
    name = plan_log(SEED, 1)[0][0]
    assert (again / "info" / f"{name}.json").read_bytes() == (made / "info" / f"{name}.json").read_bytes()


def test_a_log_is_never_written_over_something(copy):
    with pytest.raises(LogError, match="not empty: give a new folder"):
        make_log(copy, seed=1, count=1)


def test_no_folder(tmp_path):
    with pytest.raises(LogError, match=r"there is no folder .*roadside log make"):
        DriveLog.open(tmp_path / "nowhere")


def test_no_annotations_or_too_many(copy):
    shutil.copy(copy / "annotations.csv", copy / "more.csv")
    with pytest.raises(LogError, match=r"exactly one CSV.*annotations\.csv, more\.csv"):
        DriveLog.open(copy)
    for path in copy.glob("*.csv"):
        path.unlink()
    with pytest.raises(LogError, match=r"exactly one CSV.*none"):
        DriveLog.open(copy)


def test_no_video(copy):
    shutil.rmtree(copy / "videos")
    log = DriveLog.open(copy)
    assert len(log.rows_without_video) == 2
    with pytest.raises(LogError, match="no video of theirs: put them into"):
        _ = log.clips


def test_a_missing_video_leaves_the_other_clips(copy):
    next(iter(sorted((copy / "videos").iterdir()))).unlink()
    log = DriveLog.open(copy)
    assert [clip.name[0] for clip in log.clips] == ["2"]
    assert [row.clip_id[0] for row in log.rows_without_video] == ["1"]


def test_files_may_lie_in_folders_below(copy):
    for folder, suffix in (("videos", "mp4"), ("info", "json")):
        below = copy / folder / "100k" / "train"
        below.mkdir(parents=True)
        for path in list((copy / folder).glob(f"*.{suffix}")):
            path.rename(below / path.name)
    clip = first_clip(copy)
    assert clip.frame(1.0).size == (320, 192)
    assert clip.telemetry(1.0)
    clip.close()


def test_opening_a_log_opens_no_video(copy):
    for path in (copy / "videos").iterdir():
        path.write_bytes(b"")
    assert len(DriveLog.open(copy).clips) == 2


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_a_broken_video(copy, content):
    next(iter(sorted((copy / "videos").iterdir()))).write_bytes(content)
    clip = first_clip(copy)
    with pytest.raises(LogError, match=r"cannot be decoded .*copy it again, or leave it out"):
        clip.frame(0.0)


def test_broken_telemetry(copy):
    next(iter(sorted((copy / "info").iterdir()))).write_text("{")
    with pytest.raises(LogError, match="repair or delete it"):
        first_clip(copy).telemetry(1.0)


def test_contact_sheet(made, tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet(DriveLog.open(made), path)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width == 6 * 320
        # Pictures, not an empty page.
        assert np.asarray(sheet.convert("L")).std() > 20


def test_the_bundled_log_is_what_its_seed_makes():
    log = DriveLog.open(bundled_log_path())
    plan = plan_log(BUNDLED_LOG_SEED, 10)
    assert [clip.name for clip in log.clips] == [f"{index + 1}_{name}" for index, (name, _) in enumerate(plan)]
    for clip, (_, drive) in zip(log.clips, plan, strict=True):
        assert clip.segments == segments_of(drive)
        for kept, fresh in zip(clip.readings, readings_of(drive), strict=True):
            assert kept.at_s == fresh.at_s
            assert kept.speed_mps == pytest.approx(fresh.speed_mps, abs=0.011)
            assert kept.latitude_deg == pytest.approx(fresh.latitude_deg, abs=1e-6)
        assert difference(clip.frame(4.0), Renderer(drive).frame(4.0).image) < 4.0
        clip.close()


def test_the_bundled_log_is_small_and_shows_everything():
    log = DriveLog.open(bundled_log_path())
    assert sum(path.stat().st_size for path in bundled_log_path().rglob("*") if path.is_file()) < 3_000_000
    shown = {
        (parse_action(segment.action), parse_justification(segment.justification)[0])
        for clip in log.clips
        for segment in clip.segments
    }
    assert shown == set(COMBINATIONS)
    assert {clip.name.split("-")[1] for clip in log.clips} == set(CONDITIONS)
