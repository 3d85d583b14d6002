"""What was expected of a process and what came of it: task by task."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ..bus.messages import Role


@dataclass(frozen=True, slots=True)
class Difference:
    """what: "placement", "ending" or "answer". note: what helps to judge it, such as how near a choice was."""

    task_id: str
    what: str
    expected: str
    got: str
    note: str = ""


@dataclass(slots=True)
class ProcessReplay:
    """One process, replayed. compared: tasks; left_out: those that say nothing, by why."""

    name: str
    role: Role
    compared: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def as_plain(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": self.role,
            "compared": self.compared,
            "left_out": dict(self.left_out),
            "differences": [asdict(each) for each in self.differences],
        }
