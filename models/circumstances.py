"""Under which circumstances a question is answered: what a node knows of its link and of the time that is left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """The way to a cloud, smoothed over what was measured of late.

    round_trip_ms: of a small request and its reply, without the cloud's own time.
    uplink_bps: bits per second of context on its way up; None: nothing large enough has gone up yet.
    wait_ms: how long a request waits at the cloud before it is computed.
    compute_ms: of one reply to an Ask there, be it one token or one batch of claims; None: none was given yet.
    answer_ms: of a whole answer that the cloud makes by itself, without waiting; None: unknown.
    takes_prompts: whether it can encode a question and run token ids. bytes_per_value: of hidden states on the wire.
    """

    round_trip_ms: float
    uplink_bps: float | None = None
    wait_ms: float = 0.0
    compute_ms: float | None = None
    answer_ms: float | None = None
    takes_prompts: bool = False
    bytes_per_value: float = 2.0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """link: None: nothing is known. remaining_ms: until the answer is worth nothing; None: there is no hurry."""

    link: LinkEstimate | None = None
    remaining_ms: float | None = None


UNKNOWN = Circumstances()
