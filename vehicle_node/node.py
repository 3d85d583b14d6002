"""The process of a vehicle: it makes tasks, decides where they run, and gives each exactly one ending.

    camera -> journal -> guard(policy) -> a node's inbox -> ACK | Reject -> Result -> Outcome
                                      \\-> narrator, at once where the vehicle itself is chosen, or when time is short

The vehicle is the one place that remembers a task. Whatever happens to nodes or network, a timer of the task's own
lets the narrator speak just before the deadline; what comes later is counted and never shown.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from ..bus import topics
from ..bus.errors import LogError, OutboxFull, RunError
from ..bus.messages import Accepted, Load, NodeState, Result
from ..bus.process import READY, Health
from ..bus.transport import Bus, Subscription
from ..policy.candidates import NodeView, build_candidates
from ..policy.guard import Guard
from ..policy.registry import PolicyOptions, make_policy
from ..policy.utility import UtilityModel
from ..qos.journal import Journal
from .configuration import VehicleConfiguration
from .endings import Ending, answered, narrated, outcome_of
from .nodes import NodeTable
from .scenes import Camera, open_camera
from .schedule import Arrival, arrivals
from .task_run import TaskRun

log = structlog.get_logger()

_HEARTBEAT_S = 1.0
_FIRST_STATES_S = 1.0  # how long to wait for the nodes' retained states before the first task


async def run(configuration: VehicleConfiguration, stop: asyncio.Event) -> None:
    """Replay the log until `duration_s` is over or `stop` is set; return when every task has ended."""
    camera = open_camera(configuration)
    policy = make_policy(configuration.policy, PolicyOptions(place=configuration.place, seed=configuration.seed))
    name = configuration.name
    will = NodeState(node=name, role="vehicle", alive=False)
    with Journal(Path(configuration.journal), name) as journal:
        for entry in journal.close_out():
            log.warning("expired while the vehicle was down", task_id=entry.task_id)
        async with Bus(
            url=configuration.broker, fleet=configuration.fleet, name=name, will=(topics.VEHICLE_STATE, will)
        ) as bus:
            vehicle = Vehicle(configuration, bus=bus, journal=journal, camera=camera, guard=Guard(policy))
            await vehicle.run(stop)


class Vehicle:
    """Everything below runs on the event loop; only the camera has a thread of its own."""

    def __init__(
        self, configuration: VehicleConfiguration, *, bus: Bus, journal: Journal, camera: Camera, guard: Guard
    ) -> None:
        self._configuration = configuration
        self._name = configuration.name
        self._bus = bus
        self._journal = journal
        self._guard = guard
        self._utility = UtilityModel()
        self._camera = camera
        self._nodes = NodeTable()
        self._open: dict[str, TaskRun] = {}
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._health = Health()
        # What a policy needs to know of the own place never changes. The narrator never names a reason, and every
        # kind asks for one: it has no quality to state.
        own_place = NodeState(node=self._name, role="vehicle", alive=True, places=("vehicle",), model="narrator")
        self._own_view = NodeView(state=own_place, age_ms=0.0, unreported=0, network_ms=0.0)
        self.counters: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        states = self._bus.subscribe(topics.NODE_STATE, limit=1024)
        acks = self._bus.subscribe(topics.ACK, limit=4096, vehicle=self._name)
        results = self._bus.subscribe(topics.RESULT, limit=4096, vehicle=self._name)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._health.watch_event_loop()),
                group.create_task(self._heartbeat()),
                group.create_task(self._hear_states(states)),
                group.create_task(self._hear_acks(acks)),
                group.create_task(self._hear_results(results)),
            ]
            for subscription in (states, acks, results):
                await subscription.active.wait()
            log.info(READY, vehicle=self._name)
            await _or_stopped(asyncio.sleep(_FIRST_STATES_S), stop)
            await self._drive(group, stop)
            await self._all_ended.wait()
            for task in background:
                task.cancel()
        self._camera.close()
        # Posted, not awaited: closing the bus sends what waits, and gives up where the broker is gone.
        self._bus.post(topics.VEHICLE_STATE, self._state(alive=False), vehicle=self._name)

    async def _drive(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        """Create the scheduled tasks; returns when the schedule is over or the vehicle is told to stop."""
        started_s = time.monotonic()
        schedule = arrivals(
            seed=self._configuration.seed,
            vehicle=self._name,
            rate_hz=self._configuration.rate_hz,
            duration_s=self._configuration.duration_s,
        )
        creating: set[asyncio.Task[None]] = set()
        for number, arrival in enumerate(schedule, start=1):
            await _or_stopped(asyncio.sleep(started_s + arrival.at_s - time.monotonic()), stop)
            if stop.is_set():
                break
            # A restarted vehicle goes on in the same journal, so its tasks need ids of their own.
            task_id = f"{self._name}-{self._bus.boot_id[:6]}-{number:05d}"
            task = group.create_task(self._create(arrival, task_id))
            creating.add(task)
            task.add_done_callback(creating.discard)
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
        task = TaskRun(task_id, arrival.kind, scene, created_s, created_at_s)
        try:
            self._journal.created(task_id, arrival.kind.name, arrival.kind.deadline_ms)
        except RunError as error:
            # What cannot be remembered is not begun: nothing can then be created and lost.
            self.counters["not_created"] += 1
            log.error("task not created", task_id=task_id, error=str(error))
            return
        self.counters["created"] += 1
        self._open[task_id] = task
        self._all_ended.clear()
        speak_s = task.deadline_s - self._configuration.fallback_margin_ms / 1000
        loop = asyncio.get_running_loop()
        # Both clocks are monotonic, but not the same one: only differences carry over.
        loop.call_later(max(0.0, speak_s - time.monotonic()), self._fall_back, task, "no answer in time")
        self._place(task)

    def _place(self, task: TaskRun) -> None:
        if task.ended:
            return
        now_s = time.monotonic()
        facts = task.facts(now_s)
        views = [self._own_view, *self._nodes.views(now_s, refused_by=frozenset(task.refused_by))]
        candidates = build_candidates(facts, views, self._utility, silent_after_ms=self._configuration.silent_after_ms)
        decision = self._guard.decide(facts, candidates)
        chosen = decision.candidates[decision.chosen]
        task.begin_attempt(chosen.node, chosen.place, decision, now_s)
        if chosen.place == "vehicle":
            self._narrate_by_choice(task)
        elif facts.remaining_ms <= self._configuration.fallback_margin_ms:
            self._fall_back(task, "no time left")
        else:
            self._send(task, now_s)

    def _send(self, task: TaskRun, now_s: float) -> None:
        try:
            self._bus.post(topics.TASK, task.message(now_s), node=task.node, vehicle=self._name)
        except OutboxFull:
            self._fall_back(task, "the connection is down")
            return
        self._nodes.sent(task.node, task.task_id)

    def _try_elsewhere(self, task: TaskRun, reason: str) -> None:
        """The current attempt is over, the task is not."""
        self.counters[f"attempt_over.{reason}"] += 1
        task.refused_by.add(task.node)
        self._place(task)

    async def _hear_states(self, states: Subscription) -> None:
        async for received in states:
            state = received.body
            if self._nodes.update_state(state, time.monotonic()):
                log.warning("node is dead", node=state.node)
                for task in [task for task in self._open.values() if task.node == state.node]:
                    self._try_elsewhere(task, "node died")

    async def _hear_acks(self, acks: Subscription) -> None:
        async for received in acks:
            ack, node = received.body, received.names["node"]
            self._heard_of(node, ack.task_id, ack.load)
            task = self._open.get(ack.task_id)
            if task is None or not task.is_current(node, ack.attempt):
                continue
            if isinstance(ack, Accepted):
                task.accepted = True
            else:
                self._try_elsewhere(task, ack.reason)

    async def _hear_results(self, results: Subscription) -> None:
        async for received in results:
            result, node = received.body, received.names["node"]
            self._heard_of(node, result.task_id, result.load)
            task = self._open.get(result.task_id)
            if task is None:
                # The narrator has spoken, or another attempt has answered: the first terminal state stands.
                self.counters["late_answers"] += 1
                continue
            if task.first_answer_ms is None:
                task.first_answer_ms = task.age_ms(time.monotonic())
            if result.final:
                self._finish_with(task, result, node)

    def _heard_of(self, node: str, task_id: str, load: Load) -> None:
        self._nodes.settled(node, task_id)
        self._nodes.update_load(node, load, time.monotonic())

    def _finish_with(self, task: TaskRun, result: Result, node: str) -> None:
        now_s = time.monotonic()
        if task.remaining_ms(now_s) <= 0:
            # The event loop was late, and the answer with it: the timer was due first.
            self.counters["late_answers"] += 1
            self._fall_back(task, "no answer in time")
            return
        timing = result.timing
        on_the_node_ms = timing.queue_ms + timing.inference_ms + timing.context_ms
        network_ms = (now_s - task.sent_s) * 1000 - on_the_node_ms
        # An answer of an earlier attempt is as good; its network time is not known.
        network_ms = max(0.0, network_ms) if task.is_current(node, result.attempt) else 0.0
        if network_ms:
            self._nodes.observe_network(node, network_ms)
        task.accepted = True
        transmit_energy_j = self._utility.transmit_energy_j(len(task.scene.jpeg))
        self._end(task, answered(result, node, network_ms=network_ms, transmit_energy_j=transmit_energy_j))

    def _narrate_by_choice(self, task: TaskRun) -> None:
        """The vehicle's own place: a `result` where it was the first choice, a `fallback` where others had failed."""
        task.accepted = True
        if task.attempt == 1:
            self._end(task, narrated(task, self._name, "result", ""))
        else:
            self._fall_back(task, "refused everywhere")

    def _fall_back(self, task: TaskRun, reason: str) -> None:
        if not task.ended:
            self._end(task, narrated(task, self._name, "fallback", reason))

    def _end(self, task: TaskRun, ending: Ending) -> None:
        """The one place where a task ends: the journal first, then the world."""
        assert not task.ended
        task.ended = True
        del self._open[task.task_id]
        self._nodes.settled(task.node, task.task_id)
        outcome = outcome_of(task, ending, latency_ms=task.age_ms(time.monotonic()))
        self._journal.ended(task.task_id, ending.state)
        self.counters[ending.state] += 1
        try:
            self._bus.post(topics.OUTCOME, outcome, vehicle=self._name)
        except OutboxFull:
            self.counters["unpublished_outcomes"] += 1
        self._guard.observe(outcome)
        if not self._open:
            self._all_ended.set()

    async def _heartbeat(self) -> None:
        while True:
            self._bus.post(topics.VEHICLE_STATE, self._state(alive=True), vehicle=self._name)
            await asyncio.sleep(_HEARTBEAT_S)

    def _state(self, *, alive: bool) -> NodeState:
        return NodeState(
            node=self._name,
            role="vehicle",
            alive=alive,
            places=("vehicle",),
            model="narrator",
            uptime_s=self._health.uptime_s,
            event_loop_lag_ms=self._health.event_loop_lag_ms,
            memory_bytes=self._health.memory_bytes,
            counters={**self.counters, **self._camera.losses, **self._bus.counters, **self._guard.counters},
        )


async def _or_stopped(wait: Coroutine[Any, Any, Any], stop: asyncio.Event) -> None:
    """Wait for something, or for the stop, whichever comes first."""
    waits = [asyncio.ensure_future(wait), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pending in waits:
            pending.cancel()
