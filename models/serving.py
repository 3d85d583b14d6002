"""A node's service loop: tasks in, ACK or Reject at once, answers out. Edge and cloud differ only in their answerer.

The event loop never computes: inference runs on one worker thread, one task at a time, so that two answers never
fight over one core. Every task is admitted or refused the moment it arrives.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import structlog
from msgspec import Meta

from ..bus import topics
from ..bus.configuration import MemberConfiguration
from ..bus.errors import MessageRefused
from ..bus.kinds import KINDS
from ..bus.messages import Accepted, NodeState, Rejected, Result, Role, Task, Timing
from ..bus.process import READY, Health
from ..bus.transport import Bus, Received, Subscription
from .admission import AdmissionQueue, Job
from .images import colour_card_jpeg
from .questions import Answer, Answerer, Question, never

log = structlog.get_logger()


class NodeConfiguration(MemberConfiguration, frozen=True, kw_only=True):
    """What edge and cloud nodes have in common: the keys of their TOML files and the flags of their verbs.

    model: None for the bundled one, a folder, or a Hugging Face id.
    queue_limit: accepted tasks that may wait; more are refused with reason "full".
    slot_power_w: electric power of the busy slot; a task's energy is modelled as power times inference time.
    heartbeat_s: seconds between two reports of the node's state.
    """

    model: str | None = None
    queue_limit: Annotated[int, Meta(ge=1, le=10_000)] = 16
    slot_power_w: Annotated[float, Meta(ge=0)] = 50.0
    heartbeat_s: Annotated[float, Meta(gt=0, le=10)] = 0.5


async def serve(
    configuration: NodeConfiguration, role: Role, make_answerer: Callable[[str | None], Answerer], stop: asyncio.Event
) -> None:
    """A node's whole life: load the model, join the bus, answer tasks until `stop` is set."""
    # Loading takes seconds and must not keep a signal from being heard.
    answerer = await asyncio.to_thread(make_answerer, configuration.model)
    name = configuration.name
    will = NodeState(node=name, role=role, alive=False)
    async with Bus(
        url=configuration.broker, fleet=configuration.fleet, name=name, will=(topics.NODE_STATE, will)
    ) as bus:
        await TaskServer(bus=bus, role=role, configuration=configuration, answerer=answerer).run(stop)


