"""Which tasks a node takes, in which order, and what it predicts of the wait. Pure state: no clock, no network.

    admit     by prediction: taken is what will, by nine chances in ten, be answered before its deadline, given what is
              under way, what would be served before it (fair_lines.py) and how long such answers take here
              (service_times.py); everything else is refused at once, while another node may still have time for it
    displace  what was taken and has become hopeless since, because tasks of vehicles with shorter lines came before it,
              is refused then, not when its time is over
    push out  where the queue is full, the longest line gives way: one vehicle may fill the queue as long as no other
              wants a place in it, and no longer

Refusing at the door by predicted delay, not by a queue's length alone, is what keeps goodput up under overload (M.
Welsh and D. Culler, "Adaptive overload control for busy Internet servers", USITS 2003).
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from ..bus.messages import Load, Result, Task
from ..bus.places import Place
from .fair_lines import FairLines
from .service_times import ServiceTimes, Spread

_REMEMBERED_JOBS = 1024
# Standard deviations: a job is taken with nine chances in ten of being in time, and given up with less than one.
_LIKELY = 1.28
_HOPELESS = -1.28
# An idle node takes what its experience speaks against now and then: refusing it for ever would be learning nothing.
_TRIAL_INTERVAL_S = 3.0
# Names are never empty.
_NOBODY = ""

RefusalReason: TypeAlias = Literal["stopping", "full", "deadline"]


@dataclass(slots=True, eq=False)
class Job:
    """One accepted attempt of a task. number: in the order of arrival. Times: seconds of the node's monotonic clock.

    away_since_s: since when it has been waiting for another tier, with its slot free for others; None: it does not.
    away_s: how long it has waited so before.
    """

    vehicle: str
    task: Task
    number: int
    arrived_s: float
    started_s: float = 0.0
    away_since_s: float | None = None
    away_s: float = 0.0
    result: Result | None = None
    # Of its line's tag when it was started, in milliseconds.
    charged_ms: float = 0.0
    # Taken to see whether experience is still right.
    is_trial: bool = False

    @property
    def deadline_s(self) -> float:
        return self.arrived_s + self.task.remaining_ms / 1000

    def slot_ms(self, now_s: float) -> float:
        """How long a job that was started has had a slot until now."""
        away_s = self.away_s + (0.0 if self.away_since_s is None else now_s - self.away_since_s)
        return (now_s - self.started_s - away_s) * 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """reason: "stopping"; "full"; "deadline", which it would miss.

    retry_after_ms: when asking again makes sense. Of a full queue, when its next task will have begun, as predicted. Of
    "deadline", the rest of the task's time: what would be late from now on would be as late from any later moment on,
    since waiting shortens the line and the time alike.
    """

    reason: RefusalReason
    retry_after_ms: float


@dataclass(frozen=True, slots=True)
class Admission:
    """The job that was taken, and those that are no longer: each is to be refused now, for its own reason."""

    job: Job
    displaced: tuple[tuple[Job, Refusal], ...] = ()


@dataclass(slots=True)
class _Forecast:
    """Of the queue as it would be served if nothing more came. starts: of each job, milliseconds from now."""

    starts: dict[int, Spread] = field(default_factory=dict)
    hopeless: list[Job] = field(default_factory=list)
    first_start_ms: float = 0.0


class AdmissionQueue:
    """limit: accepted tasks that may wait. slots: tasks that are computed side by side. parallel: tasks that may be
    under way at once, where more than there are slots is of use only because some wait for another tier meanwhile: a
    task begins when a slot is free, since what has begun is served in the order of arrival, and no later hazard and no
    vehicle with a better right can come before it. Every attempt is remembered for a while with its result, so that a
    task that is sent twice is computed once.

    service: from an answer's start to its end, as vehicles are told. slot_times: how much of that it has a slot for;
    where nothing was learnt of that yet, all of it.
    """

    def __init__(self, *, limit: int, parallel: int = 1, slots: int = 1) -> None:
        self._limit = limit
        self._parallel = parallel
        self._slots = slots
        self._waiting: FairLines[Job] = FairLines(lambda job: self._slot_time(job).mean_ms)
        self._known: OrderedDict[tuple[str, str, int], Job] = OrderedDict()
        self._numbers = itertools.count()
        self._last_trial_s = float("-inf")
        self.running: list[Job] = []
        self.closed = False
        self.service = ServiceTimes()
        self.slot_times = ServiceTimes()

    def __len__(self) -> int:
        return len(self._waiting)

    def known(self, vehicle: str, task: Task) -> Job | None:
        """The job of an attempt that was accepted before."""
        return self._known.get((vehicle, task.task_id, task.attempt))

    def admit(self, vehicle: str, task: Task, now_s: float) -> Admission | Refusal:
        """Take the task, or say why not."""
        if self.closed:
            return Refusal("stopping", 0.0)
        job = Job(vehicle, task, next(self._numbers), now_s)
        pushed_out = None
        if len(self) >= self._limit and (pushed_out := self._waiting.gives_way_to(job)) is None:
            return Refusal("full", self._forecast(now_s).first_start_ms)
        forecast = self._forecast(now_s, also=job, without=pushed_out)
        start = forecast.starts.get(job.number)
        if start is None or not self._likely(job, start, now_s):
            if not self._may_try(job, now_s):
                return _too_late(job, now_s)
            job.is_trial = True
        self._waiting.add(job)
        self._remember(job)
        displaced: list[tuple[Job, Refusal]] = []
        if pushed_out is not None:
            displaced.append((pushed_out, Refusal("full", forecast.first_start_ms)))
        displaced += [(each, _too_late(each, now_s)) for each in forecast.hopeless if each is not job]
        for each, _ in displaced:
            self._waiting.remove(each)
            self._forget(each)
        return Admission(job, tuple(displaced))

    def start_next(self, now_s: float) -> Job | None:
        """Let the job whose turn it is begin, if one may. The caller asks whether to give it up."""
        in_slots = sum(job.away_since_s is None for job in self.running)
        if not len(self._waiting) or in_slots >= self._slots or len(self.running) >= self._parallel:
            return None
        job = self._waiting.pop()
        job.started_s = now_s
        job.charged_ms = self._slot_time(job).mean_ms
        self.running.append(job)
        return job

    def wait_for_others(self, job: Job, now_s: float) -> None:
        """A job that was started waits for another tier, and its slot is free."""
        job.away_since_s = now_s

    def go_on(self, job: Job, now_s: float) -> None:
        """It has waited, and goes on ahead of all that began later."""
        if job.away_since_s is not None:
            job.away_s += now_s - job.away_since_s
            job.away_since_s = None

    def give_up(self, job: Job, now_s: float) -> Refusal | None:
        """Why a job that could begin now is not to be computed: it has hardly a chance of being answered in time."""
        hopeless = self._expected(job).quantile_ms(_HOPELESS) > (job.deadline_s - now_s) * 1000
        return _too_late(job, now_s) if hopeless and not job.is_trial else None

    def answered(self, job: Job, place: Place, now_s: float) -> None:
        """Learn from a job that was answered there just now."""
        self.service.observe(place, job.task.kind, (now_s - job.started_s) * 1000)
        self.slot_times.observe(place, job.task.kind, job.slot_ms(now_s))

    def broken_off(self, job: Job, now_s: float) -> None:
        """Learn from a job that was not answered by its deadline."""
        place, kind = job.task.place, job.task.kind
        self.service.observe_at_least(place, kind, (now_s - job.started_s) * 1000)
        self.slot_times.observe_at_least(place, kind, job.slot_ms(now_s))

    def finish(self, job: Job, slot_ms: float) -> None:
        """A job that was started is over, having had a slot for so long."""
        self.running.remove(job)
        self._waiting.settle(job.vehicle, slot_ms - job.charged_ms)
        # Remembered for its result alone; a thousand pictures are a lot of memory.
        job.task = msgspec.structs.replace(job.task, frames=())
        if not self.running and not len(self._waiting):
            self._waiting.rest()

    def wait_ms(self, now_s: float, *, vehicle: str | None = None) -> float:
        """How long a vehicle's next task, if it arrived now, would wait for a slot: behind what is under way, its own
        that wait already, and what would be served before it of others' lines. None: of a vehicle that has none here.
        """
        free = self._slots_free(now_s)
        for job in self._waiting.before_next_of(vehicle or _NOBODY):
            heapq.heapreplace(free, _later(free[0], self._slot_time(job)))
        return free[0][0]

    def load(self, now_s: float, *, vehicle: str | None = None) -> Load:
        """As a vehicle's next task would find it; None: that of one that has none here."""
        return Load(
            queued=len(self._waiting),
            running=len(self.running),
            slots=self._slots,
            wait_ms=self.wait_ms(now_s, vehicle=vehicle),
            service_ms=self.service.means_ms(),
        )

    def _forecast(self, now_s: float, *, also: Job | None = None, without: Job | None = None) -> _Forecast:
        free = self._slots_free(now_s)
        forecast = _Forecast(first_start_ms=free[0][0])
        for job in self._waiting.in_order(also=also, without=without):
            start = Spread(*free[0])
            if (start + self._expected(job)).quantile_ms(_HOPELESS) > (job.deadline_s - now_s) * 1000:
                # It will not be computed, so it holds up nobody.
                forecast.hopeless.append(job)
                continue
            forecast.starts[job.number] = start
            heapq.heapreplace(free, _later(free[0], self._slot_time(job)))
        return forecast

    def _slots_free(self, now_s: float) -> list[tuple[float, float]]:
        """When each slot will be free of what is under way, as mean and variance in milliseconds; a heap.

        A job that takes longer than expected may end at any moment.
        """
        free = [(0.0, 0.0)] * self._slots
        for job in self.running:
            expected = self._slot_time(job)
            left_ms = max(0.0, expected.mean_ms - job.slot_ms(now_s))
            heapq.heapreplace(free, _later(free[0], Spread(left_ms, expected.variance_ms2)))
        return free

    def _likely(self, job: Job, start: Spread, now_s: float) -> bool:
        return (start + self._expected(job)).quantile_ms(_LIKELY) <= (job.deadline_s - now_s) * 1000

    def _may_try(self, job: Job, now_s: float) -> bool:
        """Of an idle node, where nobody waits: what has an even chance, and now and then what has hardly any."""
        if self.running or len(self._waiting):
            return False
        if self._expected(job).mean_ms <= job.task.remaining_ms:
            return True
        if now_s - self._last_trial_s < _TRIAL_INTERVAL_S:
            return False
        self._last_trial_s = now_s
        return True

    def _expected(self, job: Job) -> Spread:
        return self.service.expected(job.task.place, job.task.kind)

    def _slot_time(self, job: Job) -> Spread:
        return self.slot_times.known(job.task.place, job.task.kind) or self._expected(job)

    def _remember(self, job: Job) -> None:
        """Until its deadline, more or less: nobody asks again for an answer that would be late."""
        while self._known:
            oldest = next(iter(self._known.values()))
            if len(self._known) < _REMEMBERED_JOBS and oldest.deadline_s >= job.arrived_s:
                break
            self._known.popitem(last=False)
        self._known[_key(job)] = job

    def _forget(self, job: Job) -> None:
        self._known.pop(_key(job), None)


def _key(job: Job) -> tuple[str, str, int]:
    return job.vehicle, job.task.task_id, job.task.attempt


def _too_late(job: Job, now_s: float) -> Refusal:
    return Refusal("deadline", max(0.0, (job.deadline_s - now_s) * 1000))


def _later(free: tuple[float, float], work: Spread) -> tuple[float, float]:
    return free[0] + work.mean_ms, free[1] + work.variance_ms2
