"""Imports every policy that ships, so that each is registered. A policy of yours registers where you import it."""

from . import (
    active_inference,
    cs_ucb,
    greedy_delay,
    greedy_utility,
    jsq,
    linucb,
    random_choice,
    served,
    shadow_price,
    softmax_greedy,
    static,
)
from .base import PolicyOptions, make_policy, policy_names
from .names import DEFAULT_POLICY, POLICIES

__all__ = [
    "DEFAULT_POLICY",
    "POLICIES",
    "PolicyOptions",
    "active_inference",
    "cs_ucb",
    "greedy_delay",
    "greedy_utility",
    "jsq",
    "linucb",
    "make_policy",
    "policy_names",
    "random_choice",
    "served",
    "shadow_price",
    "softmax_greedy",
    "static",
]
