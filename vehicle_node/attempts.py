"""One attempt of a task at one node: when to send it again, and when to stop believing in it.

A state machine without clock or network. Whoever drives it calls `step` at `due_s`, does what it says, and asks again
at the new `due_s`; what is heard from the node and of the connection goes in through the other methods.

    waiting for the ACK --acknowledged--> accepted --overdue--> waiting for the ACK
            |                                |
            +----- step says LEAVE ----------+----> over

An ACK only stops the resending: the node may die with the task, or a broker with the answer. An accepted attempt whose
answer is long overdue is therefore asked again, which costs the node nothing as it answers a repeated attempt from
memory, and is left for another node while one could still answer in time.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..bus.places import Place

_FIRST_RESEND_MS = 150.0
_ROUND_TRIPS_BEFORE_RESEND = 3.0
_BACKOFF = 2.0
_JITTER = 0.5  # of an interval, on top of it: a fleet must not repeat itself in one burst
_LONGEST_ROUND_TRIP_MS = 10_000.0
_OVERDUE_FACTOR = 3.0
_OVERDUE_MS = 250.0
MAX_RESENDS = 3


class Step(enum.Enum):
    """What is to be done with an attempt now."""

    SEND = "send"
    WAIT = "wait"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an attempt goes. expected_ms: from sending to the answer; round_trip_ms: of the network alone."""

    node: str
    place: Place
    expected_ms: float
    round_trip_ms: float


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another node that could be asked instead. until_s: the latest moment that still leaves time for its answer."""

    expected_ms: float
    until_s: float


class Attempt:
    """Times are seconds of the vehicle's monotonic clock.

    number: counts the attempts of a task from 1. random: draws from [0, 1), for the jitter.
    sent_s, last_sent_s: when it was first and last sent; None until then.
    due_s: when `step` is to be called; infinite where nothing is left to do but wait for the answer.
    """

    def __init__(self, number: int, placement: Placement, *, begun_s: float, random: Callable[[], float]) -> None:
        self.number = number
        self.placement = placement
        self.accepted = False
        self.sent_s: float | None = None
        self.last_sent_s: float | None = None
        self.due_s = begun_s
        self._random = random
        self._sendings = 0

    @property
    def node(self) -> str:
        return self.placement.node

    def step(self, now_s: float, elsewhere: Elsewhere | None) -> Step:
        """Say what to do now, and set `due_s` anew. SEND counts as done."""
        if now_s < self.due_s:
            return Step.WAIT
        interval_s = self._resend_interval_s()
        exhausted = self._sendings > MAX_RESENDS
        if elsewhere is not None and self._sendings and now_s <= elsewhere.until_s:
            last_chance = now_s + interval_s > elsewhere.until_s
            if exhausted or self.accepted or last_chance or self._better(elsewhere):
                self.due_s = math.inf
                return Step.LEAVE
        if exhausted:
            self.due_s = math.inf
            return Step.WAIT
        self.accepted = False
        self._sendings += 1
        self.sent_s = now_s if self.sent_s is None else self.sent_s
        self.last_sent_s = now_s
        self.due_s = now_s + interval_s
        return Step.SEND

    def _better(self, elsewhere: Elsewhere) -> bool:
        """Whether an answer is to be expected sooner from elsewhere; each unanswered sending halves the odds here.

        One repetition there always is: it costs a node that is merely slow nothing, while asking elsewhere means that
        two compute the same, which would make an overload worse.
        """
        return self._sendings > 1 and elsewhere.expected_ms < self.placement.expected_ms * 2**self._sendings

    def acknowledged(self, now_s: float, wait_ms: float) -> None:
        """The node has it, behind `wait_ms` of work, this attempt included. A repeated ACK changes nothing."""
        if self.accepted:
            return
        self.accepted = True
        expected_ms = max(self.placement.expected_ms, wait_ms)
        self.due_s = now_s + (_OVERDUE_MS + _OVERDUE_FACTOR * expected_ms) / 1000

    def connection_made_anew(self, now_s: float) -> None:
        """Whatever was on its way may be lost, an accepted attempt's answer too: it is to be sent again at once."""
        self.accepted = False
        self._sendings = 0
        self.due_s = now_s

    def _resend_interval_s(self) -> float:
        round_trip_ms = min(self.placement.round_trip_ms, _LONGEST_ROUND_TRIP_MS)
        first_ms = max(_FIRST_RESEND_MS, _ROUND_TRIPS_BEFORE_RESEND * round_trip_ms)
        return first_ms * _BACKOFF**self._sendings * (1 + _JITTER * self._random()) / 1000
