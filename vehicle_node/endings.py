"""How a task can end, and the outcome that the vehicle then tells the world."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..bus.messages import ContextUse, EnergyMethod, Outcome, Result, TaskState, Timing, Truth
from ..bus.places import Place
from ..datasets.narrator import narrate
from ..datasets.scoring import judge
from .task_run import TaskRun


@dataclass(frozen=True, slots=True)
class Ending:
    """The visible answer and where it came from; the fields are those of `Outcome`."""

    state: TaskState
    reason: str
    text: str
    place: Place
    node: str
    mode: str
    timing: Timing = field(default_factory=Timing)
    network_ms: float = 0.0
    energy_j: float = 0.0
    energy_method: EnergyMethod = "modelled"
    made_by: tuple[str, ...] = ()
    context: ContextUse | None = None


def answered(result: Result, node: str, *, network_ms: float, transmit_energy_j: float) -> Ending:
    """A node's final answer came in time."""
    return Ending(
        state="result",
        reason="",
        text=result.text,
        place=result.place,
        node=node,
        mode=result.mode,
        timing=result.timing,
        network_ms=network_ms,
        energy_j=result.energy_j + transmit_energy_j,
        energy_method=result.energy_method,
        made_by=result.made_by,
        context=result.context,
    )


def narrated(task: TaskRun, vehicle: str, state: TaskState, reason: str) -> Ending:
    """The vehicle's own narrator speaks: because it was chosen (`result`), or because all else failed (`fallback`)."""
    text = narrate(task.scene.telemetry)
    return Ending(state=state, reason=reason, text=text, place="vehicle", node=vehicle, mode="narrator")


def outcome_of(task: TaskRun, ending: Ending, *, latency_ms: float) -> Outcome:
    """latency_ms: from the task's creation to its visible answer, on the vehicle's monotonic clock."""
    decision = task.decision
    assert decision is not None, "a task ends after it was first placed"
    return Outcome(
        task_id=task.task_id,
        kind=task.kind.name,
        state=ending.state,
        reason=ending.reason,
        text=ending.text,
        created_at_s=task.created_at_s,
        deadline_ms=task.kind.deadline_ms,
        requested=decision.candidates[decision.chosen].place,
        place=ending.place,
        node=ending.node,
        mode=ending.mode,
        accepted=task.accepted,
        attempts=task.attempt,
        latency_ms=latency_ms,
        first_answer_ms=latency_ms if task.first_answer_ms is None else task.first_answer_ms,
        network_ms=ending.network_ms,
        timing=ending.timing,
        energy_j=ending.energy_j,
        energy_method=ending.energy_method,
        clip=task.scene.clip,
        moment_s=task.scene.moment_s,
        decision=decision,
        made_by=ending.made_by,
        context=ending.context,
        truth=_truth(task, ending.text),
    )


def _truth(task: TaskRun, text: str) -> Truth | None:
    """The log's own words beside the verdict on the answer; None where the log has none for the moment."""
    segment = task.scene.truth
    if segment is None:
        return None
    judgement = judge(task.kind, text, segment)
    return Truth(
        action=segment.action,
        justification=segment.justification,
        action_correct=judgement.action_correct,
        justification_correct=judgement.justification_correct,
    )
