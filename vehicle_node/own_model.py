"""A small model of the vehicle's own, where it has one: its queue, its inference thread, and what a policy sees of it.

Whoever starts the vehicle hands the loaded model in (`Answerer`), so that nothing here imports what models are made
of: a vehicle without one starts without torch.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..bus.errors import MessageRefused
from ..bus.kinds import KINDS
from ..bus.messages import NodeState, Task
from ..models.admission import AdmissionQueue, Refusal
from ..models.inference_worker import InferenceWorker
from ..models.job_runner import Answered
from ..models.local_runner import LocalRunner
from ..models.questions import Answerer

# A driver who asks faster than the car can think is better served elsewhere.
_QUEUE_LIMIT = 4


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """The vehicle's own place with the narrator alone.

    What a policy needs to know of it never changes. The narrator never names a reason, and every kind asks for one: it
    has no quality to state.
    """

    vehicle: str

    def state(self) -> NodeState:
        return NodeState(node=self.vehicle, role="vehicle", alive=True, places=("vehicle",), model="narrator")


class OwnModel:
    """The vehicle's own place with a model; the narrator stays what speaks when all else fails.

    power_w: electric power while it computes. Tasks are answered one after the other, the earliest deadline first.
    """

    def __init__(self, vehicle: str, answerer: Answerer, *, power_w: float) -> None:
        self._vehicle = vehicle
        self._worker = InferenceWorker()
        self._runner = LocalRunner(answerer, self._worker, cloud_line=None, slot_power_w=power_w)
        self._queue = AdmissionQueue(limit=_QUEUE_LIMIT)
        # Of the tasks that wait, by their jobs' numbers.
        self._turns: dict[int, asyncio.Future[None]] = {}

    async def warm_up(self) -> None:
        """Answer a question of each kind, so that the first estimate is a measured one."""
        for kind in KINDS.values():
            if (took_ms := await self._runner.try_out(kind, "vehicle")) is not None:
                self._queue.service.observe("vehicle", kind.name, took_ms)

    async def answer(self, task: Task) -> Answered | None:
        """The model's answer; None where the deadline came first.

        Raises MessageRefused at once where the queue is "full" or the answer would come too late ("deadline"), later
        where a more urgent task has made it so, and for a picture that cannot be used.
        """
        admitted = self._queue.admit(self._vehicle, task, time.monotonic())
        if isinstance(admitted, Refusal):
            raise MessageRefused(admitted.reason)
        job = admitted.job
        self._turns[job.number] = turn = asyncio.get_running_loop().create_future()
        for displaced, refusal in admitted.displaced:
            self._turns.pop(displaced.number).set_exception(MessageRefused(refusal.reason))
        self._start_next()
        await turn
        try:
            if job.started_s >= job.deadline_s:
                return None
            answered = await self._runner.answer(job, lambda draft: None, lambda waits: None)
            if answered is not None:
                self._queue.answered(job, "vehicle", time.monotonic())
            else:
                self._queue.broken_off(job, time.monotonic())
            return answered
        finally:
            self._queue.finish(job, job.slot_ms(time.monotonic()))
            self._start_next()

    def _start_next(self) -> None:
        job = self._queue.start_next(time.monotonic())
        if job is None:
            return
        turn = self._turns.pop(job.number)
        if not turn.done():  # else whoever waited was cancelled: the vehicle stops
            turn.set_result(None)

    def state(self) -> NodeState:
        """What a policy needs to know of the place now."""
        return NodeState(
            node=self._vehicle,
            role="vehicle",
            alive=True,
            places=("vehicle",),
            model=self._runner.model,
            model_hash=self._runner.model_hash,
            load=self._queue.load(time.monotonic(), vehicle=self._vehicle),
            quality=self._runner.quality,
            slot_power_w=self._runner.slot_power_w,
        )

    def close(self) -> None:
        """Waits for the answer at hand."""
        self._worker.close()
