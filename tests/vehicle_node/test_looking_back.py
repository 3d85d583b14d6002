"""Two frames a task: the second one is about a second older, of the same clip, and only where it is asked for."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.vehicle_node.configuration import VehicleConfiguration
from roadside.vehicle_node.looking_back import OLDEST_S, YOUNGEST_S, LookingBack, Seen
from roadside.vehicle_node.scenes import open_camera


def jpeg(moment_s: float) -> bytes:
    return f"{moment_s:.3f}".encode()


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=40))
def test_the_earlier_frame_is_about_a_second_old(moments_s):
    looking_back, seen = LookingBack(2), []
    for moment_s in moments_s:
        earlier = looking_back.before(Seen("clip", moment_s, jpeg(moment_s)))
        ages_s = [moment_s - each for each in seen[-32:]]
        fitting = [age_s for age_s in ages_s if YOUNGEST_S <= age_s <= OLDEST_S]
        seen.append(moment_s)
        assert len(earlier) == bool(fitting)
        if earlier:
            best_s = min(fitting, key=lambda age_s: abs(age_s - 1.0))
            assert abs(moment_s - float(earlier[0]) - best_s) < 0.002


def test_no_frame_is_of_another_clip():
    looking_back = LookingBack(2)
    assert looking_back.before(Seen("one", 1.0, b"1")) == ()
    assert looking_back.before(Seen("two", 2.0, b"2")) == ()
    assert looking_back.before(Seen("two", 3.0, b"3")) == (b"2",)


def test_one_frame_a_task_remembers_nothing():
    looking_back = LookingBack(1)
    assert looking_back.before(Seen("one", 1.0, b"1")) == ()
    assert looking_back.before(Seen("one", 2.0, b"2")) == ()


@pytest.mark.parametrize("frames_per_task", [1, 2])
def test_a_scene_has_as_many_frames_as_are_asked_for(frames_per_task):
    async def drive() -> tuple[bytes, ...]:
        camera = open_camera(VehicleConfiguration(frames_per_task=frames_per_task))
        try:
            await camera.capture(2.0)
            scene = await camera.capture(3.0)
            assert scene.upload_bytes == sum(len(each) for each in scene.frames)
            assert scene.frames[-1] == scene.jpeg
            return scene.frames
        finally:
            camera.close()

    frames = asyncio.run(drive())
    assert len(frames) == len(set(frames)) == frames_per_task


def test_a_camera_that_is_watched_has_a_frame_before_every_scene():
    async def drive() -> int:
        camera = open_camera(VehicleConfiguration(frames_per_task=2))
        started_s = time.monotonic()
        watching = asyncio.create_task(camera.watch(started_s - 5.0, speed=10.0))
        try:
            # In the drive's time ten times as fast; nobody else looks.
            while len((await camera.capture(time.monotonic() - started_s + 5.0)).frames) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            return 2
        finally:
            watching.cancel()
            camera.close()

    assert asyncio.run(asyncio.wait_for(drive(), 30)) == 2


def test_a_camera_that_is_watched_never_reads_backwards():
    async def drive() -> tuple[float, float]:
        camera = open_camera(VehicleConfiguration(frames_per_task=2))
        try:
            later, earlier = await camera.capture(4.0), await camera.capture(3.9)
            return later.moment_s, earlier.moment_s
        finally:
            camera.close()

    assert asyncio.run(drive()) == (4.0, 4.0)


def test_a_camera_that_needs_no_second_frame_is_not_watched():
    async def drive() -> None:
        camera = open_camera(VehicleConfiguration())
        await camera.watch(time.monotonic())
        camera.close()

    asyncio.run(asyncio.wait_for(drive(), 10))
