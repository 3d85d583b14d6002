"""A node's service loop: tasks in, ACK or Reject at once, answers out.

Nodes differ in where their answers come from (their runner), and in what they do for each other beside it (their
companion).

The event loop never computes: inference runs on one worker thread, or elsewhere. Every task is admitted or refused the
moment it arrives.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import structlog
from msgspec import Meta

from ..bus import topics
from ..bus.configuration import MemberConfiguration
from ..bus.errors import BackendError, MessageRefused, OutboxFull
from ..bus.history import NO_HISTORY, History
from ..bus.kinds import KINDS
from ..bus.message_log import MessageLog
from ..bus.messages import Accepted, Load, Message, NodeState, Rejected, Result, Role, Task
from ..bus.metrics import node_metrics_served
from ..bus.places import Place
from ..bus.process import READY, Health
from ..bus.transport import Bus, Received, Subscription
from .admission import AdmissionQueue, Job, Refusal
from .companions import CloudLine, Companion, Gauged
from .energy import open_energy_meter
from .inference_worker import InferenceWorker
from .job_runner import Answered, JobRunner
from .local_runner import LocalRunner
from .questions import Answerer

log = structlog.get_logger()

A = TypeVar("A", bound=Answerer)


class NodeConfiguration(MemberConfiguration, frozen=True, kw_only=True):
    """What edge and cloud nodes have in common: the keys of their TOML files and the flags of their verbs.

    model: None for the bundled one, a folder, or a Hugging Face id.
    queue_limit: accepted tasks that may wait; more are refused with reason "full".
    parallel_tasks: tasks that may be under way at once: more than there are slots, while some wait for another tier.
    slot_power_w: electric power of the busy slot; a task's energy is modelled as power times inference time.
    heartbeat_s: seconds between two reports of the node's state.
    stream_interval_ms: the first words of an answer that takes longer are sent at most so often; None: never.
    """

    model: str | None = None
    queue_limit: Annotated[int, Meta(ge=1, le=10_000)] = 16
    parallel_tasks: Annotated[int, Meta(ge=1, le=64)] = 1
    slot_power_w: Annotated[float, Meta(ge=0)] = 50.0
    heartbeat_s: Annotated[float, Meta(gt=0, le=10)] = 0.5
    stream_interval_ms: Annotated[float, Meta(gt=0, le=60_000)] | None = 50.0


async def serve(
    configuration: NodeConfiguration,
    role: Role,
    make_answerer: Callable[[], A],
    make_companion: Callable[[Bus, A, InferenceWorker], Companion | None] | None,
    stop: asyncio.Event,
) -> None:
    """The whole life of a node with a model of its own: load it, join the bus, answer tasks until `stop` is set."""
    # Loading takes seconds and must not keep a signal from being heard.
    answerer = await asyncio.to_thread(make_answerer)
    worker = InferenceWorker()

    def attach(bus: Bus) -> tuple[JobRunner, Companion | None]:
        companion = make_companion(bus, answerer, worker) if make_companion is not None else None
        cloud_line = companion if isinstance(companion, CloudLine) else None
        runner = LocalRunner(
            answerer,
            worker,
            cloud_line=cloud_line,
            slot_power_w=configuration.slot_power_w,
            meter=open_energy_meter(configuration.slot_power_w),
            stream_interval_ms=configuration.stream_interval_ms,
        )
        return runner, companion

    try:
        await serve_jobs(configuration, role, attach, stop)
    finally:
        worker.close()


async def serve_jobs(
    configuration: NodeConfiguration,
    role: Role,
    attach: Callable[[Bus], tuple[JobRunner, Companion | None]],
    stop: asyncio.Event,
) -> None:
    """Join the bus and answer tasks until `stop` is set. attach: what a node on this bus answers with."""
    will = NodeState(node=configuration.name, role=role, alive=False)
    async with Bus(
        url=configuration.broker,
        fleet=configuration.fleet,
        name=configuration.name,
        tls=configuration.tls,
        will=(topics.NODE_STATE, will),
    ) as bus:
        bus.tap = MessageLog.of_process(role, configuration, bus.boot_id)
        runner, companion = attach(bus)
        history = History.of_process(configuration.name)
        history.begin()
        server = TaskServer(
            bus=bus, role=role, configuration=configuration, runner=runner, companion=companion, history=history
        )
        gauges = companion.gauges if isinstance(companion, Gauged) else dict
        async with node_metrics_served(configuration, server.state, gauges=gauges):
            await server.run(stop)


class TaskServer:
    """Serves what one runner answers over the bus until told to stop."""

    def __init__(
        self,
        *,
        bus: Bus,
        role: Role,
        configuration: NodeConfiguration,
        runner: JobRunner,
        companion: Companion | None = None,
        history: History = NO_HISTORY,
    ) -> None:
        self._bus = bus
        self._history = history
        self._role: Role = role
        self._name = configuration.name
        self._heartbeat_s = configuration.heartbeat_s
        # The inbox only bridges moments in which the loop is late: admission empties it at once.
        self._inbox_limit = configuration.queue_limit * 2
        self._queue = AdmissionQueue(
            limit=configuration.queue_limit,
            parallel=max(configuration.parallel_tasks, runner.slots),
            slots=runner.slots,
        )
        self._work_changed = asyncio.Event()
        self._companion = companion
        self._runner = runner
        self._health = Health()
        self.counters: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Announce the node, serve until `stop` is set, then finish what was accepted and say goodbye."""
        await self._warm_up(self._runner.places[0])
        inbox = self._bus.subscribe(
            topics.TASK, limit=self._inbox_limit, on_overflow=self._refuse_overflow, node=self._name
        )
        await inbox.active.wait()  # whoever reads the announcement may send a task at once
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._health.watch_event_loop()),
                group.create_task(self._receive(inbox)),
            ]
            if self._companion is not None:
                background.append(group.create_task(self._companion.run()))
                await self._companion.active.wait()
            background.append(group.create_task(self._heartbeat()))
            background.append(group.create_task(self._try_the_cloud()))
            working = group.create_task(self._work(group))
            log.info(READY, node=self._name, model=self._runner.model, model_hash=self._runner.model_hash)
            await stop.wait()
            self._queue.closed = True
            self._work_changed.set()
            await working
            for task in background:
                task.cancel()
        # Posted, not awaited: closing the bus sends what waits, and gives up where the broker is gone.
        self._bus.post(topics.NODE_STATE, self.state(alive=False), node=self._name)

    async def _warm_up(self, place: Place) -> None:
        """Answer one question of each kind before announcing a place, so that its first estimate is a measured one."""
        for kind in KINDS.values():
            if (took_ms := await self._runner.try_out(kind, place)) is None:
                return
            self._queue.service.observe(place, kind.name, took_ms)

    async def _try_the_cloud(self) -> None:
        """Once a cloud is there, measure what answering with it takes; until then the place is not announced."""
        place: Place = "edge+cloud"
        while place in self._runner.places and place not in self._queue.service.by_place:
            if self._runner.can_answer_at(place):
                await self._warm_up(place)
            await asyncio.sleep(self._heartbeat_s)

    async def _receive(self, inbox: Subscription) -> None:
        async for received in inbox:
            self._take(received.names["vehicle"], received.body)

    def _take(self, vehicle: str, task: Task) -> None:
        self._history.note("task.received", **_whose(vehicle, task), remaining_ms=task.remaining_ms)
        if (known := self._queue.known(vehicle, task)) is not None:
            self.counters["resent"] += 1
            self._accept(known)
            if known.result is not None:
                self._send(known, known.result)
            return
        admitted = self._queue.admit(vehicle, task, time.monotonic())
        if isinstance(admitted, Refusal):
            self._reject(vehicle, task, admitted.reason, admitted.retry_after_ms)
            return
        self._accept(admitted.job)
        self._history.note("task.admitted", **_whose(vehicle, task))
        log.debug("accepted", place=task.place, queued=len(self._queue), **_told(vehicle, task))
        for job, refusal in admitted.displaced:
            self.counters["displaced"] += 1
            self._reject(job.vehicle, job.task, refusal.reason, refusal.retry_after_ms)
        self._work_changed.set()

    def _refuse_overflow(self, received: Received) -> None:
        vehicle = received.names["vehicle"]
        wait_ms = self._queue.wait_ms(time.monotonic(), vehicle=vehicle)
        self._reject(vehicle, received.body, "full", retry_after_ms=wait_ms)

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            job = self._queue.start_next(time.monotonic())
            if job is not None:
                group.create_task(self._finish(job))
            elif self._queue.closed and not self._queue.running:
                return
            else:
                self._work_changed.clear()
                await self._work_changed.wait()

    async def _finish(self, job: Job) -> None:
        result = await self._answer(job)
        self._history.note("job.ended", **_whose(job.vehicle, job.task), answered=result is not None)
        now_s = time.monotonic()
        if result is not None:
            self._queue.answered(job, result.place, now_s)
            self.counters["answered"] += 1
            log.debug(
                "answered",
                place=result.place,
                service_ms=round((now_s - job.started_s) * 1000, 1),
                **_told(job.vehicle, job.task),
            )
            job.result = result
            self._send(job, result)
        self._queue.finish(job, job.slot_ms(now_s))
        self._work_changed.set()

    async def _answer(self, job: Job) -> Result | None:
        """None where no answer came of it."""
        if job.started_s >= job.deadline_s:
            # Its vehicle has already fallen back; computing it now would only delay the others.
            self.counters["expired_in_queue"] += 1
            log.debug("expired in the queue", **_told(job.vehicle, job.task))
            return None
        if (refusal := self._queue.give_up(job, job.started_s)) is not None:
            self._reject(job.vehicle, job.task, refusal.reason, refusal.retry_after_ms)
            return None
        log.debug("started", **_told(job.vehicle, job.task))
        self._history.note("computing.began", **_whose(job.vehicle, job.task), deadline_s=job.deadline_s)
        try:
            answered = await self._runner.answer(
                job,
                lambda draft: self._send(job, self._result(job, draft, final=False)),
                lambda waits: self._free_slot(job, waits),
            )
        except (MessageRefused, BackendError) as refusal:
            log.debug("not answered", why=str(refusal), **_told(job.vehicle, job.task))
            self._reject(job.vehicle, job.task, refusal.reason)
            return None
        if answered is None:
            self._queue.broken_off(job, time.monotonic())
            self.counters["cancelled_at_deadline"] += 1
            log.debug("cancelled at its deadline", **_told(job.vehicle, job.task))
            return None
        return self._result(job, answered, final=True)

    def _free_slot(self, job: Job, waits: bool) -> None:
        """While a job waits for another tier the next one may begin."""
        if waits:
            self._queue.wait_for_others(job, time.monotonic())
            self._work_changed.set()
        else:
            self._queue.go_on(job, time.monotonic())

    def _result(self, job: Job, answered: Answered, *, final: bool) -> Result:
        return Result(
            task_id=job.task.task_id,
            attempt=job.task.attempt,
            final=final,
            text=answered.text,
            place=answered.place,
            mode=answered.mode,
            model=self._runner.model,
            made_by=answered.made_by,
            confidence=answered.confidence,
            timing=answered.timing,
            energy_j=answered.energy_j,
            energy_method=answered.energy_method,
            load=self._load(job.vehicle),
            context=answered.context,
            is_whole=answered.is_whole,
        )

    def _send(self, job: Job, result: Result) -> None:
        self._post(topics.RESULT, result, job.vehicle)
        self._history.note(
            "answer.published", **_whose(job.vehicle, job.task), final=result.final, whole=result.is_whole
        )

    def _accept(self, job: Job) -> None:
        message = Accepted(task_id=job.task.task_id, attempt=job.task.attempt, load=self._load(job.vehicle))
        self._post(topics.ACK, message, job.vehicle)

    def _reject(self, vehicle: str, task: Task, reason: str, retry_after_ms: float = 0.0) -> None:
        """Posted at once: it overtakes every answer that is still to be computed."""
        self.counters[f"rejected.{reason}"] += 1
        self._history.note("task.rejected", **_whose(vehicle, task), reason=reason)
        log.debug("rejected", reason=reason, **_told(vehicle, task))
        message = Rejected(
            task_id=task.task_id,
            attempt=task.attempt,
            reason=reason,
            retry_after_ms=retry_after_ms,
            load=self._load(vehicle),
        )
        self._post(topics.ACK, message, vehicle)

    def _post(self, topic: topics.Topic, message: Message, vehicle: str) -> None:
        """Where a slow link lets no more out, what was to be said is said when the vehicle asks again."""
        try:
            self._bus.post(topic, message, vehicle=vehicle, node=self._name)
        except OutboxFull:
            self.counters["held_back"] += 1

    def _load(self, vehicle: str) -> Load:
        """As a vehicle's next task would find it."""
        return self._queue.load(time.monotonic(), vehicle=vehicle)

    async def _heartbeat(self) -> None:
        while True:
            self._bus.post(topics.NODE_STATE, self.state(alive=True), node=self._name)
            await asyncio.sleep(self._heartbeat_s)

    def state(self, *, alive: bool = True) -> NodeState:
        """The node as it sees itself now."""
        return NodeState(
            node=self._name,
            role=self._role,
            alive=alive,
            places=self._places() if alive else (),
            model=self._runner.model,
            model_hash=self._runner.model_hash,
            load=self._queue.load(time.monotonic()),
            quality=self._runner.quality,
            slot_power_w=self._runner.slot_power_w,
            grants_leases=alive and self._role == "cloud" and self._companion is not None,
            uptime_s=self._health.uptime_s,
            event_loop_lag_ms=self._health.event_loop_lag_ms,
            memory_bytes=self._health.memory_bytes,
            counters=self._every_counter(),
        )

    def _every_counter(self) -> Counter[str]:
        """What is counted by one name in two places is added up."""
        counters = Counter(self.counters)
        counters.update(self._runner.counters)
        counters.update(self._bus.counters)
        if self._companion is not None:
            counters.update(self._companion.counters)
        return counters

    def _places(self) -> tuple[Place, ...]:
        """Where a task sent here may be realised now and what that takes was measured."""
        measured = self._queue.service.by_place
        return tuple(place for place in self._runner.places if place in measured and self._runner.can_answer_at(place))


def _whose(vehicle: str, task: Task) -> dict[str, Any]:
    """What every event of a history about a task says of it."""
    return {"vehicle": vehicle, "task": task.task_id, "attempt": task.attempt}


def _told(vehicle: str, task: Task) -> dict[str, Any]:
    """What every log line about a task says of it."""
    return {"vehicle": vehicle, "task_id": task.task_id, "attempt": task.attempt, "kind": task.kind}
