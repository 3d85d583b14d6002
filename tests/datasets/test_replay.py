"""Replaying clips: every moment in its place, and what is broken costs itself and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import VideoError
from roadside.datasets.bddx import Segment
from roadside.datasets.drivelog import Clip
from roadside.datasets.info_files import write_readings
from roadside.datasets.replay import Replay
from roadside.datasets.telemetry import Reading
from structlog.testing import capture_logs

TRUTH = Segment(0.0, 2.0, "The car stops.", "The light is red.")


@pytest.fixture(scope="module")
def paths(film, tmp_path_factory) -> dict[str, Path]:
    """Three whole videos of 4, 2 and 6 s, and damaged ones."""
    folder = tmp_path_factory.mktemp("clips")
    for name, count in (("four", 40), ("two", 20), ("six", 60)):
        film.write(folder / f"{name}.mp4", count, options={"movflags": "faststart"})
    (folder / "broken.mp4").write_bytes(b"?")
    data = (folder / "six.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    return {path.stem: path for path in folder.iterdir()} | {"gone": folder / "gone.mp4"}


@pytest.fixture(scope="module")
def clips(paths) -> Callable[..., list[Clip]]:
    return lambda *names: [Clip(name, paths[name], None, (TRUTH,)) for name in names]


def test_clips_follow_each_other_over_and_over(film, clips):
    replay = Replay(clips("four", "two", "six"))
    seen = [(view.clip, film.number(view.picture)) for view in map(replay.view, (0, 3.95, 4, 5.9, 6.1, 11.9, 12, 16.5))]
    assert seen == [
        *(("four", 0), ("four", 39), ("two", 0), ("two", 19), ("six", 1), ("six", 59)),
        *(("four", 0), ("two", 5)),
    ]
    view = replay.view(19.0)
    assert (view.clip, view.moment_s, view.telemetry, view.truth) == ("six", pytest.approx(1.0, abs=0.01), {}, TRUTH)
    assert replay.view(20.5).truth is None
    assert replay.losses == {}
    replay.close()


def test_speed_and_start(film, clips):
    replay = Replay(clips("four", "two"), start_s=1.0, speed=2.0)
    assert [film.number(replay.view(at_s).picture) for at_s in (0.0, 1.0, 2.0)] == [10, 30, 10]
    replay.close()
    for share, name, number in ((0.0, "four", 0), (0.25, "four", 20), (0.5, "two", 0), (0.75, "two", 10)):
        replay = Replay(clips("four", "two"), start_share=share)
        view = replay.view(0.0)
        assert (view.clip, film.number(view.picture)) == (name, number)
        replay.close()


def test_no_clip_is_opened_before_its_turn(clips, paths):
    started = Replay(clips("four", "gone", "broken"))
    assert started.view(0.0).clip == "four"
    assert started.losses == {}
    started.close()


def test_broken_clips_are_skipped_counted_and_named_once(film, clips):
    replay = Replay(clips("broken", "four", "gone", "two"))
    with capture_logs() as logs:
        seen = [
            (view.clip, film.number(view.picture)) for view in map(replay.view, (0.0, 3.0, 4.0, 5.5, 6.5, 10.5, 12.5))
        ]
    assert seen == [("four", 0), ("four", 30), ("two", 0), ("two", 15), ("four", 5), ("two", 5), ("four", 5)]
    assert replay.losses == {"video unreadable": 1, "video missing": 1}
    assert [(entry["event"], entry["clip"]) for entry in logs] == [
        ("video unreadable", "broken"),
        ("video missing", "gone"),
    ]
    assert "broken.mp4" in logs[0]["error"]
    replay.close()


def test_a_clip_that_was_cut_short_ends_where_its_pictures_do(film, clips):
    replay = Replay(clips("cut", "two"))
    assert film.number(replay.view(0.5).picture) == 5
    assert replay.view(3.5).clip == "two"
    assert replay.losses == {"video cut short": 1}
    # Once known, its end is known in every round.
    clips_seen = [replay.view(5.0 + step / 4).clip for step in range(60)]
    assert set(clips_seen) == {"cut", "two"}
    assert replay.losses == {"video cut short": 1}
    replay.close()


def test_a_video_that_vanishes_under_way_gives_way_to_the_next(film, clips, tmp_path):
    path = tmp_path / "vanishing.mp4"
    film.write(path, 20)
    vanishing = Clip("vanishing", path, None, ())
    replay = Replay([vanishing, *clips("four")])
    assert replay.view(0.5).clip == "vanishing"
    vanishing.close()
    path.unlink()
    view = replay.view(1.0)
    assert (view.clip, view.moment_s, film.number(view.picture)) == ("four", 0.0, 0)
    replay.close()


def test_where_nothing_can_be_played_it_says_so_each_time_and_counts_once(clips):
    replay = Replay(clips("broken", "gone"))
    for _ in range(3):
        with pytest.raises(VideoError, match="gone"):
            replay.view(0.0)
    assert replay.losses == {"video unreadable": 1, "video missing": 1}
    replay.close()


def test_a_broken_info_file_costs_the_telemetry_alone(paths, tmp_path):
    broken, whole = tmp_path / "broken.json", tmp_path / "whole.json"
    broken.write_text("{")
    write_readings(whole, "ride", 1_000_000, 4.0, [Reading(0.0, 10.0, 0.0), Reading(1.0, 10.0, 0.0)])
    replay = Replay([Clip("b", paths["two"], broken, ()), Clip("w", paths["four"], whole, ())])
    assert [replay.view(at_s).telemetry for at_s in (0.0, 1.0)] == [{}, {}]
    assert replay.view(2.5).telemetry["Vehicle.Speed"] == pytest.approx(36.0)
    assert replay.losses == {"info file unreadable": 1}
    replay.close()


def test_names_fit_into_messages(paths):
    clip = Clip("x" * 300 + "\udcff", paths["two"], None, ())
    replay = Replay([clip])
    assert replay.view(0.0).clip == "x" * 96
    replay.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["four", "two", "six", "broken", "gone", "cut"]), min_size=1, max_size=4),
    st.floats(0, 0.999),
    st.lists(st.floats(0, 40), min_size=1, max_size=4),
)
def test_whatever_is_broken_something_that_is_whole_is_shown(clips, names, share, moments):
    replay = Replay(clips(*names), start_share=share)
    try:
        for at_s in sorted(moments):
            view = replay.view(at_s)
            assert view.clip in {"four", "two", "six", "cut"}
            assert 0 <= view.moment_s <= 6.0
    except VideoError:
        assert set(names) <= {"broken", "gone"}
    finally:
        replay.close()
    assert replay.losses.total() <= len(names)
