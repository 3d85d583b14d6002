"""Each rival's settings: those that were tried, and those that it competes with.

`roadside bench rivals` runs all of TRIED on seeds that no result is reported on. A rival is entered with the best
setting that was found for it, in each set-up its own; for the placement environment these are its defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..policy.active_inference import ActiveInferencePolicy, ActiveInferenceSettings
from ..policy.base import Policy
from ..policy.cs_ucb import CsUcbPolicy, CsUcbSettings
from ..policy.jsq import JsqPolicy, JsqSettings
from ..policy.linucb import LinUcbPolicy, LinUcbSettings
from ..policy.registry import PolicyOptions
from ..policy.shadow_price import ShadowPricePolicy, ShadowPriceSettings
from ..policy.softmax_greedy import SoftmaxGreedyPolicy, SoftmaxGreedySettings

_POLICIES: dict[str, tuple[Callable[..., Policy], Callable[..., Any], dict[str, Any]]] = {
    "jsq": (JsqPolicy, JsqSettings, {}),
    "softmax-greedy": (SoftmaxGreedyPolicy, SoftmaxGreedySettings, {}),
    "shadow-price": (ShadowPricePolicy, ShadowPriceSettings, {}),
    "linucb": (LinUcbPolicy, LinUcbSettings, {}),
    "cs-ucb": (CsUcbPolicy, CsUcbSettings, {}),
    "cs-ucb-predicted": (CsUcbPolicy, CsUcbSettings, {"predicts_delay": True}),
    "active-inference": (ActiveInferencePolicy, ActiveInferenceSettings, {}),
}


@dataclass(frozen=True, slots=True)
class Rival:
    """A policy with settings; only those that are named differ from its defaults."""

    policy: str
    settings: tuple[tuple[str, Any], ...] = ()

    def build(self, options: PolicyOptions) -> Policy:
        make, settings, flags = _POLICIES[self.policy]
        return make(options, settings(**dict(self.settings)), **flags)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings) or "defaults"


def _grid(policy: str, **values: list[Any]) -> list[Rival]:
    return [Rival(policy, tuple(zip(values, combination, strict=True))) for combination in product(*values.values())]


_CS_UCB_FLEET = {"delta": [0.1, 0.3], "slots_limit": [0.75, 1.0, 1.5, 3.0], "link_limit_s": [0.5, 2.0]}
_CS_UCB_PERLLM = {
    "reward": ["equation-4"],
    "delta": [0.1, 0.3],
    "slots_limit": [1.5, 2.0, 3.0],
    "link_limit_s": [0.5, 1.0, 2.0],
}
TRIED: dict[str, list[Rival]] = {
    "fleet": [
        *_grid("jsq", choices=[0, 2, 3, 4]),
        *_grid("softmax-greedy", temperature=[0.05, 0.1, 0.2, 0.3]),
        *_grid("shadow-price", price_factor=[50.0, 100.0, 250.0, 500.0]),
        *_grid("linucb", alpha=[0.03, 0.1, 0.3], ridge=[0.1, 1.0]),
        *_grid("cs-ucb", **_CS_UCB_FLEET),
        *_grid("cs-ucb-predicted", **_CS_UCB_FLEET),
        *_grid(
            "active-inference",
            precision=[3.0, 4.0, 8.0],
            preference=[2.0, 4.0],
            curiosity=[0.5, 1.0],
            wait_bin_s=[0.1, 0.25],
        ),
    ],
    "perllm": [
        *_grid("jsq", choices=[0, 2, 3, 4]),
        *_grid("softmax-greedy", temperature=[0.005, 0.02, 0.05]),
        *_grid("shadow-price", objective=["utility", "delay"], price_factor=[50.0, 100.0, 200.0]),
        *_grid("linucb", alpha=[0.01, 0.03, 0.1], ridge=[1.0]),
        *_grid("cs-ucb", **_CS_UCB_PERLLM),
        *_grid("cs-ucb-predicted", **_CS_UCB_PERLLM),
        *_grid("active-inference", precision=[3.0, 8.0, 32.0], preference=[2.0, 4.0], wait_bin_s=[0.1, 0.25, 0.5]),
    ],
}

# In PerLLM's set-up: the best share in time to within 0.2 points, and of those the most tokens per second. In the
# placement environment they are the policies' defaults: the highest utility.
IN_PERLLM = {
    rival.policy: rival
    for rival in (
        Rival("jsq", (("choices", 3),)),
        Rival("softmax-greedy", (("temperature", 0.005),)),
        Rival("shadow-price", (("objective", "delay"), ("price_factor", 100.0))),
        Rival("linucb", (("alpha", 0.03),)),
        Rival("cs-ucb", (("reward", "equation-4"), ("delta", 0.1), ("slots_limit", 2.0), ("link_limit_s", 1.0))),
        Rival(
            "cs-ucb-predicted",
            (("reward", "equation-4"), ("delta", 0.1), ("slots_limit", 2.0), ("link_limit_s", 1.0)),
        ),
        Rival("active-inference", (("precision", 3.0), ("preference", 4.0), ("wait_bin_s", 0.5))),
    )
}
