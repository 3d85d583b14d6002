"""Which tasks a node takes, in which order, and what it predicts of the wait. Pure state: no clock, no network."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from ..bus.messages import Load, Result, Task
from ..bus.places import Place

_REMEMBERED_JOBS = 1024
_SMOOTHING = 0.2


@dataclass(slots=True)
class Job:
    """One accepted attempt of a task. number: in the order of arrival. Times: seconds of the node's monotonic clock."""

    vehicle: str
    task: Task
    number: int
    arrived_s: float
    started_s: float = 0.0
    result: Result | None = None

    @property
    def deadline_s(self) -> float:
        return self.arrived_s + self.task.remaining_ms / 1000


@dataclass(slots=True)
class ServiceTimes:
    """Exponentially smoothed time from the start of inference to the answer, by place and kind, in milliseconds."""

    by_place: dict[Place, dict[str, float]] = field(default_factory=dict)

    def observe(self, place: Place, kind: str, service_ms: float) -> None:
        by_kind = self.by_place.setdefault(place, {})
        before = by_kind.get(kind, service_ms)
        by_kind[kind] = before + _SMOOTHING * (service_ms - before)

    def expected_ms(self, place: Place, kind: str) -> float:
        """For what was never seen, that of the slowest known: admission errs on the side of refusing."""
        known = self.by_place.get(place, {})
        if kind in known:
            return known[kind]
        return max((each for by_kind in self.by_place.values() for each in by_kind.values()), default=0.0)


class AdmissionQueue:
    """First in, first out.

    limit: accepted tasks that may wait. slots: tasks that are computed side by side. parallel: tasks that may be under
    way at once; more than there are slots pays where answers wait for another tier. Every attempt is remembered for a
    while with its result, so that a task that is sent twice is computed once.
    """

    def __init__(self, *, limit: int, parallel: int = 1, slots: int = 1) -> None:
        self._limit = limit
        self._parallel = parallel
        self._slots = slots
        self._waiting: deque[Job] = deque()
        self._known: OrderedDict[tuple[str, str, int], Job] = OrderedDict()
        self._numbers = itertools.count()
        self.running: list[Job] = []
        self.closed = False
        self.service = ServiceTimes()

    def __len__(self) -> int:
        return len(self._waiting)

    def known(self, vehicle: str, task: Task) -> Job | None:
        """The job of an attempt that was accepted before."""
        return self._known.get((vehicle, task.task_id, task.attempt))

    def admit(self, vehicle: str, task: Task, now_s: float) -> Job | str:
        """Take the task, or say in a word why not: "stopping", "full" or "deadline"."""
        if self.closed:
            return "stopping"
        if len(self._waiting) >= self._limit:
            return "full"
        if self.wait_ms(now_s) + self.service.expected_ms(task.place, task.kind) > task.remaining_ms:
            return "deadline"
        job = Job(vehicle, task, next(self._numbers), now_s)
        self._waiting.append(job)
        self._known[vehicle, task.task_id, task.attempt] = job
        if len(self._known) > _REMEMBERED_JOBS:
            self._known.popitem(last=False)
        return job

    def start_next(self, now_s: float) -> Job | None:
        """Let the oldest waiting job begin, if one may. It may have expired meanwhile: the caller looks."""
        if not self._waiting or len(self.running) >= self._parallel:
            return None
        job = self._waiting.popleft()
        job.started_s = now_s
        self.running.append(job)
        return job

    def finish(self, job: Job, place: Place, service_ms: float | None) -> None:
        """A job is over, realised at `place`; service_ms is None where nothing was computed to the end."""
        self.running.remove(job)
        if service_ms is not None:
            self.service.observe(place, job.task.kind, service_ms)

    def wait_ms(self, now_s: float) -> float:
        """How long a task that arrived now would wait for a slot, behind those under way and all that wait already."""
        ahead_ms = [max(0.0, self._expected_ms(job) - (now_s - job.started_s) * 1000) for job in self.running]
        ahead_ms += [self._expected_ms(job) for job in self._waiting]
        free_in_ms = [0.0] * self._slots
        for each_ms in ahead_ms:
            heapq.heapreplace(free_in_ms, free_in_ms[0] + each_ms)
        return free_in_ms[0]

    def _expected_ms(self, job: Job) -> float:
        return self.service.expected_ms(job.task.place, job.task.kind)

    def load(self, now_s: float) -> Load:
        return Load(
            queued=len(self._waiting),
            running=len(self.running),
            slots=self._slots,
            wait_ms=self.wait_ms(now_s),
            service_ms={place: dict(by_kind) for place, by_kind in self.service.by_place.items()},
        )
