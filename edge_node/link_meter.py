"""What an edge knows of the way to one cloud, from the questions that it asks there anyway."""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest measurement.
_SMOOTHING = 0.2
_FIRST_ROUND_TRIP_MS = 10.0  # a guess until the first reply has been timed
# Less than this says nothing about a rate: on most links it fits into a packet or a few.
_LEAST_BYTES_FOR_A_RATE = 4096
# A question that comes back so much later than a round trip takes has waited behind what was sent before it.
_NOTICEABLE_MS = 0.5


@dataclass(frozen=True, slots=True)
class Timed:
    """One question and its first reply, in milliseconds.

    took_ms: between the two; queue_ms, compute_ms: of that at the cloud, as it says.
    sent_bytes: context that went up just before the question; sending_ms: how long before the question that began.
    ran_more: than a batch of tokens: the prompt, which a session's first question is behind, or a whole answer.
    """

    took_ms: float
    queue_ms: float
    compute_ms: float
    sent_bytes: int
    sending_ms: float
    ran_more: bool = False

    @property
    def on_the_way_ms(self) -> float:
        return max(0.0, self.took_ms - self.queue_ms - self.compute_ms)


class LinkMeter:
    """Smoothed measurements; None where there were none yet.

    round_trip_ms: of a small request and its reply. ms_per_byte: of context on its way up.
    wait_ms, compute_ms: at the cloud.
    """

    def __init__(self) -> None:
        self.round_trip_ms = _FIRST_ROUND_TRIP_MS
        self.wait_ms = 0.0
        self.compute_ms: float | None = None
        self._ms_per_byte: float | None = None
        self._has_round_trip = False

    @property
    def uplink_bps(self) -> float | None:
        return None if self._ms_per_byte is None else 8e3 / self._ms_per_byte

    def sending_ms(self, sent_bytes: int) -> float:
        """How long so many bytes probably keep the uplink busy; 0 where nothing is known."""
        return sent_bytes * (self._ms_per_byte or 0.0)

    def take(self, timed: Timed) -> None:
        """Learn from a question that was answered."""
        self.wait_ms = _smoothed(self.wait_ms, timed.queue_ms)
        if not timed.ran_more:
            self.compute_ms = _smoothed(self.compute_ms, timed.compute_ms)
        if timed.sent_bytes >= _LEAST_BYTES_FOR_A_RATE and self._has_round_trip:
            self._take_rate(timed)
        else:
            way_ms = max(0.0, timed.on_the_way_ms - self.sending_ms(timed.sent_bytes))
            # The first measurement replaces the guess.
            self.round_trip_ms = _smoothed_typical(self.round_trip_ms if self._has_round_trip else None, way_ms)
            self._has_round_trip = True

    def _take_rate(self, timed: Timed) -> None:
        # A question with its context cannot be faster than one alone.
        self.round_trip_ms = min(self.round_trip_ms, timed.on_the_way_ms)
        waited_ms = timed.on_the_way_ms - self.round_trip_ms
        if waited_ms > _NOTICEABLE_MS:
            self._ms_per_byte = _smoothed_typical(self._ms_per_byte, (timed.sending_ms + waited_ms) / timed.sent_bytes)
        else:
            # All was up before the question left, or almost: the rate is at least this.
            at_most = max(timed.sending_ms, _NOTICEABLE_MS) / timed.sent_bytes
            if self._ms_per_byte is not None and at_most < self._ms_per_byte:
                self._ms_per_byte = _smoothed(self._ms_per_byte, at_most)


def _smoothed(so_far: float | None, newest: float) -> float:
    return newest if so_far is None else so_far + _SMOOTHING * (newest - so_far)


def _smoothed_typical(so_far: float | None, newest: float) -> float:
    """As `_smoothed`, but a link that stood still for seconds counts as one that took twice the usual time."""
    return newest if so_far is None else _smoothed(so_far, min(newest, 2 * so_far))
