"""The process of a vehicle: it makes tasks of what it sees and hands them to its dispatcher.

    camera -> journal -> dispatcher -> Outcome -> teller

The vehicle is the one place that remembers a task. Started again on its journal, it ends what an earlier life left open
as `expired`, whatever was left of the time, since nobody waits any more, and tells what the world has not heard.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ..bus import topics
from ..bus.errors import LogError, RunError
from ..bus.history import NO_HISTORY, History
from ..bus.latencies import LatencyHistogram
from ..bus.message_log import Created, MessageLog
from ..bus.messages import NodeState
from ..bus.metrics import node_metrics_served
from ..bus.process import READY, Health
from ..bus.transport import Bus, Received, Subscription
from ..datasets.narrator import narrate
from ..models.questions import Answerer
from ..policy.even_exploration import EvenExploration
from ..policy.guard import Guard
from ..policy.live_weights import LiveWeights, TakesWeights
from ..policy.registry import make_policy
from ..qos.journal import Journal
from .configuration import VehicleConfiguration
from .dispatcher import Dispatcher, task_id_prefix
from .endings import expired
from .frames import FrameSampler
from .own_model import OwnModel, OwnPlace
from .scenes import Camera, open_camera
from .schedule import Arrival, arrivals
from .task_run import TaskRun
from .teller import Teller

log = structlog.get_logger()

_HEARTBEAT_S = 1.0
_LAST_WORDS_S = 2.0  # how long the broker may take to get the last outcomes
_FIRST_STATES_S = 1.0  # how long to wait for the nodes' retained states before the first task


async def run(
    configuration: VehicleConfiguration, stop: asyncio.Event, make_answerer: Callable[[], Answerer] | None = None
) -> None:
    """Replay the log until `duration_s` is over or `stop` is set; return when every task has ended.

    make_answerer: loads the vehicle's own model, where it is to have one.
    """
    camera = open_camera(configuration)
    policy = make_policy(configuration.policy, configuration.policy_options)
    guard = Guard(policy, exploration=EvenExploration(configuration.explore_share, configuration.seed))
    live_weights = LiveWeights(policy, learner=configuration.policy_from) if isinstance(policy, TakesWeights) else None
    own_model = None
    if make_answerer is not None:
        # Loading takes seconds and must not keep a signal from being heard.
        answerer = await asyncio.to_thread(make_answerer)
        own_model = OwnModel(configuration.name, answerer, power_w=configuration.vehicle_model_power_w)
        await own_model.warm_up()
    name = configuration.name
    history = History.of_process(name)
    history.begin()
    will = NodeState(node=name, role="vehicle", alive=False)
    with Journal(Path(configuration.journal), name) as journal:
        for entry in journal.open_tasks():
            log.warning("expired while the vehicle was down", task_id=entry.task_id)
            journal.ended(expired(entry))
            history.note("task.ended", task=entry.task_id, state="expired", shown=False)
        async with Bus(
            url=configuration.broker,
            fleet=configuration.fleet,
            name=name,
            tls=configuration.tls,
            will=(topics.VEHICLE_STATE, will),
        ) as bus:
            bus.tap = message_log = MessageLog.of_process("vehicle", configuration, bus.boot_id)
            vehicle = Vehicle(
                configuration,
                bus=bus,
                journal=journal,
                camera=camera,
                guard=guard,
                live_weights=live_weights,
                own_model=own_model,
                history=history,
                message_log=message_log,
            )
            async with node_metrics_served(configuration, vehicle.state, latencies=vehicle.latencies):
                await vehicle.run(stop)


class Vehicle:
    """Everything below runs on the event loop; only the camera and the own model have threads of their own."""

    def __init__(
        self,
        configuration: VehicleConfiguration,
        *,
        bus: Bus,
        journal: Journal,
        camera: Camera,
        guard: Guard,
        live_weights: LiveWeights | None = None,
        own_model: OwnModel | None = None,
        history: History = NO_HISTORY,
        message_log: MessageLog | None = None,
    ) -> None:
        self._configuration = configuration
        self._history = history
        self._message_log = message_log
        self._live_weights = live_weights
        self._name = configuration.name
        self._bus = bus
        self._journal = journal
        self._guard = guard
        self._camera = camera
        self._health = Health()
        self.counters: Counter[str] = Counter()
        self._frames = FrameSampler(
            bus=bus, camera=camera, interval_s=configuration.frame_interval_s, counters=self.counters
        )
        self._teller = Teller(bus=bus, journal=journal, counters=self.counters)
        self._own_place = own_model or OwnPlace(self._name)
        self._dispatcher = Dispatcher(
            configuration,
            bus=bus,
            journal=journal,
            guard=guard,
            teller=self._teller,
            counters=self.counters,
            own_model=own_model,
            history=history,
        )

    async def run(self, stop: asyncio.Event) -> None:
        dispatcher = self._dispatcher
        listening = [
            (self._bus.subscribe(topics.NODE_STATE, limit=1024), dispatcher.hear_state),
            (self._bus.subscribe(topics.ACK, limit=4096, vehicle=self._name), dispatcher.hear_ack),
            (self._bus.subscribe(topics.RESULT, limit=4096, vehicle=self._name), dispatcher.hear_result),
        ]
        if self._live_weights is not None:
            # From everybody where one is named as well: what is published by nobody's leave is counted.
            listening.append((self._bus.subscribe(topics.POLICY, limit=64), self._hear_weights))
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._health.watch_event_loop()),
                group.create_task(self._heartbeat()),
                group.create_task(dispatcher.watch()),
                *(group.create_task(_listen(subscription, hear)) for subscription, hear in listening),
            ]
            for subscription, _ in listening:
                await subscription.active.wait()
            self._teller.tell_what_is_left()
            log.info(READY, vehicle=self._name)
            await _or_stopped(asyncio.sleep(_FIRST_STATES_S), stop)
            await self._drive(group, stop)
            await dispatcher.all_ended.wait()
            await dispatcher.stop_own_model()
            await self._teller.finish(timeout_s=_LAST_WORDS_S)
            for task in background:
                task.cancel()
        self._camera.close()
        # Posted, not awaited: closing the bus sends what waits, and gives up where the broker is gone.
        self._bus.post(topics.VEHICLE_STATE, self.state(alive=False), vehicle=self._name)

    async def _drive(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        """Create the scheduled tasks; returns when the schedule is over or the vehicle is told to stop."""
        started_s = time.monotonic()
        schedule = arrivals(
            seed=self._configuration.seed,
            vehicle=self._name,
            rate_hz=self._configuration.rate_hz,
            duration_s=self._configuration.duration_s,
        )
        looking = (
            group.create_task(self._frames.run(started_s)),
            group.create_task(self._camera.watch(started_s, speed=self._configuration.speed)),
        )
        creating: set[asyncio.Task[None]] = set()
        for number, arrival in enumerate(schedule, start=1):
            await _or_stopped(asyncio.sleep(started_s + arrival.at_s - time.monotonic()), stop)
            if stop.is_set():
                break
            task_id = f"{task_id_prefix(self._bus)}{number:05d}"
            task = group.create_task(self._create(arrival, task_id))
            creating.add(task)
            task.add_done_callback(creating.discard)
        for task in looking:
            task.cancel()
        if creating:
            await asyncio.wait(creating)

    async def _create(self, arrival: Arrival, task_id: str) -> None:
        created_s, created_at_s = time.monotonic(), time.time()
        try:
            scene = await self._camera.capture(arrival.at_s)
        except LogError as error:
            # A damaged video costs its own moments, not the drive.
            self.counters["not_seen"] += 1
            log.error("no picture, so no task", task_id=task_id, error=str(error))
            return
        speak_s = created_s + (arrival.kind.deadline_ms - self._configuration.fallback_margin_ms) / 1000
        task = TaskRun(
            task_id, arrival.kind, scene, created_s, created_at_s, speak_s, exit_threshold=self._configuration.theta
        )
        try:
            self._journal.created(task_id, arrival.kind.name, arrival.kind.deadline_ms)
        except RunError as error:
            # What cannot be remembered is not begun: nothing can then be created and lost. The narrator needs no
            # memory, and goes on.
            self.counters["not_created"] += 1
            log.error("task not created", task_id=task_id, error=str(error), instead=narrate(scene.telemetry))
            self._history.note("narrated.only", why=str(error))
            return
        self.counters["created"] += 1
        deadline_ms = arrival.kind.deadline_ms
        self._history.note("task.created", task=task_id, created_s=created_s, deadline_ms=deadline_ms)
        log.debug("created", task_id=task_id, kind=arrival.kind.name, clip=scene.clip, moment_s=scene.moment_s)
        self._frames.offer(scene, task_id)
        if self._message_log is not None:
            self._message_log.created(_logged(task))
        self._dispatcher.begin(task)

    def _hear_weights(self, received: Received) -> None:
        assert self._live_weights is not None
        self._live_weights.hear(received.names["learner"], received.body)

    async def _heartbeat(self) -> None:
        while True:
            self._bus.post(topics.VEHICLE_STATE, self.state(alive=True), vehicle=self._name)
            await asyncio.sleep(_HEARTBEAT_S)

    @property
    def latencies(self) -> LatencyHistogram:
        return self._dispatcher.latencies

    def state(self, *, alive: bool = True) -> NodeState:
        """The vehicle as it sees itself now."""
        return msgspec.structs.replace(
            self._own_place.state(),
            alive=alive,
            uptime_s=self._health.uptime_s,
            event_loop_lag_ms=self._health.event_loop_lag_ms,
            memory_bytes=self._health.memory_bytes,
            counters=self._every_counter(),
        )

    def _every_counter(self) -> dict[str, int]:
        overruled = {f"policy_overruled.{why}": count for why, count in self._guard.counters.items()}
        of_weights = {} if self._live_weights is None else self._live_weights.counters
        return {**self.counters, **self._camera.losses, **self._bus.counters, **overruled, **of_weights}


def _logged(task: TaskRun) -> Created:
    """What a replay makes the task of."""
    scene, truth = task.scene, task.scene.truth
    return Created(
        at_s=time.monotonic(),
        created_s=task.created_s,
        created_at_s=task.created_at_s,
        task_id=task.task_id,
        kind=task.kind.name,
        clip=scene.clip,
        moment_s=scene.moment_s,
        telemetry=scene.telemetry,
        frame_bytes=tuple(map(len, scene.frames)),
        action=None if truth is None else truth.action,
        justification=None if truth is None else truth.justification,
    )


async def _listen(subscription: Subscription, hear: Callable[[Received], None]) -> None:
    async for received in subscription:
        hear(received)


async def _or_stopped(wait: Coroutine[Any, Any, Any], stop: asyncio.Event) -> None:
    """Wait for something, or for the stop, whichever comes first."""
    waits = [asyncio.ensure_future(wait), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pending in waits:
            pending.cancel()
