"""What a vehicle is given to see: which source its configuration means, and how its pictures are sent."""

from __future__ import annotations

import asyncio
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from roadside.bus.errors import ConfigurationError, LogError, VideoError
from roadside.datasets.drivelog import bundled_log_path
from roadside.vehicle_node import scenes
from roadside.vehicle_node.configuration import VehicleConfiguration
from roadside.vehicle_node.scenes import Scene, check_source, is_live, open_camera
from structlog.testing import capture_logs

A_VIDEO = next(iter(sorted((bundled_log_path() / "videos").iterdir())))


def capture(configuration: VehicleConfiguration, elapsed_s: float = 3.0) -> Scene:
    camera = open_camera(configuration)
    try:
        return asyncio.run(camera.capture(elapsed_s))
    finally:
        camera.close()


def picture(scene: Scene) -> Image.Image:
    image = Image.open(io.BytesIO(scene.jpeg))
    assert image.format == "JPEG"
    return image


def test_without_a_word_it_is_the_bundled_log():
    scene = capture(VehicleConfiguration())
    assert scene.clip.startswith("1_")
    assert scene.telemetry
    assert scene.truth is not None
    assert picture(scene).size == (320, 192)


@pytest.mark.parametrize("video", [str(A_VIDEO), A_VIDEO.as_uri()])
def test_a_video_has_no_telemetry_and_no_truth(video):
    scene = capture(VehicleConfiguration(video=video, start_share=0.5))
    assert (scene.clip, scene.telemetry, scene.truth) == (A_VIDEO.stem, {}, None)
    assert scene.moment_s > 10


@pytest.mark.parametrize(
    ("longest_side_px", "size"), [(640, (320, 192)), (320, (320, 192)), (160, (160, 96)), (32, (32, 19))]
)
def test_large_pictures_are_scaled_down_and_small_ones_left(longest_side_px, size):
    scene = capture(VehicleConfiguration(longest_side_px=longest_side_px))
    assert picture(scene).size == size


def test_a_log_and_a_video_at_once_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="leave out --log or --video"):
        open_camera(VehicleConfiguration(log=str(tmp_path), video=str(A_VIDEO)))
    with pytest.raises(ConfigurationError, match="leave out --log or --video"):
        check_source(tmp_path, str(A_VIDEO))


def test_what_cannot_be_replayed_is_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "_FIRST_PICTURE_S", 0.2)
    for log, video in ((tmp_path, None), (None, str(tmp_path / "no.mp4")), (None, "tcp://127.0.0.1:1")):
        with pytest.raises(LogError):
            check_source(log, video)
    with pytest.raises(VideoError, match="is not there: give the path"):
        open_camera(VehicleConfiguration(video=str(tmp_path / "no.mp4")))
    with pytest.raises(LogError, match="for a video file there is --video"):
        open_camera(VehicleConfiguration(log=str(A_VIDEO)))
    check_source(None, None)
    check_source(None, str(A_VIDEO))


def test_missing_videos_of_a_log_are_counted_and_named_once(tmp_path):
    log = Path(shutil.copytree(bundled_log_path(), tmp_path / "log"))
    names = sorted(path.stem for path in (log / "videos").iterdir())
    for name in names[1:3]:
        (log / "videos" / f"{name}.mp4").unlink()
    with capture_logs() as logs:
        camera = open_camera(VehicleConfiguration(log=str(log)))
    assert camera.losses == {"video missing": 2}
    assert [(entry["event"], entry["rows"], entry["first"]) for entry in logs] == [("video missing", 2, names[1])]
    camera.close()


@pytest.mark.parametrize(
    ("video", "live"),
    [
        *(("rtsp://10.0.0.7/cam", True), ("http://10.0.0.7/video", True), ("udp://@:5000", True)),
        *(("drive.mp4", False), ("file:///videos/drive.mp4", False), ("/dev/null", True), ("/tmp", False)),
    ],
)
def test_a_url_or_a_device_is_live_and_a_file_is_replayed(video, live):
    assert is_live(video) is live
