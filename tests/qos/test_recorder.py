"""The recorder against a real broker: what was said is in the ledger, also what was said last."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.errors import BusError, RunError
from roadside.bus.messages import Accepted, Frame, NodeState, Outcome, Rejected, Result, Task
from roadside.bus.process import READY
from roadside.bus.transport import Bus
from roadside.qos import recorder
from roadside.qos.frames import FrameStore, Origin
from roadside.qos.ledger import Ledger
from roadside.qos.retention import FrameRetention, KeepFrames
from roadside.qos.run import RunDirectory
from structlog.testing import CapturingLogger


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """The recorder's log."""
    logger = CapturingLogger()
    monkeypatch.setattr(recorder, "_log", logger)
    return logger


@asynccontextmanager
async def _recording(
    broker: Broker,
    fleet: str,
    run: RunDirectory,
    said: CapturingLogger,
    retention: FrameRetention | None = None,
) -> AsyncIterator[tuple[asyncio.Event, asyncio.Task[Counter[str]]]]:
    """A recorder that is ready; the event stops it, the task ends with its counters."""
    stop = asyncio.Event()
    async with Bus(url=broker.url, fleet=fleet, name="recorder") as bus:
        task = asyncio.create_task(recorder.record(bus, run, stop, retention))
        async with asyncio.timeout(20):
            while READY not in [call.args[0] for call in said.calls if call.args]:
                assert not task.done()
                await asyncio.sleep(0.01)
        yield stop, task
        stop.set()
        await asyncio.wait({task})


async def test_everything_that_was_said_is_kept(
    broker: Broker,
    fleet: str,
    run: RunDirectory,
    said: CapturingLogger,
    an_outcome: Callable[..., Outcome],
    a_state: Callable[..., NodeState],
    a_result: Callable[..., Result],
) -> None:
    load = a_result().load
    outcomes = [an_outcome(task_id=f"task-{number}", latency_ms=float(number)) for number in range(200)]
    async with _recording(broker, fleet, run, said) as (stop, task):
        async with (
            Bus(url=broker.url, fleet=fleet, name="vehicle-1") as vehicle,
            Bus(url=broker.url, fleet=fleet, name="edge-1") as edge,
        ):
            await edge.publish(topics.NODE_STATE, a_state())
            await vehicle.publish(topics.VEHICLE_STATE, a_state(node="vehicle-1", role="vehicle"))
            await edge.publish(topics.ACK, Accepted("task-0", 1, load), vehicle="vehicle-1")
            await edge.publish(topics.ACK, Rejected("task-1", 1, "full", 50.0, load), vehicle="vehicle-1")
            await edge.publish(topics.RESULT, a_result(task_id="task-0"), vehicle="vehicle-1")
            for outcome in outcomes:
                vehicle.post(topics.OUTCOME, outcome)
        # Whatever is still on its way must be drained.
        stop.set()
        assert await task == {"outcome": 200, "ack": 2, "result": 1, "node-state": 1, "vehicle-state": 1}
    with Ledger.open(run) as ledger:
        assert [(one.vehicle, one.outcome) for one in ledger.outcomes()] == [("vehicle-1", one) for one in outcomes]
        assert [(node.node, node.answers, node.refusals) for node in ledger.nodes()] == [
            ("vehicle-1", 0, 0),
            ("edge-1", 1, 1),
        ]
        assert ledger.refusals() == {"full": 1}


async def test_the_ledger_can_be_read_during_the_run(
    best_broker: Broker, fleet: str, run: RunDirectory, said: CapturingLogger, an_outcome: Callable[..., Outcome]
) -> None:
    async with (
        _recording(best_broker, fleet, run, said),
        Bus(url=best_broker.url, fleet=fleet, name="vehicle-1") as vehicle,
    ):
        await vehicle.publish(topics.OUTCOME, an_outcome())
        async with asyncio.timeout(20):
            while not _recorded(run):  # noqa: ASYNC110 - a file cannot be awaited
                await asyncio.sleep(0.05)
    assert _recorded(run) == 1


_JPEG = b"\xff\xd8\xff\xe0" + bytes(60)
_FRAME = Frame(clip="clip-1", moment_s=3.0, jpeg=_JPEG, telemetry={})
_TASK = Task(
    task_id="task-1",
    attempt=1,
    kind="explain",
    prompt="why ?",
    frames=(_JPEG,),
    telemetry={},
    deadline_ms=2000.0,
    remaining_ms=1500.0,
    qos_floor=0.5,
    place="edge",
)


