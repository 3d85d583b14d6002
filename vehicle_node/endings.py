"""How a task can end, and the outcome that the vehicle then tells the world.

result     in time, from the place that was chosen:
             a node's final answer;
             a node's provisional answer that no final one replaced in time ("provisional stands"): the driver has
             seen a model's words since it came, and the narrator's would be worse;
             the vehicle's own model, or the narrator where it has none, where the policy chose the vehicle itself
fallback   the narrator, because every chosen place failed or was late
expired    nobody: the vehicle was down at the deadline, or stood still, and closes the task when it is back
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..bus.messages import ContextUse, EnergyMethod, Outcome, Result, TaskState, Timing, Truth
from ..bus.places import Place
from ..bus.plain_text import plain_text
from ..datasets.narrator import narrate
from ..datasets.scoring import judge
from ..models.job_runner import Answered
from ..qos.journal import JournalEntry
from .task_run import Provisional, TaskRun

# The narrator speaks just before a deadline; where a busy machine calls it later than this, it is silent.
NARRATOR_GRACE_MS = 500.0


@dataclass(frozen=True, slots=True)
class Ending:
    """The visible answer and where it came from; the fields are those of `Outcome`.

    shown_ms: when the visible answer was shown, since the task's creation.
    """

    state: TaskState
    reason: str
    text: str
    place: Place
    node: str
    mode: str
    shown_ms: float
    timing: Timing = field(default_factory=Timing)
    network_ms: float = 0.0
    energy_j: float = 0.0
    energy_method: EnergyMethod = "modelled"
    made_by: tuple[str, ...] = ()
    context: ContextUse | None = None


def answered(
    result: Result, node: str, *, shown_ms: float, network_ms: float, transmit_energy_j: float, reason: str = ""
) -> Ending:
    """A node's answer came in time."""
    return Ending(
        state="result",
        reason=reason,
        text=plain_text(result.text),
        place=result.place,
        node=node,
        mode=result.mode,
        shown_ms=shown_ms,
        timing=result.timing,
        network_ms=network_ms,
        energy_j=result.energy_j + transmit_energy_j,
        energy_method=result.energy_method,
        made_by=result.made_by,
        context=result.context,
    )


def provisional_stands(provisional: Provisional, *, transmit_energy_j: float) -> Ending:
    """No final answer replaced the provisional one in time."""
    return answered(
        provisional.result,
        provisional.node,
        shown_ms=provisional.shown_ms,
        network_ms=provisional.network_ms,
        transmit_energy_j=transmit_energy_j,
        reason="provisional stands",
    )


def answered_here(answered: Answered, vehicle: str, *, shown_ms: float) -> Ending:
    """The vehicle's own model has spoken."""
    return Ending(
        state="result",
        reason="",
        text=answered.text,
        place="vehicle",
        node=vehicle,
        mode=answered.mode,
        shown_ms=shown_ms,
        timing=answered.timing,
        energy_j=answered.energy_j,
        energy_method=answered.energy_method,
        made_by=answered.made_by,
    )


def narrated(task: TaskRun, vehicle: str, state: TaskState, reason: str, *, shown_ms: float) -> Ending:
    """The vehicle's own narrator speaks: because it was chosen (`result`), or because all else failed (`fallback`)."""
    text = narrate(task.scene.telemetry)
    return Ending(
        state=state, reason=reason, text=text, place="vehicle", node=vehicle, mode="narrator", shown_ms=shown_ms
    )


def missed(vehicle: str) -> Ending:
    """The vehicle stood still at the deadline and until long after it: nothing is shown."""
    reason = "the vehicle stood still at the deadline"
    return Ending(state="expired", reason=reason, text="", place="vehicle", node=vehicle, mode="", shown_ms=0.0)


def expired(entry: JournalEntry) -> Outcome:
    """The outcome of a task that only the journal remembers: nobody waits for it any more, so nothing is shown."""
    return Outcome(
        task_id=entry.task_id,
        kind=entry.kind,
        state="expired",
        reason="the vehicle was down at the deadline",
        text="",
        created_at_s=entry.created_at_s,
        deadline_ms=entry.deadline_ms,
        requested="vehicle",
        place="vehicle",
        node=entry.vehicle,
        mode="",
        accepted=False,
        attempts=0,
        latency_ms=0.0,
        first_answer_ms=0.0,
        network_ms=0.0,
        timing=Timing(),
        energy_j=0.0,
        energy_method="modelled",
        clip="",
        moment_s=0.0,
        decision=None,
    )


def outcome_of(task: TaskRun, ending: Ending) -> Outcome:
    """How a placed task ended, with its breakdown and the decision behind it."""
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
        attempts=max(1, len(task.attempts)),
        latency_ms=ending.shown_ms,
        first_answer_ms=ending.shown_ms if task.first_answer_ms is None else task.first_answer_ms,
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
