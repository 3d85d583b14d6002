"""Everything that chance decides in a run, drawn before it: every policy meets the same requests and the same links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .constants import PerllmConstants

# A second's factor of a link is used again after so many seconds; the slowest policy's run takes about as long.
_LINK_PERIOD_S = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """first_s: [users], when each user asks first. Request n is the n-th to be asked, by whomever.

    payload_bytes, tokens, deadline_s, service_factor: [requests]; the last is lognormal with mean 1, and no policy
    knows it.
    link_factor: [edges + 1, seconds] of the nominal rates, the cloud's last.
    """

    first_s: NDArray[np.float64]
    payload_bytes: NDArray[np.float64]
    tokens: NDArray[np.float64]
    deadline_s: NDArray[np.float64]
    service_factor: NDArray[np.float64]
    link_factor: NDArray[np.float64]


def draw_requests(constants: PerllmConstants, seed: int) -> Requests:
    """The same seed draws the same requests whatever the links' fluctuation is."""
    users, payload, tokens, deadline, service, links = np.random.default_rng(seed).spawn(6)
    sigma = constants.service_sigma
    return Requests(
        first_s=users.uniform(0.0, constants.first_request_s, constants.users),
        payload_bytes=payload.uniform(*constants.payload_bytes, constants.requests),
        tokens=tokens.uniform(*constants.tokens, constants.requests),
        deadline_s=deadline.uniform(*constants.deadline_s, constants.requests),
        service_factor=np.exp(service.normal(-(sigma**2) / 2, sigma, constants.requests)),
        link_factor=1 + constants.link_fluctuation * links.uniform(-1, 1, (constants.edges + 1, _LINK_PERIOD_S)),
    )
