"""Any video: the right picture of every moment, and one clear line for what cannot be shown."""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import VideoError
from roadside.datasets.video import MISSING, NO_PICTURE, NO_TIME_STAMPS, UNREADABLE, Video

REAL_CLIP = Path(__file__).parents[3] / "shared" / "data" / "dashcam" / "solidWhiteRight.mp4"
WITH_B_FRAMES = "libx264" if "libx264" in av.codecs_available else "mpeg4"


@pytest.fixture(scope="module")
def films(film, tmp_path_factory) -> dict[str, Path]:
    """The same six seconds in files of different kinds."""
    folder = tmp_path_factory.mktemp("films")
    paths = {suffix: folder / f"film.{suffix}" for suffix in ("mp4", "mkv", "avi", "ts")}
    for path in paths.values():
        film.write(path)
    paths["b-frames"] = folder / "b-frames.mp4"
    film.write(paths["b-frames"], codec=WITH_B_FRAMES)
    paths["one-key"] = folder / "one-key.mp4"
    film.write(paths["one-key"], key_every=1000, codec=WITH_B_FRAMES)
    return paths


def shown(film, path: Path, moments: list[float]) -> list[int]:
    video = Video(path)
    try:
        return [film.number(video.picture(at_s)) for at_s in moments]
    finally:
        video.close()


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "ts", "b-frames", "one-key"])
def test_every_moment_shows_its_picture_in_any_order(film, films, kind):
    moments = [0.0, 0.05, 0.1, 0.3, 1.25, 5.9, 2.0, 2.1, 0.0, 4.449, 99.0]
    assert shown(film, films[kind], moments) == [0, 0, 1, 3, 12, 59, 20, 21, 0, 44, 59]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 7), min_size=1, max_size=8))
def test_the_way_to_a_moment_does_not_matter(film, films, moments):
    expected = [min(59, int(at_s * 10 + 0.01)) for at_s in moments]
    assert shown(film, films["b-frames"], moments) == expected


def test_lengths(films):
    for kind in ("mp4", "mkv", "avi", "ts"):
        video = Video(films[kind])
        assert video.duration_s == pytest.approx(6.0, abs=0.11), kind
        video.close()


def test_a_jump_skips_what_need_not_be_decoded(film, films, monkeypatch):
    decoded = []
    monkeypatch.setattr("roadside.datasets.video.upright", lambda frame: decoded.append(frame) or frame.to_image())
    video = Video(films["mp4"])
    real = video._timed
    monkeypatch.setattr(video, "_timed", lambda frame: decoded.append(1) or real(frame))
    assert film.number(video.picture(5.0)) == 50
    # Key frames are 12 apart: from 48 on, not from 0.
    assert len(decoded) < 12
    video.close()


def test_long_jumps_seek(film, tmp_path):
    film.write(tmp_path / "long.mp4", 250, rate=1, key_every=10, size=(64, 48))
    assert shown(film, tmp_path / "long.mp4", [200.0, 3.0, 249.0, 120.5]) == [200, 3, 249, 120]


def test_variable_frame_rate(film, tmp_path):
    film.write(tmp_path / "vfr.mp4", 6, at=[0, 1, 20, 21, 22, 50])
    assert shown(film, tmp_path / "vfr.mp4", [0.1, 1.9, 2.0, 2.15, 4.9, 5.0]) == [1, 1, 2, 3, 4, 5]


