"""From outcomes as they come in, of many vehicles and in any order, to decisions in the order in which they were made.

A learner needs the order of decisions: what a choice leads to is what the next one meets. Outcomes arrive in the order
in which tasks end, some twice and some never.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..experience import Experience
from ..node_memory import NodeMemory
from .replay import Observation

_KNOWN_TASKS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """observation: as policy/training/set_networks.py has it: the inputs that its vehicle had, and what was allowed."""

    observation: Observation
    experience: Experience

    def action(self, knobs: int) -> NDArray[np.float32]:
        """As set_networks.py has it; knobs that were left to the nodes count as 1, to which they come closest."""
        rows = np.zeros((len(self.observation[0]), 1 + knobs), np.float32)
        rows[:, 1:] = 1
        rows[self.experience.chosen, 0] = 1
        return rows.ravel()


class _Waiting(NamedTuple):
    """Sorted by when it was decided, or ended; the number decides between equals."""

    at_s: float
    number: int
    vehicle: str
    experience: Experience


class ExperienceStream:
    """patience_s: how long after a decision its outcome, or one decided before it, may still come in; what comes later
    is left out, as is what comes twice."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: list[_Waiting] = []
        self._ended: dict[str, list[_Waiting]] = defaultdict(list)
        self._memories: dict[str, NodeMemory] = defaultdict(NodeMemory)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._released_s = -np.inf
        self._number = 0

    def add(self, task_id: str, vehicle: str, experience: Experience) -> bool:
        """Take in an outcome; False where it is left out."""
        if task_id in self._known or experience.decided_s < self._released_s or not experience.rows:
            return False
        self._known[task_id] = None
        if len(self._known) > _KNOWN_TASKS:
            self._known.popitem(last=False)
        self._number += 1
        heappush(self._waiting, _Waiting(experience.decided_s, self._number, vehicle, experience))
        return True

    def release(self, now_s: float) -> Iterator[Decided]:
        """The decisions for whose predecessors nobody waits any more, in their order. now_s: on the outcomes' clock."""
        while self._waiting and self._waiting[0].at_s <= now_s - self._patience_s:
            waiting = heappop(self._waiting)
            self._released_s = waiting.at_s
            experience, ended, memory = (
                waiting.experience,
                self._ended[waiting.vehicle],
                self._memories[waiting.vehicle],
            )
            # Its vehicle knew of what had ended by then.
            while ended and ended[0].at_s <= experience.decided_s:
                memory.observe(heappop(ended).experience)
            heappush(ended, waiting._replace(at_s=experience.ended_s))
            inputs = memory.inputs_of(experience.features, experience.rows)
            yield Decided((inputs, experience.allowed), experience)
