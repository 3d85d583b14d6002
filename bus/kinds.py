"""The one table of task kinds: what a vehicle may ask, and what it expects.

The prompts are the ones that the bundled model was trained on; `asks_for` names the parts of the ground truth
that an answer of the kind must get right to count as a success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["action", "justification"]


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One row of the table.

    deadline_ms: from the task's creation on the vehicle to a visible answer.
    qos_floor: places with a lower expected success rate are masked while a better one remains.
    share: how often the demo's vehicles ask it.
    max_tokens: room for the longest right answer of the bundled model.
    """

    name: str
    prompt: str
    deadline_ms: float
    qos_floor: float
    asks_for: tuple[Part, ...]
    share: float
    max_tokens: int


HAZARD = TaskKind("hazard", "what must the driver react to ?", 700.0, 0.5, ("justification",), 0.4, 24)
EXPLAIN = TaskKind("explain", "what is the car doing and why ?", 2000.0, 0.6, ("action", "justification"), 0.4, 32)
DESCRIBE = TaskKind("describe", "describe the scene .", 4000.0, 0.6, ("action", "justification"), 0.2, 48)

KINDS: dict[str, TaskKind] = {kind.name: kind for kind in (HAZARD, EXPLAIN, DESCRIBE)}
