"""A decision and what became of it: what a policy learns from, the same from a vehicle and from the simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bus.kinds import KINDS
from ..bus.messages import Outcome, Truth
from ..bus.places import Place
from .features import FEATURES, TOKENS_UNIT, UPLOAD_UNIT_BYTES, TaskFacts
from .selection import allowed_rows
from .utility import UtilityModel

_UPLOAD = FEATURES.index("upload_per_4mb")
_TOKENS = FEATURES.index("tokens_per_50")


@dataclass(frozen=True, slots=True)
class Knobs:
    """The continuous part of a decision.

    exit_threshold: confidence at which an edge's early exits may speak; None: the node's own.
    frame_scale: of the picture's sides before it is sent; 1.0: as the vehicle sees it.
    """

    exit_threshold: float | None = None
    frame_scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """features: [n, len(FEATURES)], allowed: [n], as at the decision; chosen: the row that was taken.

    node, place: of that row. latency_ms, energy_j: as measured.
    in_time: an answer from there came before the deadline.
    right: 1 or 0 where the truth is known, else the probability that such an answer is right; 0 without an answer.
    utility: of all that, by the utility model. decided_s, ended_s: on one clock, whichever.
    service_ms: from the first to the last of the computing at the chosen place; 0 where it made no answer.
    rows: (node, place) of each row.
    """

    task: TaskFacts
    features: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    chosen: int
    node: str
    place: Place
    knobs: Knobs
    propensity: float
    latency_ms: float
    energy_j: float
    in_time: bool
    right: float
    utility: float
    decided_s: float
    ended_s: float
    service_ms: float = 0.0
    rows: tuple[tuple[str, Place], ...] = ()


def experience_of(outcome: Outcome, utility: UtilityModel) -> Experience | None:
    """What a vehicle's outcome teaches; None where nothing was decided, or by a program with other features.

    The decision is that of the first attempt, and the chosen place is charged with what became of the task: where it
    failed and another one answered, the time that it took all the same is what choosing it came to.
    """
    decision = outcome.decision
    if decision is None or any(len(row.features) != len(FEATURES) for row in decision.candidates):
        return None
    rows = decision.candidates
    chosen = rows[decision.chosen]
    allowed = allowed_rows([row.masked for row in rows], [row.place for row in rows])
    allowed[decision.chosen] = True
    in_time = outcome.state == "result" and outcome.latency_ms <= outcome.deadline_ms
    right = _right(outcome.truth, chosen.quality) if in_time else 0.0
    kind = KINDS.get(outcome.kind)
    return Experience(
        task=TaskFacts(
            kind=outcome.kind,
            deadline_ms=outcome.deadline_ms,
            remaining_ms=outcome.deadline_ms,
            qos_floor=0.0 if kind is None else kind.qos_floor,
            upload_bytes=round(chosen.features[_UPLOAD] * UPLOAD_UNIT_BYTES),
            tokens=round(chosen.features[_TOKENS] * TOKENS_UNIT),
        ),
        features=np.array([row.features for row in rows], np.float32),
        allowed=allowed,
        chosen=decision.chosen,
        node=chosen.node,
        place=chosen.place,
        knobs=Knobs(decision.exit_threshold, decision.frame_scale),
        propensity=decision.propensity,
        latency_ms=outcome.latency_ms,
        energy_j=outcome.energy_j,
        in_time=in_time,
        right=right,
        utility=float(
            utility.utility(
                latency_ms=outcome.latency_ms,
                deadline_ms=outcome.deadline_ms,
                energy_j=outcome.energy_j,
                # Late is late even where the clock says otherwise: a fallback is no answer of the chosen place.
                quality=right,
            )
        ),
        decided_s=outcome.created_at_s,
        ended_s=outcome.created_at_s + outcome.latency_ms / 1000,
        service_ms=_service_ms(outcome) if outcome.node == chosen.node and in_time else 0.0,
        rows=tuple((row.node, row.place) for row in rows),
    )


def _service_ms(outcome: Outcome) -> float:
    """What the node counts as serving: its own computing, and its waiting for another tier's part."""
    return outcome.timing.inference_ms + outcome.timing.context_ms


def _right(truth: Truth | None, expected: float) -> float:
    verdicts = () if truth is None else (truth.action_correct, truth.justification_correct)
    asked_for = [verdict for verdict in verdicts if verdict is not None]
    return float(all(asked_for)) if asked_for else expected
