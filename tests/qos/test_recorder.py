"""The recorder against a real broker: what was said is in the ledger, also what was said last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.errors import BusError, RunError
from roadside.bus.messages import Accepted, NodeState, Outcome, Rejected, Result
from roadside.bus.process import READY
from roadside.bus.transport import Bus
from roadside.qos import recorder
from roadside.qos.ledger import Ledger
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
    broker: Broker, fleet: str, run: RunDirectory, said: CapturingLogger
) -> AsyncIterator[tuple[asyncio.Event, asyncio.Task[object]]]:
    """A recorder that is ready; the event stops it, the task ends with its counters."""
    stop = asyncio.Event()
    async with Bus(url=broker.url, fleet=fleet, name="recorder") as bus:
        task = asyncio.create_task(recorder.record(bus, run, stop))
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


def _recorded(run: RunDirectory) -> int:
    with Ledger.open(run) as ledger:
        return len(ledger.outcomes())
