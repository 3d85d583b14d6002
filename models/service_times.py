"""How long answers take on a node, learnt from those that it gave: a mean and how far single answers stray from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..bus.kinds import KINDS
from ..bus.places import Place

_SMOOTHING = 0.2
# Of the mean, as long as a single answer is all that there is to go by.
_FIRST_DEVIATION = 0.25
# A process that was stopped for seconds says nothing of its next answer: one observation counts for no more than this
# many means. Where answers do take longer from now on, a few of them are enough to say so.
_LARGEST_SURPRISE = 3.0
# Of an answer that took so much less than expected. A node that was measured in a bad minute, such as its first on a
# busy machine, refuses what it could do until it has learnt better, and it learns from few answers then.
_SMOOTHING_DOWN = 0.5


@dataclass(frozen=True, slots=True)
class Spread:
    """A time that is known in distribution only, in milliseconds. Sums are those of independent times."""

    mean_ms: float = 0.0
    variance_ms2: float = 0.0

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.mean_ms + other.mean_ms, self.variance_ms2 + other.variance_ms2)

    def quantile_ms(self, deviations: float) -> float:
        """So many standard deviations above the mean, which for a sum of several times is nearly a normal quantile."""
        return self.mean_ms + deviations * math.sqrt(self.variance_ms2)


_UNKNOWN = Spread()


@dataclass(slots=True)
class ServiceTimes:
    """Time from the start of inference to the answer, by place and kind: exponentially weighted mean and variance
    (T. Finch, "Incremental calculation of weighted mean and variance", 2009).

    A node has one decoding mode at each place, or picks one for every answer, which then is part of the spread. Kinds
    that are not in the table are not learnt: their names are a sender's to choose, and would fill the node's reports.
    """

    by_place: dict[Place, dict[str, Spread]] = field(default_factory=dict)

    def observe(self, place: Place, kind: str, service_ms: float) -> None:
        """An answer took so long."""
        if kind not in KINDS:
            return
        by_kind = self.by_place.setdefault(place, {})
        known = by_kind.get(kind)
        if known is None:
            by_kind[kind] = Spread(service_ms, (_FIRST_DEVIATION * service_ms) ** 2)
            return
        difference_ms = min(service_ms, _LARGEST_SURPRISE * known.mean_ms) - known.mean_ms
        share = _SMOOTHING_DOWN if service_ms * _LARGEST_SURPRISE < known.mean_ms else _SMOOTHING
        step_ms = share * difference_ms
        # What was far off was no spread but a mistake.
        variance_ms2 = (1 - share) * (known.variance_ms2 + (difference_ms * step_ms if share == _SMOOTHING else 0.0))
        by_kind[kind] = Spread(known.mean_ms + step_ms, variance_ms2)

    def observe_at_least(self, place: Place, kind: str, service_ms: float) -> None:
        """An answer was broken off after so long: it would have taken longer, nobody knows by how much."""
        known = self.known(place, kind)
        if known is not None and service_ms > known.mean_ms:
            self.observe(place, kind, service_ms)

    def known(self, place: Place, kind: str) -> Spread | None:
        """None for what was never seen."""
        return self.by_place.get(place, {}).get(kind)

    def expected(self, place: Place, kind: str) -> Spread:
        """For what was never seen, that of the slowest known: admission errs on the side of refusing."""
        if (known := self.known(place, kind)) is not None:
            return known
        every = (each for by_kind in self.by_place.values() for each in by_kind.values())
        return max(every, key=lambda each: each.mean_ms, default=_UNKNOWN)

    def means_ms(self) -> dict[Place, dict[str, float]]:
        """As nodes announce them."""
        return {
            place: {kind: each.mean_ms for kind, each in by_kind.items()} for place, by_kind in self.by_place.items()
        }
