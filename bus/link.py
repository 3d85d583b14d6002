"""A network link as a model of time: when do bytes that are sent now leave, and when do they arrive?

Nothing here waits or touches a socket; shaping_proxy.py does both. Seconds count from the link's beginning, so that a
recorded trace starts with it. A trace that is shorter than the run begins again at its end.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal

from .errors import ConfigurationError

Direction = Literal["uplink", "downlink"]

PACKET_BYTES = 1500

# A piece of what is sent occupies the link for about so long: short enough that a small message does not wait behind
# a whole buffer of somebody else's, long enough that a fast link does not cost a timer for every packet.
_PIECE_S = 0.002
_LARGEST_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class CapacityTrace:
    """Recorded capacity: at each of `times_s`, in order, one packet of 1,500 bytes may leave.

    Several packets may share a time. The trace's last time is also its length, as in mahimahi.
    """

    times_s: array[float]

    def __post_init__(self) -> None:
        if not self.times_s or not self.times_s[-1] > 0:
            raise ConfigurationError("a capacity trace needs at least one packet after its time 0")

    @property
    def duration_s(self) -> float:
        return self.times_s[-1]

    def next_packet(self, at_s: float) -> int:
        """The number, counted over every repetition from 0, of the first packet that leaves at `at_s` or later."""
        repetition, within_s = divmod(at_s, self.duration_s)
        return int(repetition) * len(self.times_s) + bisect_left(self.times_s, within_s)

    def departure_s(self, packet: int) -> float:
        repetition, index = divmod(packet, len(self.times_s))
        return repetition * self.duration_s + self.times_s[index]


@dataclass(frozen=True, slots=True, eq=False)
class DelayTrace:
    """Recorded round trips: `round_trips_ms[i]` was measured at `times_s[i]`, the first of which is 0."""

    times_s: array[float]
    round_trips_ms: array[float]

    def __post_init__(self) -> None:
        if len(self.times_s) < 2 or len(self.times_s) != len(self.round_trips_ms):
            raise ConfigurationError("a delay trace needs at least two measurements, each with its time")

    @property
    def duration_s(self) -> float:
        return self.times_s[-1]

    def round_trip_ms(self, at_s: float) -> float:
        """The newest measurement at that time."""
        return self.round_trips_ms[bisect_right(self.times_s, at_s % self.duration_s) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkShape:
    """What a link does to what is sent over it; the uplink runs from the client to the broker.

    uplink, downlink: bits per second, a recorded capacity, or None for a rate that is not limited.
    round_trip: milliseconds, or recorded round trips; half of it each way.
    jitter_ms: each piece arrives up to so much later, drawn from the seed. Nothing overtakes, as on a radio link.

    Raises ConfigurationError for a rate that is not above 0 and for a negative time.
    """

    uplink: float | CapacityTrace | None = None
    downlink: float | CapacityTrace | None = None
    round_trip: float | DelayTrace = 0.0
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        for rate in (self.uplink, self.downlink):
            if isinstance(rate, (int, float)) and not 0 < rate < math.inf:
                raise ConfigurationError(f"a link's rate must be above 0 bits per second, not {rate}")
        for time_ms in (self.round_trip, self.jitter_ms):
            if isinstance(time_ms, (int, float)) and not 0 <= time_ms < math.inf:
                raise ConfigurationError(f"a link's round-trip time and jitter must be 0 ms or more, not {time_ms}")

    def lane(self, direction: Direction, seed: int) -> Lane:
        """One direction of a link of this shape, as it is before anything was sent."""
        rate = self.uplink if direction == "uplink" else self.downlink
        transmitter = _Recorded(rate) if isinstance(rate, CapacityTrace) else _Constant(rate)
        # Text, not a tuple: a tuple's hash differs from process to process.
        return Lane(transmitter, self.round_trip, self.jitter_ms, random.Random(f"{seed}/{direction}"))


class Lane:
    """One direction of a link. It remembers how long what was sent before keeps it busy.

    piece_bytes: what is larger should be cut into pieces of this size, which then arrive one by one.
    """

    def __init__(
        self,
        transmitter: _Constant | _Recorded,
        round_trip: float | DelayTrace,
        jitter_ms: float,
        seeded: random.Random,
    ) -> None:
        self.piece_bytes = transmitter.piece_bytes
        self._transmitter = transmitter
        self._round_trip = round_trip
        self._jitter_ms = jitter_ms
        self._random = seeded
        self._last_arrival_s = 0.0

    def send(self, now_s: float, size_bytes: int) -> tuple[float, float]:
        """Put `size_bytes` behind everything sent before; returns when the last of them leaves and when it arrives."""
        leaves_s = self._transmitter.departure_s(now_s, size_bytes)
        round_trip_ms = (
            self._round_trip.round_trip_ms(leaves_s) if isinstance(self._round_trip, DelayTrace) else self._round_trip
        )
        delay_ms = round_trip_ms / 2
        if self._jitter_ms:
            delay_ms += self._random.uniform(0, self._jitter_ms)
        self._last_arrival_s = max(self._last_arrival_s, leaves_s + delay_ms / 1000)
        return leaves_s, self._last_arrival_s

    def clear(self) -> None:
        """Forget what was sent before: the link is free now."""
        self._transmitter.clear()
        self._last_arrival_s = 0.0


class _Constant:
    """Sends at a constant rate in bits per second; None: at once."""

    def __init__(self, bps: float | None) -> None:
        self._bytes_per_s = math.inf if bps is None else bps / 8
        self._free_at_s = 0.0
        self.piece_bytes = int(min(_LARGEST_PIECE_BYTES, max(PACKET_BYTES, self._bytes_per_s * _PIECE_S)))

    def departure_s(self, now_s: float, size_bytes: int) -> float:
        self._free_at_s = max(self._free_at_s, now_s) + size_bytes / self._bytes_per_s
        return self._free_at_s

    def clear(self) -> None:
        self._free_at_s = 0.0


class _Recorded:
    """Sends as a trace allows. A packet that finds nothing to send is wasted; one that is half used is kept."""

    def __init__(self, trace: CapacityTrace) -> None:
        self._trace = trace
        self._used_bytes = 0
        self.piece_bytes = PACKET_BYTES

    def departure_s(self, now_s: float, size_bytes: int) -> float:
        wasted_bytes = self._trace.next_packet(now_s) * PACKET_BYTES
        self._used_bytes = max(self._used_bytes, wasted_bytes) + size_bytes
        last_packet = max(0, self._used_bytes - 1) // PACKET_BYTES
        return max(now_s, self._trace.departure_s(last_packet))

    def clear(self) -> None:
        self._used_bytes = 0
