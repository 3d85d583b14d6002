"""Whether an answer says what the log's annotation says: by class, not by string."""

from __future__ import annotations

from dataclasses import dataclass

from ..bus.kinds import TaskKind
from .bddx import Segment
from .phrases import parse, parse_action, parse_justification


@dataclass(frozen=True, slots=True)
class Judgement:
    """None where the task's kind does not ask for a part, or the annotation's words name no known class."""

    action_correct: bool | None
    justification_correct: bool | None


def judge(kind: TaskKind, answer: str, segment: Segment) -> Judgement:
    """Compare an answer's classes with those of an annotation, rendered or BDD-X's own.

    An answer that names no class where the annotation does is wrong. Which vehicle or side is not compared.
    """
    said = parse(answer)
    true_action = parse_action(segment.action)
    true_justification, _, _ = parse_justification(segment.justification)
    return Judgement(
        _agrees(said.action, true_action) if "action" in kind.asks_for else None,
        _agrees(said.justification, true_justification) if "justification" in kind.asks_for else None,
    )


def _agrees(said: str | None, true: str | None) -> bool | None:
    return None if true is None else said == true
