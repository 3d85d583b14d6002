"""One breach of the contract (contract.py), and what its parts share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .history import Event

ViolationKind = Literal[
    "lost",
    "unjournalled",
    "two-endings",
    "duplicate-visible",
    "stale-shown",
    "wrong-context",
    "orphan-context",
    "expired-computed",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """about: the task ("vehicle/id") or session. events: what its histories say of it, by time."""

    kind: ViolationKind
    about: str
    why: str
    events: tuple[Event, ...]

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}: {self.why}"


def stopped_s(stops: Iterable[Event], begin_s: float, end_s: float) -> float:
    """For how long of that time a process stood still. stops: its "process.stopped" and "process.continued"."""
    total_s, since_s = 0.0, None
    for event in stops:
        if event.name == "process.stopped":
            since_s = event.at_s
        elif since_s is not None:
            total_s += max(0.0, min(end_s, event.at_s) - max(begin_s, since_s))
            since_s = None
    if since_s is not None:
        total_s += max(0.0, end_s - max(begin_s, since_s))
    return total_s