class TaskServer:
    """Serves one answerer over the bus until told to stop."""

    def __init__(self, *, bus: Bus, role: Role, configuration: NodeConfiguration, answerer: Answerer) -> None:
        self._bus = bus
        self._role: Role = role
        self._name = configuration.name
        self._answerer = answerer
        self._slot_power_w = configuration.slot_power_w
        self._heartbeat_s = configuration.heartbeat_s
        # The inbox only bridges moments in which the loop is late: admission empties it at once.
        self._inbox_limit = configuration.queue_limit * 2
        self._queue = AdmissionQueue(limit=configuration.queue_limit)
        self._work_arrived = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._health = Health()
        self.counters: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Announce the node, serve until `stop` is set, then finish what was accepted and say goodbye."""
        await self._warm_up()
        inbox = self._bus.subscribe(
            topics.TASK, limit=self._inbox_limit, on_overflow=self._refuse_overflow, node=self._name
        )
        await inbox.active.wait()  # whoever reads the announcement may send a task at once
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._health.watch_event_loop()),
                group.create_task(self._heartbeat()),
                group.create_task(self._receive(inbox)),
            ]
            worker = group.create_task(self._work())
            log.info(READY, node=self._name, model=self._answerer.model, model_hash=self._answerer.model_hash)
            await stop.wait()
            self._queue.closed = True
            self._work_arrived.set()
            await worker
            for task in background:
                task.cancel()
        self._worker.shutdown()
        # Posted, not awaited: closing the bus sends what waits, and gives up where the broker is gone.
        self._bus.post(topics.NODE_STATE, self._state(alive=False), node=self._name)

    async def _warm_up(self) -> None:
        """Answer one question of each kind before announcing, so that the first estimate is a measured one."""
        for kind in KINDS.values():
            question = Question(prompt=kind.prompt, frames=(colour_card_jpeg(),))
            await self._compute(question, never)  # the first pass pays for lazy initialisation
            started_s = time.monotonic()
            await self._compute(question, never)
            self._queue.service.observe(self._answerer.place, kind.name, (time.monotonic() - started_s) * 1000)

    async def _receive(self, inbox: Subscription) -> None:
        async for received in inbox:
            self._take(received.names["vehicle"], received.body)

    def _take(self, vehicle: str, task: Task) -> None:
        if (known := self._queue.known(vehicle, task)) is not None:
            self.counters["resent"] += 1
            self._accept(known)
            if known.result is not None:
                self._send(known, known.result)
            return
        admitted = self._queue.admit(vehicle, task, time.monotonic())
        if isinstance(admitted, str):
            self._reject(vehicle, task, admitted)
            return
        self._accept(admitted)
        self._work_arrived.set()

    def _refuse_overflow(self, received: Received) -> None:
        self._reject(received.names["vehicle"], received.body, "full")

    async def _work(self) -> None:
        while True:
            job = self._queue.start_next(time.monotonic())
            if job is not None:
                self._queue.finish(await self._answer(job))
            elif self._queue.closed:
                return
            else:
                self._work_arrived.clear()
                await self._work_arrived.wait()

    async def _answer(self, job: Job) -> float | None:
        """Returns the inference time in milliseconds, or None where no answer came of it."""
        if job.started_s >= job.deadline_s:
            # Its vehicle has already fallen back; computing it now would only delay the others.
            self.counters["expired_in_queue"] += 1
            return None
        task = job.task
        question = Question(
            prompt=task.prompt,
            frames=task.frames,
            telemetry=task.telemetry,
            max_tokens=task.max_tokens,
            exit_thresholds=task.exit_thresholds,
        )
        try:
            answer = await self._compute(question, lambda: time.monotonic() >= job.deadline_s)
        except MessageRefused as refusal:
            self._reject(job.vehicle, task, refusal.reason)
            return None
        if answer.cancelled:
            self.counters["cancelled_at_deadline"] += 1
            return None
        self.counters["answered"] += 1
        inference_ms = (time.monotonic() - job.started_s) * 1000
        job.result = self._result(job, answer, inference_ms)
        self._send(job, job.result)
        return inference_ms

    async def _compute(self, question: Question, cancelled: Callable[[], bool]) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._answerer.answer, question, cancelled)

    def _result(self, job: Job, answer: Answer, inference_ms: float) -> Result:
        return Result(
            task_id=job.task.task_id,
            attempt=job.task.attempt,
            final=True,
            text=answer.text,
            place=self._answerer.place,
            mode=self._answerer.mode,
            model=self._answerer.model,
            made_by=answer.made_by,
            confidence=answer.confidence,
            timing=Timing(queue_ms=(job.started_s - job.arrived_s) * 1000, inference_ms=inference_ms),
            energy_j=self._slot_power_w * inference_ms / 1000,
            energy_method="modelled",
            load=self._queue.load(time.monotonic()),
        )

    def _send(self, job: Job, result: Result) -> None:
        self._bus.post(topics.RESULT, result, vehicle=job.vehicle, node=self._name)

    def _accept(self, job: Job) -> None:
        message = Accepted(task_id=job.task.task_id, attempt=job.task.attempt, load=self._queue.load(time.monotonic()))
        self._bus.post(topics.ACK, message, vehicle=job.vehicle, node=self._name)

    def _reject(self, vehicle: str, task: Task, reason: str) -> None:
        self.counters[f"rejected.{reason}"] += 1
        load = self._queue.load(time.monotonic())
        message = Rejected(
            task_id=task.task_id, attempt=task.attempt, reason=reason, retry_after_ms=load.wait_ms, load=load
        )
        self._bus.post(topics.ACK, message, vehicle=vehicle, node=self._name)

    async def _heartbeat(self) -> None:
        while True:
            self._bus.post(topics.NODE_STATE, self._state(alive=True), node=self._name)
            await asyncio.sleep(self._heartbeat_s)

    def _state(self, *, alive: bool) -> NodeState:
        return NodeState(
            node=self._name,
            role=self._role,
            alive=alive,
            places=(self._answerer.place,),
            model=self._answerer.model,
            model_hash=self._answerer.model_hash,
            load=self._queue.load(time.monotonic()),
            quality={self._answerer.place: self._answerer.quality},
            slot_power_w=self._slot_power_w,
            uptime_s=self._health.uptime_s,
            event_loop_lag_ms=self._health.event_loop_lag_ms,
            memory_bytes=self._health.memory_bytes,
            counters={**self.counters, **self._bus.counters},
        )