@pytest.mark.parametrize(("keep", "kept"), [("none", 0), ("sampled", 2), ("tasks", 1)])
async def test_just_the_frames_that_are_asked_for_are_kept(
    best_broker: Broker, fleet: str, run: RunDirectory, said: CapturingLogger, keep: KeepFrames, kept: int
) -> None:
    async with (
        _recording(best_broker, fleet, run, said, FrameRetention(keep)) as (stop, task),
        Bus(url=best_broker.url, fleet=fleet, name="vehicle-1") as vehicle,
    ):
        await vehicle.publish(topics.FRAME, msgspec.structs.replace(_FRAME, jpeg=b"no JPEG"))
        await vehicle.publish(topics.FRAME, _FRAME)
        await vehicle.publish(topics.FRAME, msgspec.structs.replace(_FRAME, task_id="task-1"))
        # The second attempt of a task shows nothing new.
        await vehicle.publish(topics.TASK, _TASK, node="edge-1")
        await vehicle.publish(topics.TASK, msgspec.structs.replace(_TASK, attempt=2), node="edge-2")
        # Frames are not waited for at the end of a run.
        await _until(lambda: len(list(run.path.glob("frames/vehicle-1/*"))) == kept)
        stop.set()
        counters = await task
    assert counters["frames_not_kept"] == (keep == "sampled")
    assert len(list(run.path.glob("frames/vehicle-1/*.jpg"))) == kept
    manifest = run.read_manifest()
    if keep == "none":
        assert manifest.frames is None
        assert not run.frames_path.exists()
    else:
        assert manifest.frames is not None
        assert (manifest.frames.keep, manifest.frames.remaining) == (keep, kept)
        assert manifest.frames.remaining_bytes == kept * len(_JPEG)


async def test_frames_expire_while_it_runs_and_when_it_starts(
    best_broker: Broker, fleet: str, run: RunDirectory, said: CapturingLogger
) -> None:
    retention = FrameRetention("sampled", max_age_s=3600.0)
    earlier = run.path.parent / "earlier" / "frames"
    earlier.parent.mkdir()
    with FrameStore(earlier, retention) as store:
        store.add(_JPEG, Origin("vehicle-1", time.time() - 4000.0))
        store.add(_JPEG, Origin("vehicle-1", time.time()))
    async with (
        _recording(best_broker, fleet, run, said, replace(retention, max_bytes=3 * len(_JPEG))),
        Bus(url=best_broker.url, fleet=fleet, name="vehicle-1") as vehicle,
    ):
        assert len(list(earlier.glob("vehicle-1/*"))) == 1
        for number in range(8):
            await vehicle.publish(topics.FRAME, msgspec.structs.replace(_FRAME, moment_s=float(number)))
        await _until(lambda: _newest_moment_s(run) == 7.0)
    assert len(list(run.path.glob("frames/vehicle-1/*"))) == 3


async def test_only_its_own_fleet_is_recorded(
    best_broker: Broker, fleet: str, run: RunDirectory, said: CapturingLogger, an_outcome: Callable[..., Outcome]
) -> None:
    async with _recording(best_broker, fleet, run, said) as (stop, task):
        for name in (f"{fleet}-other", fleet):
            async with Bus(url=best_broker.url, fleet=name, name="vehicle-1") as vehicle:
                await vehicle.publish(topics.OUTCOME, an_outcome(task_id=name))
        stop.set()
        await task
    with Ledger.open(run) as ledger:
        assert [one.outcome.task_id for one in ledger.outcomes()] == [fleet]


async def test_a_ledger_that_cannot_be_written_is_told(best_broker: Broker, fleet: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "missing")
    async with Bus(url=best_broker.url, fleet=fleet, name="recorder") as bus:
        with pytest.raises(RunError, match=r"ledger\.sqlite"):
            await recorder.record(bus, run, asyncio.Event())


async def test_a_connection_that_ends_ends_the_recorder(best_broker: Broker, fleet: str, run: RunDirectory) -> None:
    async with Bus(url=best_broker.url, fleet=fleet, name="recorder") as bus:
        task = asyncio.create_task(recorder.record(bus, run, asyncio.Event()))
        await bus.publish(topics.VEHICLE_STATE, NodeState(node="recorder", role="vehicle", alive=True))
    with pytest.raises(BusError, match="closed"):
        await asyncio.wait_for(task, 20)


async def test_a_stop_before_the_start_is_obeyed(best_broker: Broker, fleet: str, run: RunDirectory) -> None:
    stop = asyncio.Event()
    stop.set()
    async with Bus(url=best_broker.url, fleet=fleet, name="recorder") as bus:
        assert not await asyncio.wait_for(recorder.record(bus, run, stop), 20)
    assert _recorded(run) == 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a file cannot be awaited
            await asyncio.sleep(0.01)


def _newest_moment_s(run: RunDirectory) -> float | None:
    with sqlite3.connect(run.frames_path / "index.sqlite") as connection:
        return connection.execute("SELECT max(moment_s) FROM frames").fetchone()[0]


def _recorded(run: RunDirectory) -> int:
    with Ledger.open(run) as ledger:
        return len(ledger.outcomes())
