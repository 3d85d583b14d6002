"""What happens whatever a policy does, drawn before the first decision: the same for every policy of the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .constants import EnvironmentConstants, Radio
from .layout import Layout

_SEEN_FROM = 2.0  # both parameters of the beta distribution of the vehicles' first positions: dense in the middle


@dataclass(frozen=True, slots=True, eq=False)
class Traces:
    """Of m tasks, v vehicles and n rows (places at nodes, as in `Layout`); arrays are [m] or as said.

    kind: index into the constants' kinds; vehicle: who asks.
    announced_bps, actual_bps: [m, n] rate of an upload, infinite for the vehicle's own row: as the vehicle estimates it
        from the distance, and as shadowing and others leave it.
    reachable: [m, n]. slowness: [m] factor on the inference time of a task; node_speed: [n] hidden factor on the rate
        that a row's node announces. report_error: [m, nodes] factor on the queue that a node reports then.
    """

    arrival_s: NDArray[np.float64]
    vehicle: NDArray[np.intp]
    kind: NDArray[np.intp]
    upload_bytes: NDArray[np.float64]
    tokens: NDArray[np.float64]
    deadline_s: NDArray[np.float64]
    announced_bps: NDArray[np.float64]
    actual_bps: NDArray[np.float64]
    reachable: NDArray[np.bool_]
    slowness: NDArray[np.float64]
    node_speed: NDArray[np.float64]
    report_error: NDArray[np.float64] | None


def draw_traces(constants: EnvironmentConstants, layout: Layout, *, rate: float, tasks: int, seed: int) -> Traces:
    """rate: mean tasks per second of the whole fleet. The same arguments give the same traces."""
    draw = np.random.default_rng(seed)
    edges, vehicles, hidden = layout.edges, constants.arrivals.vehicles, constants.hidden
    arrival_s = _arrivals(constants, draw, rate, tasks)
    road_m = constants.road.edge_spacing_m * edges
    start_m = draw.beta(_SEEN_FROM, _SEEN_FROM, vehicles) * road_m
    speed_mps = draw.uniform(*constants.road.speed_mps, vehicles) * draw.choice([-1, 1], vehicles)
    vehicle = draw.integers(0, vehicles, tasks)
    kind = draw.choice(len(constants.kinds), tasks, p=[each.share for each in constants.kinds])
    upload, tokens, deadline = (
        low + even * (high - low)
        for even, (low, high) in zip(
            draw.random((3, tasks)),
            (
                np.array([getattr(each, bounds) for each in constants.kinds])[kind].T
                for bounds in ("upload_bytes", "tokens", "deadline_s")
            ),
            strict=True,
        )
    )
    distance_m = _distances(constants, (start_m[vehicle] + speed_mps[vehicle] * arrival_s) % road_m, edges)
    snr_db = _snr_db(constants.radio, distance_m)
    shadowing_db = draw.normal(0, constants.radio.shadowing_db, snr_db.shape)
    slowness = np.exp(draw.normal(-(hidden.service_sigma**2) / 2, hidden.service_sigma, tasks))
    # One factor for each node, of which a vehicle's own is known.
    node_speed = draw.uniform(1 - hidden.drift, 1 + hidden.drift, edges + 2)
    node_speed[0] = 1.0
    cloud_bps = constants.cloud.uplink_bps * np.exp(draw.normal(0, constants.cloud.uplink_sigma, tasks))
    report_error = None
    if hidden.report_sigma:
        report_error = np.exp(draw.normal(0, hidden.report_sigma, (tasks, edges + 2)))

    own = np.full((tasks, 1), np.inf)
    cloud_announced_bps = np.full((tasks, 1), constants.cloud.uplink_bps)
    announced_bps = np.hstack((own, _capacity_bps(constants.radio, snr_db), cloud_announced_bps))
    actual_bps = np.hstack((own, _capacity_bps(constants.radio, snr_db + shadowing_db), cloud_bps[:, None]))
    always = np.ones((tasks, 1), np.bool_)
    reachable = np.hstack((always, distance_m < constants.radio.reach_m, always))
    return Traces(
        arrival_s=arrival_s,
        vehicle=vehicle,
        kind=kind,
        upload_bytes=upload,
        tokens=tokens,
        deadline_s=deadline,
        announced_bps=announced_bps[:, layout.node],
        actual_bps=actual_bps[:, layout.node],
        reachable=reachable[:, layout.node],
        slowness=slowness,
        node_speed=node_speed[layout.node],
        report_error=report_error,
    )


def _arrivals(
    constants: EnvironmentConstants, draw: np.random.Generator, rate: float, tasks: int
) -> NDArray[np.float64]:
    """A Poisson process of a swinging rate, by thinning one of its highest rate (Lewis and Shedler, 1979)."""
    swing, period_s = constants.arrivals.swing, constants.arrivals.period_s
    at_s, arrival_s = 0.0, list[float]()
    while len(arrival_s) < tasks:
        at_s += draw.exponential(1 / ((1 + swing) * rate))
        if draw.random() < (1 + swing * math.sin(2 * math.pi * at_s / period_s)) / (1 + swing):
            arrival_s.append(at_s)
    return np.array(arrival_s)


def _distances(constants: EnvironmentConstants, position_m: NDArray[np.float64], edges: int) -> NDArray[np.float64]:
    """[m, edges] metres from the vehicle to each edge's mast, around the ring whichever way is shorter."""
    road = constants.road
    mast_m = road.edge_spacing_m * (0.5 + np.arange(edges))
    along_m = np.abs(position_m[:, None] - mast_m)
    along_m = np.minimum(along_m, road.edge_spacing_m * edges - along_m)
    return np.hypot(along_m, road.edge_offset_m)


def _snr_db(radio: Radio, distance_m: NDArray[np.float64]) -> NDArray[np.float64]:
    path_loss_db = 32.4 + 21 * np.log10(distance_m) + 20 * math.log10(radio.frequency_ghz)
    return radio.transmit_dbm - path_loss_db - radio.noise_dbm


def _capacity_bps(radio: Radio, snr_db: NDArray[np.float64]) -> NDArray[np.float64]:
    return radio.bandwidth_hz * np.log2(1 + 10 ** (snr_db / 10))
