"""One task on its way: what the vehicle knows of it from creation to its one terminal state."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..bus.kinds import TaskKind
from ..bus.messages import Decision, Task
from ..bus.places import Place
from ..policy.candidates import TaskFacts
from .scenes import Scene


@dataclass(slots=True)
class TaskRun:
    """Times are seconds of the vehicle's monotonic clock.

    node, place: where the current attempt went; decision: the one that placed the first attempt.
    refused_by: nodes that refused the task or died with it; they are not asked again.
    """

    task_id: str
    kind: TaskKind
    scene: Scene
    created_s: float
    created_at_s: float
    attempt: int = 0
    node: str = ""
    place: Place = "vehicle"
    decision: Decision | None = None
    sent_s: float = 0.0
    accepted: bool = False
    refused_by: set[str] = field(default_factory=set)
    first_answer_ms: float | None = None
    ended: bool = False

    @property
    def deadline_s(self) -> float:
        return self.created_s + self.kind.deadline_ms / 1000

    def age_ms(self, now_s: float) -> float:
        return (now_s - self.created_s) * 1000

    def remaining_ms(self, now_s: float) -> float:
        return (self.deadline_s - now_s) * 1000

    def facts(self, now_s: float) -> TaskFacts:
        return TaskFacts(
            kind=self.kind.name,
            deadline_ms=self.kind.deadline_ms,
            remaining_ms=max(1.0, self.remaining_ms(now_s)),
            qos_floor=self.kind.qos_floor,
            upload_bytes=len(self.scene.jpeg),
        )

    def begin_attempt(self, node: str, place: Place, decision: Decision, now_s: float) -> None:
        self.attempt += 1
        self.node, self.place, self.sent_s = node, place, now_s
        if self.decision is None:
            self.decision = decision

    def message(self, now_s: float) -> Task:
        """The current attempt as it goes onto the wire."""
        return Task(
            task_id=self.task_id,
            attempt=self.attempt,
            kind=self.kind.name,
            prompt=self.kind.prompt,
            frames=(self.scene.jpeg,),
            telemetry=self.scene.telemetry,
            deadline_ms=self.kind.deadline_ms,
            remaining_ms=self.remaining_ms(now_s),
            qos_floor=self.kind.qos_floor,
            place=self.place,
            max_tokens=self.kind.max_tokens,
        )

    def is_current(self, node: str, attempt: int) -> bool:
        """Whether a message about an attempt is about the one that is under way."""
        return not self.ended and self.node == node and self.attempt == attempt
