"""Frames for people, and redaction of everything that leaves a vehicle, heard on a real bus."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.configuration import load_configuration
from roadside.bus.errors import ConfigurationError
from roadside.bus.kinds import KINDS
from roadside.bus.messages import Frame, Load, NodeState, Task
from roadside.bus.transport import Bus, Subscription
from roadside.datasets.signals import HEADING_DEG, LATITUDE_DEG, LONGITUDE_DEG, SPEED_KMH
from roadside.vehicle_node.configuration import VehicleConfiguration
from roadside.vehicle_node.frames import FrameSampler
from roadside.vehicle_node.node import run
from roadside.vehicle_node.scenes import open_camera

_LOCATION = {HEADING_DEG, LATITUDE_DEG, LONGITUDE_DEG}


async def _drive(broker: Broker, fleet: str, tmp_path: Path, **settings: Any) -> tuple[list[Frame], list[Task]]:
    """A vehicle's drive of a second or two, all to an edge that only listens; returns what it published."""
    frames: list[Frame] = []
    tasks: dict[str, Task] = {}

    async def hear_frames(subscription: Subscription) -> None:
        async for received in subscription:
            frames.append(received.body)

    async def hear_tasks(subscription: Subscription) -> None:
        async for received in subscription:
            tasks[received.body.task_id] = received.body

    flags = {
        "name": "vehicle-1",
        "broker": broker.url,
        "fleet": fleet,
        "journal": tmp_path / "journal.sqlite",
        "place": "edge",
        "rate_hz": 20.0,
        "duration_s": 1.5,
    }
    configuration = load_configuration(VehicleConfiguration, {}, flags | settings)
    async with asyncio.timeout(60), Bus(url=broker.url, fleet=fleet, name="edge-1") as edge:
        subscriptions = (edge.subscribe(topics.FRAME), edge.subscribe(topics.TASK, limit=4096, node="edge-1"))
        listening = [
            asyncio.create_task(hear_frames(subscriptions[0])),
            asyncio.create_task(hear_tasks(subscriptions[1])),
        ]
        for subscription in subscriptions:
            await subscription.active.wait()
        await edge.publish(
            topics.NODE_STATE,
            NodeState(
                node="edge-1",
                role="edge",
                alive=True,
                places=("edge",),
                load=Load(0, 0, 1, 0.0, {"edge": dict.fromkeys(KINDS, 20.0)}),
                quality={"edge": dict.fromkeys(KINDS, 0.9)},
            ),
        )
        await run(configuration, asyncio.Event())
        for listener in listening:
            listener.cancel()
    return frames, list(tasks.values())


def _pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


async def test_frames_come_now_and_then_and_show_tasks(best_broker: Broker, fleet: str, tmp_path: Path) -> None:
    frames, tasks = await _drive(best_broker, fleet, tmp_path, frame_interval_s=0.3)
    assert 1 <= len(frames) <= 5
    asked = {task.task_id: task for task in tasks}
    shown = [frame for frame in frames if frame.task_id is not None]
    assert shown, "with 20 tasks a second, one falls into the second half of an interval"
    for frame in shown:
        assert frame.task_id is not None
        assert (frame.jpeg,) == asked[frame.task_id].frames
        assert frame.telemetry == asked[frame.task_id].telemetry
    # Nothing is left out that nobody asked to leave out.
    assert tasks[0].telemetry.keys() >= _LOCATION
    assert all(_pixels(frame.jpeg)[-8:].max() > 30 for frame in frames)


async def test_frames_come_also_where_nothing_is_asked(best_broker: Broker, fleet: str, tmp_path: Path) -> None:
    frames, tasks = await _drive(best_broker, fleet, tmp_path, frame_interval_s=0.3, rate_hz=0.7, seed=4)
    assert len(tasks) <= 1
    assert frames
    assert any(frame.task_id is None for frame in frames)
    moments_s = [frame.moment_s for frame in frames]
    assert moments_s == sorted(moments_s)


async def test_no_frames_unless_somebody_asked_for_them(best_broker: Broker, fleet: str, tmp_path: Path) -> None:
    frames, tasks = await _drive(best_broker, fleet, tmp_path)
    assert tasks
    assert not frames


async def test_what_is_redacted_leaves_the_vehicle_nowhere(best_broker: Broker, fleet: str, tmp_path: Path) -> None:
    settings = {"redact_regions": [[0, 0.5, 1, 1]], "redact_location": True}
    frames, tasks = await _drive(best_broker, fleet, tmp_path, frame_interval_s=0.3, **settings)
    assert frames
    assert tasks
    for jpeg in (*(frame.jpeg for frame in frames), *(task.frames[0] for task in tasks)):
        picture = _pixels(jpeg)
        half = picture.shape[0] // 2
        # The first rows of the black half may have taken a tint from their neighbours: JPEG halves the colours' size.
        assert picture[half + 2 :].max() < 12
        assert picture[:half].max() > 60
    for telemetry in (*(frame.telemetry for frame in frames), *(task.telemetry for task in tasks)):
        assert not telemetry.keys() & _LOCATION
        assert SPEED_KMH in telemetry


async def test_a_frame_waits_for_what_matters_and_is_forgotten_when_it_is_old(fleet: str) -> None:
    counters: Counter[str] = Counter()
    camera = open_camera(VehicleConfiguration())
    async with (
        asyncio.timeout(60),
        Broker() as broker,
        Bus(url=broker.url, fleet=fleet, name="vehicle-1") as bus,
        Bus(url=broker.url, fleet=fleet, name="edge-1") as listener,
    ):
        frames = listener.subscribe(topics.FRAME)
        await frames.active.wait()
        sampler = FrameSampler(bus=bus, camera=camera, interval_s=0.2, counters=counters)
        sampling = asyncio.create_task(sampler.run(time.monotonic()))
        await anext(frames)
        await broker.stop()
        await bus.disconnected.wait()
        bus.post(topics.VEHICLE_STATE, NodeState(node="vehicle-1", role="vehicle", alive=True))
        await asyncio.sleep(0.05)
        sent = counters["frames"]
        # More than one interval without a broker: one frame has come to wait behind the state.
        await asyncio.sleep(0.7)
        assert counters["frames"] == sent
        await broker.start()
        while not counters["frames_dropped"]:  # noqa: ASYNC110 - a counter cannot be awaited
            await asyncio.sleep(0.01)
        await anext(frames)
        sampling.cancel()
    camera.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"redact_people": True}, "detector"),
        ({"redact_regions": [[0.2, 0, 0.1, 1]]}, "left < right"),
        ({"redact_regions": [[0, 0, 2, 1]]}, "redact_regions"),
        ({"redact_location": "yes"}, "redact_location"),
        ({"frame_interval_s": 0.01}, "frame_interval_s"),
        ({"frame_interval_s": -1.0}, "frame_interval_s"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_configuration(VehicleConfiguration, settings, {})


async def test_tasks_carry_the_frame_before_where_two_are_asked_for(
    best_broker: Broker, fleet: str, tmp_path: Path
) -> None:
    _, tasks = await _drive(best_broker, fleet, tmp_path, frames_per_task=2, speed=4.0)
    pairs = [task.frames for task in tasks if len(task.frames) == 2]
    # Nothing was seen before the first ones.
    assert len(pairs) > len(tasks) / 3
    assert all(earlier != newest for earlier, newest in pairs)
    assert {len(task.frames) for task in tasks} <= {1, 2}
