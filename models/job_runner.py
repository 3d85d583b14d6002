"""Where a node's answers come from, as its service loop sees it: a model in this process, or a server elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..bus.kinds import TaskKind
from ..bus.messages import ContextUse, EnergyMethod, Timing
from ..bus.places import Place
from .admission import Job


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a job; the fields are those of `Result`. is_whole: else only its first words, and more will come."""

    text: str
    place: Place
    mode: str
    made_by: tuple[str, ...]
    confidence: float
    timing: Timing
    energy_j: float
    energy_method: EnergyMethod = "modelled"
    context: ContextUse | None = None
    is_whole: bool = True


class JobRunner(Protocol):
    """Answers accepted jobs.

    model, model_hash, quality: as a node announces them (`NodeState`).
    places: where it can answer in principle, the one that needs nobody else first.
    slots: jobs that it computes side by side without one delaying another; slot_power_w: electric power of a busy one.
    """

    model: str
    model_hash: str
    quality: dict[Place, dict[str, float]]
    places: tuple[Place, ...]
    slots: int
    counters: Counter[str]

    @property
    def slot_power_w(self) -> float: ...

    def can_answer_at(self, place: Place) -> bool:
        """Whether a job could be realised there now."""
        ...

    async def try_out(self, kind: TaskKind, place: Place) -> float | None:
        """How long an answer to a question of this kind takes, in milliseconds; None where nobody was there for it.

        Raises BackendError where the answer was to come from elsewhere and did not.
        """
        ...

    async def answer(self, job: Job, show: Callable[[Answered], None], wait: Callable[[bool], None]) -> Answered | None:
        """The final answer; None where the deadline came first. show: is given a provisional one, if there is any.
        wait: is told when the job begins and when it ceases to wait for another tier, needing no slot meanwhile.

        Raises MessageRefused for an unusable task, BackendError where the answer was to come from elsewhere.
        """
        ...
