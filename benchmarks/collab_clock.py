"""The virtual clock of one answer, and the link that edge and cloud have on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..bus.link import LinkShape

Place = Literal["edge", "uplink", "cloud", "downlink"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `begin_ms` to `end_ms`. positions: how many it was about."""

    place: Place
    name: str
    begin_ms: float
    end_ms: float
    positions: int = 0

    @property
    def length_ms(self) -> float:
        return self.end_ms - self.begin_ms


@dataclass(slots=True)
class Clock:
    """The edge's time, for it does one thing after the other; what happens elsewhere meanwhile is told in spans."""

    now_ms: float = 0.0
    spans: list[Span] = field(default_factory=list)

    def spend(self, name: str, cost_ms: float, positions: int = 0) -> None:
        """The edge computes."""
        self.spans.append(Span("edge", name, self.now_ms, self.now_ms + cost_ms, positions))
        self.now_ms += cost_ms


class VirtualLink:
    """Both directions between an edge and its cloud.

    shape: rate and round trip; the uplink runs from the edge. began_s: where in a recorded trace the answer begins.
    """

    def __init__(self, shape: LinkShape, began_s: float = 0.0) -> None:
        self._up = shape.lane("uplink", 0)
        self._down = shape.lane("downlink", 0)
        self._began_s = began_s

    def up(self, now_ms: float, size_bytes: int) -> float:
        """When what is sent now has arrived at the cloud, behind all that was sent before: milliseconds."""
        return self._arrival(self._up.send(self._began_s + now_ms / 1000, size_bytes))

    def down(self, now_ms: float, size_bytes: int) -> float:
        """The same towards the edge."""
        return self._arrival(self._down.send(self._began_s + now_ms / 1000, size_bytes))

    def _arrival(self, sent: tuple[float, float]) -> float:
        _, arrives_s = sent
        return (arrives_s - self._began_s) * 1000
