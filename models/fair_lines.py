"""Whose turn it is: every vehicle has a line of its own, and no line is served more than its share.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, "Start-time fair queueing", SIGCOMM 1996), with several jobs in
service at once as in SFQ(D) (W. Jin, J. Chase, J. Kaur, "Interposed proportional sharing", SIGMETRICS 2004). A virtual
clock counts work instead of seconds. A line's tag is the work that it has been given, in that clock; the line with the
lowest tag is next, and its tag grows by what the job is predicted to take (and, once it is known, by what it took
beyond that). A line that was empty starts at the clock's present: nobody saves up turns, and nobody pays for turns that
no one else wanted. While two lines wait, the work given to one is at most one job of each ahead of the other's
(theorem 1), however fast either grows.

Within a line the earliest deadline is next, which is optimal for a single owner's jobs as long as all can be met, and
a vehicle's own hazards then overtake its own descriptions.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

_REMEMBERED_DEBTS = 64


class Job(Protocol):
    """number: in the order of arrival. deadline_s: seconds of a monotonic clock."""

    @property
    def vehicle(self) -> str: ...

    @property
    def number(self) -> int: ...

    @property
    def deadline_s(self) -> float: ...


J = TypeVar("J", bound=Job)


@dataclass(slots=True)
class _Line(Generic[J]):
    """jobs: by deadline. tag: of virtual time, in milliseconds of work, at which its next job starts."""

    tag_ms: float
    jobs: list[J] = field(default_factory=list)


class FairLines(Generic[J]):
    """The waiting jobs of all vehicles. work_ms: what a job is predicted to take."""

    def __init__(self, work_ms: Callable[[J], float]) -> None:
        self._work_ms = work_ms
        self._lines: dict[str, _Line[J]] = {}
        self._virtual_ms = 0.0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, job: J) -> None:
        line = self._lines.setdefault(job.vehicle, _Line(self._virtual_ms))
        if not line.jobs:
            line.tag_ms = max(line.tag_ms, self._virtual_ms)
        bisect.insort(line.jobs, job, key=_urgency)
        self._waiting += 1

    def remove(self, job: J) -> None:
        """Take a waiting job out of its line, unserved."""
        self._lines[job.vehicle].jobs.remove(job)
        self._waiting -= 1

    def pop(self) -> J:
        """The next job. Raises ValueError where none waits."""
        waiting = (line for line in self._lines.values() if line.jobs)
        line = min(waiting, key=lambda each: (each.tag_ms, each.jobs[0].number))
        job = line.jobs.pop(0)
        self._waiting -= 1
        self._virtual_ms = line.tag_ms
        line.tag_ms += self._work_ms(job)
        self._forget_those_without_a_debt()
        return job

    def settle(self, vehicle: str, beyond_ms: float) -> None:
        """A job that was popped took so much more than predicted; below 0: less."""
        line = self._lines.get(vehicle)
        if line is not None:
            line.tag_ms = max(line.tag_ms + beyond_ms, self._virtual_ms)
        elif beyond_ms > 0:
            self._lines[vehicle] = _Line(self._virtual_ms + beyond_ms)

    def rest(self) -> None:
        """Nothing waits and nothing is served: who was ahead need not wait for anybody."""
        self._lines.clear()
        self._virtual_ms = 0.0

    def in_order(self, *, also: J | None = None, without: J | None = None) -> Iterator[J]:
        """All that wait, and perhaps one more or one less, in the order in which they would be served."""
        return (job for _, job in self._by_tag(also=also, without=without))

    def before_next_of(self, vehicle: str) -> list[J]:
        """What would be served before another job of that vehicle which is in less of a hurry than its others."""
        line = self._lines.get(vehicle)
        tag_ms = self._virtual_ms if line is None else max(line.tag_ms, self._virtual_ms) + self._length_ms(line)
        return [job for job_tag_ms, job in self._by_tag() if job_tag_ms <= tag_ms]

    def _by_tag(self, *, also: J | None = None, without: J | None = None) -> Iterator[tuple[float, J]]:
        """In order, each with its line's tag when its turn comes."""
        jobs = {vehicle: [each for each in line.jobs if each is not without] for vehicle, line in self._lines.items()}
        tags_ms = {vehicle: line.tag_ms for vehicle, line in self._lines.items()}
        if also is not None:
            own = jobs.setdefault(also.vehicle, [])
            if not own:
                tags_ms[also.vehicle] = max(tags_ms.get(also.vehicle, 0.0), self._virtual_ms)
            bisect.insort(own, also, key=_urgency)
        turns = [(tags_ms[vehicle], line[0].number, vehicle, 0) for vehicle, line in jobs.items() if line]
        heapq.heapify(turns)
        while turns:
            tag_ms, _, vehicle, index = turns[0]
            line = jobs[vehicle]
            job = line[index]
            if index + 1 < len(line):
                heapq.heapreplace(turns, (tag_ms + self._work_ms(job), line[index + 1].number, vehicle, index + 1))
            else:
                heapq.heappop(turns)
            yield tag_ms, job

    def gives_way_to(self, newcomer: J) -> J | None:
        """Where there is no room: the least urgent job of the longest line, counted in work; None where the newcomer's
        own line would be the longest."""
        longest = max((line for line in self._lines.values() if line.jobs), key=self._length_ms, default=None)
        if longest is None or longest.jobs[0].vehicle == newcomer.vehicle:
            return None
        own = self._lines.get(newcomer.vehicle)
        own_ms = self._work_ms(newcomer) + (self._length_ms(own) if own is not None else 0.0)
        return longest.jobs[-1] if own_ms <= self._length_ms(longest) else None

    def _length_ms(self, line: _Line[J]) -> float:
        return sum(map(self._work_ms, line.jobs))

    def _forget_those_without_a_debt(self) -> None:
        """An empty line whose tag the virtual clock has reached would start anew at that very tag. Of very many other
        empty ones the smallest debts are let off: names cost a sender nothing."""
        empty = sorted((line.tag_ms, vehicle) for vehicle, line in self._lines.items() if not line.jobs)
        let_off = max(0, len(empty) - _REMEMBERED_DEBTS)
        for index, (tag_ms, vehicle) in enumerate(empty):
            if index < let_off or tag_ms <= self._virtual_ms:
                del self._lines[vehicle]


def _urgency(job: Job) -> tuple[float, int]:
    return job.deadline_s, job.number
