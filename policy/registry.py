"""Imports every policy that ships, so that each is registered. A policy of yours registers where you import it."""

from . import greedy_utility, random_choice, static
from .base import PolicyOptions, make_policy, policy_names

__all__ = ["PolicyOptions", "greedy_utility", "make_policy", "policy_names", "random_choice", "static"]
