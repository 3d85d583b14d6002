"""One policy's run in one cell of PerLLM's evaluation: which cells there are, and who competes in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import msgspec

from ..policy.base import Policy
from ..policy.environment.environment import run_episode
from ..policy.perllm.bound import fluid_bound
from ..policy.perllm.constants import PerllmConstants, perllm_file
from ..policy.perllm.environment import Figures, PerllmEnvironment
from ..policy.perllm.requests import draw_requests
from ..policy.registry import PolicyOptions, make_policy
from .rival_settings import IN_PERLLM
from .trained import TRAINED, served, with_weights

Network = Literal["stable", "fluctuating"]
NETWORKS: tuple[Network, ...] = get_args(Network)
HEADLINE_MODEL = "headline"
_FLUCTUATION = 0.2

CLOUD_ONLY = "cloud-only"
BOUND = "lp-bound"


@dataclass(frozen=True, slots=True)
class Cell:
    """model: on the edges, of those in the constants' file, or the headline's."""

    network: Network = "stable"
    model: str = HEADLINE_MODEL

    def constants(self, requests: int) -> PerllmConstants:
        file = perllm_file()
        changes: dict[str, float] = {"requests": requests}
        if self.network == "fluctuating":
            changes["link_fluctuation"] = _FLUCTUATION
        if self.model != HEADLINE_MODEL:
            changes["edge_tokens_per_s"] = file.edge_models[self.model]
        return msgspec.structs.replace(file.headline, **changes)


@dataclass(frozen=True, slots=True)
class PerllmJob:
    cell: Cell
    policy: str
    seed: int
    requests: int


def run_job(job: PerllmJob) -> Figures:
    """The figures of one run, or those that bound every run."""
    constants = job.cell.constants(job.requests)
    if job.policy == BOUND:
        return _bound(constants, job.seed)
    batch_s = constants.cloud_only_batch_s if job.policy == CLOUD_ONLY else 0.0
    environment = PerllmEnvironment(constants, seed=job.seed, cloud_batch_s=batch_s)
    # What was trained was trained in the simulated fleet, and is tried here as it is.
    policy = served(job.policy) if job.policy in TRAINED else _FACTORIES[job.policy](PolicyOptions(seed=job.seed))
    return run_episode(environment, policy)


def contenders() -> list[str]:
    """Every policy that there is, the bound last."""
    return [*_FACTORIES, *with_weights(TRAINED), BOUND]


def _bound(constants: PerllmConstants, seed: int) -> Figures:
    bound = fluid_bound(constants, draw_requests(constants, seed))
    mean_tokens = sum(constants.tokens) / 2
    return Figures(
        success_share=1.0,  # deadlines are forgotten
        # Little's law: nobody pauses, so so many users are always waiting.
        latency_mean_s=constants.users * mean_tokens / bound.tokens_per_s,
        tokens_per_s=bound.tokens_per_s,
        joules_per_request=bound.joules_per_request,
        billed_joules_per_request=bound.billed_joules_per_request,
        cloud_share=bound.cloud_share,
    )


def _at(place: Literal["edge", "cloud"], options: PolicyOptions) -> Policy:
    return make_policy("static", PolicyOptions(place=place, seed=options.seed))


_FACTORIES: dict[str, Callable[[PolicyOptions], Policy]] = {
    CLOUD_ONLY: partial(_at, "cloud"),
    "edge-only": partial(_at, "edge"),
    **{name: partial(make_policy, name) for name in ("random", "greedy-delay", "greedy-utility")},
    **{name: rival.build for name, rival in IN_PERLLM.items()},
}
