"""What no policy can beat in PerLLM's set-up: a fluid relaxation, solved as a linear program.

Let x_i be the share of request i that the cloud answers, and T the time that all of them take. Each link and each
server's slots work for at most T:

    sum_i x_i 8 b_i / R_cloud <= T                 sum_i (1 - x_i) 8 b_i / (N R_edge) <= T
    sum_i x_i k_i / (s_cloud r_cloud) <= T         sum_i (1 - x_i) k_i / (N s_edge r_edge) <= T

with b_i bytes, k_i tokens, R links' rates, s slots, r tokens per second of a slot, and the N edges pooled. The least T
bounds the throughput; the least idle power times T plus the marginal joules of every request bounds the energy.
Requests may be cut in pieces, nobody waits, and deadlines are forgotten: each only lowers the bound. Service times are
their means: no policy knows how a request's own deviates, so on average none gains by it. The same holds for the rates
of links that fluctuate around their nominal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .constants import PerllmConstants
from .requests import Requests


@dataclass(frozen=True, slots=True)
class Bound:
    """tokens_per_s: at most; joules_per_request, billed_joules_per_request: at least, each by itself.

    cloud_share: of the requests where energy is least. price: of a second of the cloud's link, the cloud's slots, the
    edges' slots and the edges' links, as shares of a second: the duals of the least T.
    """

    tokens_per_s: float
    joules_per_request: float
    billed_joules_per_request: float
    cloud_share: float
    price: tuple[float, float, float, float]


def fluid_bound(constants: PerllmConstants, requests: Requests) -> Bound:
    """Needs SciPy, which comes with the extra `train`; about a second for 10,000 requests."""
    from scipy.optimize import linprog

    c = constants
    bits, tokens = 8 * requests.payload_bytes, requests.tokens
    cloud_link_s, edge_link_s = bits / c.cloud_link_bps, bits / c.edge_link_bps
    cloud_service_s, edge_service_s = tokens / c.cloud_tokens_per_s, tokens / c.edge_tokens_per_s
    at_cloud = np.stack([cloud_link_s, cloud_service_s / c.cloud_slots])
    at_edges = np.stack([edge_service_s / c.edge_slots, edge_link_s]) / c.edges
    cloud_j = (c.cloud_busy_w - c.cloud_idle_w) / c.cloud_slots * cloud_service_s + c.transmit_w * cloud_link_s
    edge_j = (c.edge_busy_w - c.edge_idle_w) / c.edge_slots * edge_service_s + c.transmit_w * edge_link_s

    # Variables: x_1 ... x_n, T.
    matrix = np.column_stack([np.concatenate([at_cloud, -at_edges]), -np.ones(4)])
    limits = np.concatenate([np.zeros(2), -at_edges.sum(axis=1)])
    within = [(0.0, 1.0)] * len(bits) + [(0.0, None)]
    shortest = linprog(np.append(np.zeros_like(bits), 1.0), A_ub=matrix, b_ub=limits, bounds=within)
    thriftiest = linprog(np.append(cloud_j - edge_j, c.idle_w), A_ub=matrix, b_ub=limits, bounds=within)
    return Bound(
        tokens_per_s=float(tokens.sum() / shortest.fun),
        joules_per_request=float((thriftiest.fun + edge_j.sum()) / len(bits)),
        billed_joules_per_request=float(_billed_without_waiting(c, cloud_link_s, edge_link_s, tokens).mean()),
        cloud_share=float(thriftiest.x[:-1].mean()),
        price=tuple(-shortest.ineqlin.marginals),
    )


def _billed_without_waiting(
    c: PerllmConstants,
    cloud_link_s: NDArray[np.float64],
    edge_link_s: NDArray[np.float64],
    tokens: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[requests]: each where it is billed least, as if it had the system to itself."""
    at_cloud_s = cloud_link_s + tokens / c.cloud_tokens_per_s + c.cloud_round_trip_ms / 1000
    at_edge_s = edge_link_s + tokens / c.edge_tokens_per_s + c.edge_round_trip_ms / 1000
    return np.minimum(
        c.cloud_busy_w / c.cloud_slots * at_cloud_s + c.transmit_w * cloud_link_s,
        c.edge_busy_w / c.edge_slots * at_edge_s + c.transmit_w * edge_link_s,
    )
