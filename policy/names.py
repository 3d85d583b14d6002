"""The policies that ship, by name: for those who only need to name them, and are to start without NumPy."""

from __future__ import annotations

# What `roadside demo` and a vehicle use that are not told otherwise: who wins on the simulated fleet that was fitted to
# a run of the demo. `roadside bench default` fits one, ranks the policies in it, and says whether this still holds.
DEFAULT_POLICY = "greedy-utility"

# The registry's (registry.py), without variants that only a bench compares.
POLICIES = (
    "active-inference",
    "bandit",
    "cs-ucb",
    "cs-ucb-predicted",
    "ddpg",
    "greedy-delay",
    "greedy-utility",
    "jsq",
    "linucb",
    "random",
    "shadow-price",
    "softmax-greedy",
    "static",
)
