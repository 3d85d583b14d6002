"""Fleets of every kind to learn from: weights that have met one fleet alone are of use in no other.

Each is drawn anew (domain randomisation; Tobin et al., IROS 2017). The bounds span the committed fleet and one like
that of `roadside demo`, with small models that answer in some tens of milliseconds over a link that hardly costs
anything, and go beyond both, so that a fleet of somebody else's lies between them. Of the fleets that a bench reports
on none is learnt from but the committed one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ..environment.constants import Bounds, EnvironmentConstants, Quality

_BITS_PER_HZ = 6.0  # what a radio cell carries, about, for the load to be reckoned by
_INSTANT_HZ = 1e6  # tokens per second of a narrator, which has its answer at once
_EVERYWHERE_M = 1e6


@dataclass(frozen=True)
class FleetBounds:
    """What each fleet is drawn from: evenly between two bounds, and the rates, times and factors evenly in their
    logarithm.

    edges: how many, each as likely as it occurs. edge_token_rate_hz: tokens per second of a slot; cloud_speed: the
    cloud's rate over that.
    round_trip_ms: to an edge; cloud_distance: the cloud's over that.
    upload, deadline: over the committed kinds'. everywhere: share of the fleets in which every edge is in reach.
    narrator: share of the fleets whose vehicles answer at once and know nothing; in half of those, quality floors keep
    tasks from them.
    together: share of the fleets whose edges also answer together with the cloud.
    load: tasks that arrive over those that nodes and links can take, in the long run.
    """

    edges: Sequence[int] = (1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 8, 12, 24)
    vehicles: tuple[int, int] = (1, 40)
    edge_token_rate_hz: Bounds = (25.0, 1000.0)
    cloud_speed: Bounds = (0.4, 2.5)
    vehicle_token_rate_hz: Bounds = (5.0, 60.0)
    edge_slots: tuple[int, int] = (1, 4)
    cloud_slots: tuple[int, int] = (1, 8)
    spread: Bounds = (0.0, 0.5)
    power_w: Bounds = (15.0, 100.0)
    round_trip_ms: Bounds = (1.0, 30.0)
    cloud_distance: Bounds = (1.0, 5.0)
    upload: Bounds = (0.004, 1.0)
    deadline: Bounds = (0.6, 1.5)
    bandwidth_hz: Bounds = (10e6, 400e6)
    cloud_uplink_bps: Bounds = (60e6, 1e9)
    everywhere: float = 0.5
    narrator: float = 0.5
    vehicle_quality: Bounds = (0.2, 0.75)
    edge_quality: Bounds = (0.5, 0.95)
    cloud_quality: Bounds = (0.6, 0.97)
    together: float = 0.6
    token_round_trip_ms: Bounds = (0.5, 40.0)
    token_ms: Bounds = (0.5, 20.0)
    swing: Bounds = (0.0, 0.8)
    drift: Bounds = (0.0, 0.4)
    service_sigma: Bounds = (0.05, 0.4)
    load: Bounds = (0.05, 0.8)


@dataclass(frozen=True, slots=True)
class Fleet:
    """rate_hz: mean tasks per second. floors: whether tasks are kept from a vehicle itself while another is left."""

    constants: EnvironmentConstants
    edges: int
    rate_hz: float
    floors: bool = False


def draw_fleet(committed: EnvironmentConstants, bounds: FleetBounds, rng: np.random.Generator) -> Fleet:
    """committed: what is not drawn is as it is there; `together` needs its table [collaborative]."""

    def even(between: Bounds) -> float:
        return float(rng.uniform(*between))

    def by_factors(between: Bounds) -> float:
        return math.exp(rng.uniform(math.log(between[0]), math.log(between[1])))

    def whole(between: tuple[int, int]) -> int:
        return int(rng.integers(between[0], between[1] + 1))

    narrator = bool(rng.random() < bounds.narrator)
    edge_rate_hz, round_trip_ms = by_factors(bounds.edge_token_rate_hz), by_factors(bounds.round_trip_ms)
    upload, deadline = by_factors(bounds.upload), by_factors(bounds.deadline)
    edge = msgspec.structs.replace(
        committed.edge,
        tokens_per_second=edge_rate_hz,
        spread=even(bounds.spread),
        slots=whole(bounds.edge_slots),
        power_w=even(bounds.power_w),
        round_trip_ms=round_trip_ms,
    )
    cloud = msgspec.structs.replace(
        committed.cloud,
        tokens_per_second=edge_rate_hz * by_factors(bounds.cloud_speed),
        slots=whole(bounds.cloud_slots),
        power_w=even(bounds.power_w),
        round_trip_ms=round_trip_ms * by_factors(bounds.cloud_distance),
        uplink_bps=by_factors(bounds.cloud_uplink_bps),
    )
    collaborative = committed.collaborative
    if collaborative is not None and rng.random() < bounds.together:
        collaborative = msgspec.structs.replace(
            collaborative,
            token_round_trip_ms=by_factors(bounds.token_round_trip_ms),
            token_ms=by_factors(bounds.token_ms),
        )
    else:
        collaborative = None
    constants = msgspec.structs.replace(
        committed,
        arrivals=msgspec.structs.replace(committed.arrivals, vehicles=whole(bounds.vehicles), swing=even(bounds.swing)),
        kinds=tuple(
            msgspec.structs.replace(
                kind,
                upload_bytes=_times(kind.upload_bytes, upload),
                deadline_s=_times(kind.deadline_s, deadline),
                quality=Quality(
                    vehicle=0.0 if narrator else even(bounds.vehicle_quality),
                    edge=even(bounds.edge_quality),
                    cloud=even(bounds.cloud_quality),
                ),
            )
            for kind in committed.kinds
        ),
        vehicle=msgspec.structs.replace(
            committed.vehicle,
            tokens_per_second=_INSTANT_HZ if narrator else by_factors(bounds.vehicle_token_rate_hz),
            power_w=0.0 if narrator else even(bounds.power_w),
        ),
        edge=edge,
        cloud=cloud,
        radio=msgspec.structs.replace(
            committed.radio,
            bandwidth_hz=by_factors(bounds.bandwidth_hz),
            reach_m=_EVERYWHERE_M if rng.random() < bounds.everywhere else committed.radio.reach_m,
        ),
        hidden=msgspec.structs.replace(
            committed.hidden, drift=even(bounds.drift), service_sigma=even(bounds.service_sigma)
        ),
        collaborative=collaborative,
    )
    edges = int(rng.choice(bounds.edges))
    rate_hz = even(bounds.load) * _capacity_hz(constants, edges)
    return Fleet(constants, edges, rate_hz, floors=narrator and bool(rng.random() < 0.5))


def _times(between: Bounds, factor: float) -> Bounds:
    return between[0] * factor, between[1] * factor


def _capacity_hz(constants: EnvironmentConstants, edges: int) -> float:
    """Tasks per second that edges and cloud can take, by their slots or by their links."""
    edge, cloud = constants.edge, constants.cloud
    tokens_hz = edges * edge.slots * edge.tokens_per_second + cloud.slots * cloud.tokens_per_second
    links_bps = edges * _BITS_PER_HZ * constants.radio.bandwidth_hz + cloud.uplink_bps
    tokens = sum(kind.share * _middle(kind.tokens) for kind in constants.kinds)
    upload_bits = sum(kind.share * _middle(kind.upload_bytes) * 8 for kind in constants.kinds)
    return min(tokens_hz / tokens, links_bps / upload_bits)


def _middle(between: Bounds) -> float:
    return sum(between) / 2