def test_moments_count_from_the_first_picture(film, tmp_path):
    film.write(tmp_path / "late.mkv", 20, at=[100 + number for number in range(20)])
    assert shown(film, tmp_path / "late.mkv", [0.0, 0.5]) == [0, 5]


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV writes no turned videos: turning is untested"
)
@pytest.mark.parametrize(("turned_deg", "corner"), [(90, "bottom left"), (-90, "top right"), (180, "bottom right")])
def test_a_turned_camera_is_shown_upright(film, tmp_path, turned_deg, corner):
    path = tmp_path / "turned.mp4"
    film.write(path, 3, turned_deg=turned_deg)
    video = Video(path)
    image = np.asarray(video.picture(0.0).convert("L")).astype(int)
    video.close()
    # Picture 0 is dark but for its top quarter, which the turn brings to another side.
    height, width = image.shape
    assert (width, height) == ((192, 320) if abs(turned_deg) == 90 else (320, 192))
    sides = {
        "bottom left": image[:, : width // 5],
        "top right": image[:, -width // 5 :],
        "bottom right": image[-height // 5 :],
    }
    assert sides.pop(corner).mean() > 200
    assert all(side.mean() < 120 for side in sides.values())


@pytest.mark.parametrize("size", [(16, 16), (1920, 1080), (64, 480), (322, 190)])
def test_any_size_and_shape(film, tmp_path, size):
    path = tmp_path / "any.mp4"
    film.write(path, 3, size=size)
    video = Video(path)
    assert video.picture(0.1).size == size
    video.close()


def test_a_file_that_was_cut_short_is_shown_up_to_there(film, tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    film.write(whole, 100, options={"movflags": "faststart"})
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    video = Video(cut)
    assert video.duration_s == pytest.approx(10.0, abs=0.11)
    assert film.number(video.picture(2.0)) == 20
    last = film.number(video.picture(9.5))
    assert 30 < last < 80
    # Reading has shown where it ends.
    assert video.duration_s == pytest.approx((last + 1) / 10, abs=0.05)
    assert film.number(video.picture(1.0)) == 10
    video.close()


def test_damage_in_the_middle_costs_no_more_than_itself(film, tmp_path):
    path = tmp_path / "damaged.mp4"
    film.write(path, 100)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(data)
    assert shown(film, path, [1.0, 9.9]) == [10, 99]


def test_a_recording_that_was_never_closed_states_no_length_and_is_measured(film, tmp_path):
    path = tmp_path / "open.mkv"
    film.write(path, 40, options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    video = Video(path)
    assert video.duration_s == pytest.approx(4.0, abs=0.11)
    assert film.number(video.picture(3.0)) == 30
    assert film.number(video.picture(1.0)) == 10
    video.close()


def refusal(path: Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        Video(path).picture(0.0)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def test_what_is_no_video_is_refused_in_one_line(film, tmp_path):
    cut, text, lines = tmp_path / "cut.mp4", tmp_path / "text.mp4", tmp_path / "lines.txt"
    film.write(cut)
    # The index of this file stands at its end.
    cut.write_bytes(cut.read_bytes()[:-3000])
    text.write_text("no video at all")
    lines.write_text("this is a text\n" * 100)
    (tmp_path / "empty.mov").touch()
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    expected = {
        tmp_path / "nowhere.mp4": (MISSING, "is not there: give the path"),
        tmp_path: (MISSING, "is a folder, not a video"),
        tmp_path / "empty.mov": (UNREADABLE, "copy it again, or leave it out"),
        text: (UNREADABLE, "cannot be decoded"),
        cut: (UNREADABLE, "it may have been cut short"),
        sound: (NO_PICTURE, "only sound or text"),
        lines: (NO_PICTURE, "only sound or text"),
    }
    for path, (reason, words) in expected.items():
        error = refusal(path)
        assert (error.reason, words in str(error)) == (reason, True), (path, str(error))


def test_a_video_without_a_single_picture(film, tmp_path):
    path = tmp_path / "none.mp4"
    film.write(path, 2)
    data = bytearray(path.read_bytes())
    # The sample table says that there are none.
    for box in (b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stss"):
        if (at := data.find(box)) > 0:
            count = at + (12 if box == b"stsz" else 8)
            data[count : count + 4] = bytes(4)
    path.write_bytes(data)
    assert refusal(path).reason in {NO_PICTURE, UNREADABLE}


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="this FFmpeg writes no H.264: raw streams untested")
def test_a_raw_stream_has_no_time(film, tmp_path):
    film.write(tmp_path / "raw.h264", 5, codec="libx264", format="h264")
    error = refusal(tmp_path / "raw.h264")
    assert error.reason == NO_TIME_STAMPS
    assert "ffmpeg -i raw.h264 -c copy raw.mp4" in str(error)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x00\x00\x00\x18ftypmp42", b"RIFF\x00\x01\x00\x00AVI LIST"]))
def test_garbage_is_refused_and_nothing_else(garbage, start):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "garbage.mp4"
        path.write_bytes(start + garbage)
        try:
            video = Video(path)
        except VideoError:
            return
        try:
            video.picture(0.5)
        except VideoError:
            pass
        finally:
            video.close()


def test_a_real_dash_camera_clip():
    if not REAL_CLIP.is_file():
        pytest.skip("no real clip beside the repository (../shared/data/dashcam): only made videos are tested")
    video = Video(REAL_CLIP)
    assert video.duration_s == pytest.approx(8.84, abs=0.01)
    assert video.picture(0.0).size == (960, 540)
    assert np.asarray(video.picture(5.0)).std() > 20
    video.close()
