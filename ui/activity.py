"""What a fleet did over the last minutes, in bins of some seconds: the time series of the live page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..bus.messages import Outcome
from ..bus.places import PLACES

BIN_S = 5.0
# Three minutes, and the bin that now is in.
BINS = 37

# Where an answer's time went; "vehicle" is what the other four leave of the latency: the camera, the decision, waiting
# to be sent, and attempts that came to nothing.
PARTS = ("queue", "inference", "context", "network", "vehicle")


@dataclass(slots=True)
class Bin:
    """Sums over the outcomes that arrived within `BIN_S` seconds from number * BIN_S on, on the reader's clock.

    answered: tasks with an answer, fallbacks included; to these belong latency_ms, parts_ms and energy_j.
    judged, right: tasks of which the driving log tells what is right, and those that are.
    tokens, exit_tokens: of all answers by a model, and those of them that an early exit said.
    placements: results (not fallbacks) by the place that made them.
    """

    number: int
    ended: int = 0
    in_time: int = 0
    fallback: int = 0
    answered: int = 0
    latency_ms: float = 0.0
    parts_ms: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))
    energy_j: float = 0.0
    judged: int = 0
    right: int = 0
    tokens: int = 0
    exit_tokens: int = 0
    placements: list[int] = field(default_factory=lambda: [0] * len(PLACES))

    def add(self, outcome: Outcome) -> None:
        self.ended += 1
        if outcome.state not in ("result", "fallback"):
            return
        if outcome.state == "result":
            self.in_time += 1
            self.placements[PLACES.index(outcome.place)] += 1
        else:
            self.fallback += 1
        self.answered += 1
        self.latency_ms += outcome.latency_ms
        for index, part_ms in enumerate(parts_of(outcome)):
            self.parts_ms[index] += part_ms
        self.energy_j += outcome.energy_j
        if (right := is_right(outcome)) is not None:
            self.judged += 1
            self.right += right
        self.tokens += len(outcome.made_by)
        self.exit_tokens += sum(maker.startswith("exit") for maker in outcome.made_by)

    def merge(self, other: Bin) -> None:
        """Add another bin's sums."""
        self.ended += other.ended
        self.in_time += other.in_time
        self.fallback += other.fallback
        self.answered += other.answered
        self.latency_ms += other.latency_ms
        self.energy_j += other.energy_j
        self.judged += other.judged
        self.right += other.right
        self.tokens += other.tokens
        self.exit_tokens += other.exit_tokens
        self.parts_ms = [a + b for a, b in zip(self.parts_ms, other.parts_ms, strict=True)]
        self.placements = [a + b for a, b in zip(self.placements, other.placements, strict=True)]


def parts_of(outcome: Outcome) -> tuple[float, ...]:
    """The milliseconds of an outcome's latency by `PARTS`; none is negative."""
    timing = outcome.timing
    told = tuple(max(0.0, ms) for ms in (timing.queue_ms, timing.inference_ms, timing.context_ms, outcome.network_ms))
    return (*told, max(0.0, outcome.latency_ms - sum(told)))


def is_right(outcome: Outcome) -> bool | None:
    """Whether an answer says what the log says in every part that its kind asks for; None where nobody knows."""
    truth = outcome.truth
    if truth is None:
        return None
    verdicts = [part for part in (truth.action_correct, truth.justification_correct) if part is not None]
    return all(verdicts) if verdicts else None


class Activity:
    """A ring of the last `BINS` bins; empty ones are not stored."""

    def __init__(self) -> None:
        self._bins: deque[Bin] = deque(maxlen=BINS)

    def add(self, outcome: Outcome, now_s: float) -> None:
        """now_s: never less than in an earlier call."""
        number = int(now_s // BIN_S)
        if not self._bins or self._bins[-1].number != number:
            self._bins.append(Bin(number))
        self._bins[-1].add(outcome)

    def bins(self, now_s: float) -> list[Bin]:
        """The last `BINS` bins, oldest first and empty ones included; the last is the one that now_s is in."""
        end = int(now_s // BIN_S) + 1
        kept = {each.number: each for each in self._bins}
        return [kept.get(number) or Bin(number) for number in range(end - BINS, end)]

    def total(self, now_s: float) -> Bin:
        """The sums of those bins."""
        total = Bin(int(now_s // BIN_S))
        for each in self._bins:
            if total.number - BINS < each.number <= total.number:
                total.merge(each)
        return total
