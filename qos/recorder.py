"""Listens to the bus during a run, writes the ledger, and keeps the vehicles' frames where it is told to."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack

import structlog

from ..bus import topics
from ..bus.errors import BusError
from ..bus.messages import NodeState
from ..bus.process import READY
from ..bus.subscription import Received, Subscription
from ..bus.transport import Bus
from .frame_keeper import FRAME_TOPICS, FrameKeeper
from .frames import FrameStore, delete_due_of_all_runs
from .ledger_writer import LedgerWriter
from .retention import FrameRetention
from .run import RunDirectory

_RECORDED = (topics.OUTCOME, topics.ACK, topics.RESULT, topics.NODE_STATE, topics.VEHICLE_STATE)
_FLUSH_INTERVAL_S = 0.5
# A minute of a busy fleet, should the disk stand still for so long.
_WAITING_LIMIT = 65_536
_WAITING_FRAMES_LIMIT = 256
_QUIET_BEFORE_CLOSE_S = 0.5
_LONGEST_DRAIN_S = 5.0

_log = structlog.get_logger(__name__)


async def record(
    bus: Bus,
    run: RunDirectory,
    stop: asyncio.Event,
    retention: FrameRetention | None = None,
    counters: Counter[str] | None = None,
) -> Counter[str]:
    """Write what is heard to the run's ledger until `stop` is set and the bus has fallen quiet.

    retention: which frames are kept beside the ledger, and for how long; None keeps none. Frames that are due are
    deleted at the start, in this run and in those that lie beside it, and then all the time in this one.

    Says that it is ready, in its log, once the broker has confirmed every subscription: nothing sent from then on is
    missed.
    Returns how many messages of each topic were written, counted in `counters` where it is given; those that found no
    room are under "missed.<topic>", frames that could not be kept under "frames_not_kept".
    Raises RunError where the ledger cannot be written, BusError where the connection ends for good.
    """
    counters = Counter() if counters is None else counters
    models: dict[str, str] = {}
    retention = retention or FrameRetention()

    def missed(received: Received) -> None:
        counters[f"missed.{received.topic.name}"] += 1
        _log.error("message not recorded: the recorder is too slow", topic=received.topic.name)

    if deleted := delete_due_of_all_runs(run.path.parent, time.time()):
        _log.info("frames deleted that were due", frames=deleted)
    subscriptions = [bus.subscribe(topic, limit=_WAITING_LIMIT, on_overflow=missed) for topic in _RECORDED]
    with ExitStack() as stack:
        ledger = stack.enter_context(LedgerWriter(run))
        readers = [asyncio.create_task(_read(subscription, ledger, counters, models)) for subscription in subscriptions]
        keeper = None
        if retention.keep != "none":
            keeper = FrameKeeper(stack.enter_context(FrameStore(run.frames_path, retention)), run, counters)
            frames = bus.subscribe(FRAME_TOPICS[retention.keep], limit=_WAITING_FRAMES_LIMIT, on_overflow=missed)
            subscriptions.append(frames)
            readers.append(asyncio.create_task(keeper.read(frames)))
        try:
            await _first_of([_all_active(subscriptions), stop.wait()], readers)
            if not stop.is_set():
                _log.info(READY)
            while not stop.is_set():
                await _first_of([stop.wait()], readers, timeout_s=_FLUSH_INTERVAL_S)
                ledger.flush()
                if keeper is not None:
                    keeper.delete_due()
            await _until_quiet(counters, readers)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        if keeper is not None:
            keeper.delete_due()
            keeper.note()
    run.note_models(models)
    _log.info("recorded", **counters)
    return counters


async def _read(
    subscription: Subscription, ledger: LedgerWriter, counters: Counter[str], models: dict[str, str]
) -> None:
    """models: filled with the content hash of every model that a node announces, by its name."""
    async for received in subscription:
        if isinstance(received.body, NodeState) and received.body.model_hash:
            models[received.body.model] = received.body.model_hash
        ledger.add(received.body, received.names, time.time())
        counters[received.topic.name] += 1


async def _all_active(subscriptions: list[Subscription]) -> None:
    for subscription in subscriptions:
        await subscription.active.wait()


async def _first_of(
    events: list[Coroutine[None, None, object]], readers: list[asyncio.Task[None]], timeout_s: float | None = None
) -> None:
    """Return after the first of the events, or after the timeout; raise what ended the bus, should it end before."""
    waiting = [asyncio.create_task(event) for event in events]
    try:
        await asyncio.wait({*waiting, *readers}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    for reader in readers:
        # A reader ends by itself only when the bus has; its error, if any, is the bus's.
        if reader.done():
            reader.result()
            raise BusError("the connection was closed while a run was being recorded: stop the recorder first")


async def _until_quiet(counters: Counter[str], readers: list[asyncio.Task[None]]) -> None:
    """Outcomes may still be on their way when the run ends; states of nodes that live on do not count."""
    give_up_at_s = time.monotonic() + _LONGEST_DRAIN_S
    while time.monotonic() < give_up_at_s:
        before = _answers_heard(counters)
        await asyncio.sleep(_QUIET_BEFORE_CLOSE_S)
        if _answers_heard(counters) == before or any(reader.done() for reader in readers):
            return


def _answers_heard(counters: Counter[str]) -> int:
    return sum(counters[topic.name] for topic in (topics.OUTCOME, topics.ACK, topics.RESULT))
