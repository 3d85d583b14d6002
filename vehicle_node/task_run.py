"""One task on its way: what the vehicle knows of it from creation to its one terminal state."""

from __future__ import annotations

from asyncio import TimerHandle
from dataclasses import dataclass, field

from ..bus.kinds import TaskKind
from ..bus.messages import Decision, Result, Task
from ..bus.places import Place
from ..policy.experience import Knobs
from ..policy.features import TaskFacts
from .attempts import Attempt
from .scenes import Scene

_EXITS = 2  # of every model (models/exits.py); one threshold for each


@dataclass(frozen=True, slots=True)
class Provisional:
    """An answer that the driver sees while a final one may still come. shown_ms: since the task's creation."""

    result: Result
    node: str
    network_ms: float
    shown_ms: float


@dataclass(slots=True)
class TaskRun:
    """Times are seconds of the vehicle's monotonic clock.

    speak_s: when the narrator speaks if no answer has come, shortly before the deadline.
    decision: the one that placed the first attempt.
    attempts: all there were at nodes, by number; attempt: the one under way, None while there is none.
    avoided: nodes that refused the task or did not answer it, and until when they are not asked again.
    own_model_failed: the vehicle's own model has refused it, or failed to answer.
    refusals: how often each node refused it. over_because: why the last attempt was over.
    exit_threshold: for an edge's early exits, where a decision says none; None: its model's own.
    knobs: of the newest decision. smaller_frames: what is sent in place of the scene's, once those were scaled.
    timers: what will happen if nothing else does; cancelled with the task's end.
    """

    task_id: str
    kind: TaskKind
    scene: Scene
    created_s: float
    created_at_s: float
    speak_s: float
    exit_threshold: float | None = None
    decision: Decision | None = None
    knobs: Knobs = field(default_factory=Knobs)
    smaller_frames: tuple[bytes, ...] | None = None
    attempts: list[Attempt] = field(default_factory=list)
    attempt: Attempt | None = None
    avoided: dict[str, float] = field(default_factory=dict)
    own_model_failed: bool = False
    refusals: dict[str, int] = field(default_factory=dict)
    over_because: str = ""
    accepted: bool = False
    provisional: Provisional | None = None
    timers: dict[str, TimerHandle] = field(default_factory=dict)
    ended: bool = False

    @property
    def deadline_s(self) -> float:
        return self.created_s + self.kind.deadline_ms / 1000

    @property
    def first_answer_ms(self) -> float | None:
        return None if self.provisional is None else self.provisional.shown_ms

    @property
    def frames(self) -> tuple[bytes, ...]:
        """The pictures as they are sent, oldest first."""
        return self.scene.frames if self.smaller_frames is None else self.smaller_frames

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
            upload_bytes=self.scene.upload_bytes,
            tokens=self.kind.max_tokens,
        )

    def asked(self, node: str, number: int) -> Attempt | None:
        """The attempt of that number, if it was sent to that node; nobody else may answer for it."""
        if not 1 <= number <= len(self.attempts):
            return None
        attempt = self.attempts[number - 1]
        return attempt if attempt.node == node and attempt.sent_s is not None else None

    def avoided_at(self, now_s: float) -> frozenset[str]:
        return frozenset(node for node, until_s in self.avoided.items() if now_s < until_s)

    def message(self, attempt: int, place: Place, now_s: float) -> Task:
        """An attempt, by its number, as it is asked at this moment."""
        threshold = self.exit_threshold if self.knobs.exit_threshold is None else self.knobs.exit_threshold
        return Task(
            task_id=self.task_id,
            attempt=attempt,
            kind=self.kind.name,
            prompt=self.kind.prompt,
            frames=self.frames,
            telemetry=self.scene.telemetry,
            deadline_ms=self.kind.deadline_ms,
            remaining_ms=self.remaining_ms(now_s),
            qos_floor=self.kind.qos_floor,
            place=place,
            max_tokens=self.kind.max_tokens,
            exit_thresholds=() if threshold is None else (threshold,) * _EXITS,
        )

    def cancel_timers(self) -> None:
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
