"""With what each policy that has weights is trained: DDPG, the bandit, and DDPG with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ...bus.errors import ConfigurationError
from ..environment.constants import Scenario
from ..served import ABLATIONS, COLLABORATIVE
from .ddpg import DdpgOptions
from .placement import Variety

NoiseName = Literal["diffusion", "gaussian", "ornstein-uhlenbeck"]


@dataclass(frozen=True)
class Recipe:
    """total_steps: decisions to learn from. scaling_steps: further ones, by the guide, that fix the inputs' scaling.

    prior_weight: of the expected utility in a score. sampled: whether the actor's choice is relaxed by a draw.
    scenarios: of the environment's constants, of which each episode has one; knobs: 2 where they are to be learnt.
    noise_deviation: of the exploration noise, in units of the score.
    validate_every_steps: decisions between two looks at the validation episodes; the best weights are kept.
    """

    algorithm: Literal["ddpg", "bandit"] = "ddpg"
    total_steps: int = 36_000
    scaling_steps: int = 2_400
    prior_weight: float = 10.0
    sampled: bool = False
    scenarios: tuple[Scenario, ...] = ("headline",)
    knobs: int = 0
    noise: NoiseName = "diffusion"
    noise_deviation: float = 0.5
    validate_every_steps: int = 6_000
    ddpg: DdpgOptions = field(
        default_factory=lambda: DdpgOptions(
            discount=0.95,
            steps=3,
            batch_size=96,
            replay_capacity=40_000,
            actor_learning_rate=5e-4,
            critic_learning_rate=1e-3,
            target_rate=0.01,
            penalty=0.005,
            warm_up_steps=1_000,
            guided_steps=5_000,
            guided_share=0.05,
            train_every_steps=4,
            decay_from=0.6,
        )
    )
    variety: Variety = field(default_factory=Variety)


def recipe_of(name: str, *, quick: bool = False) -> Recipe:
    """The recipe of a policy of policy/served.py; ConfigurationError for another name.

    quick: a tenth of the decisions, to see that it works.
    """
    recipe = Recipe()
    ddpg = recipe.ddpg
    changed = {
        "ddpg": recipe,
        "bandit": replace(
            recipe,
            algorithm="bandit",
            prior_weight=1.0,
            noise="gaussian",
            noise_deviation=0.05,
            ddpg=replace(ddpg, discount=0.0, steps=1),
        ),
        COLLABORATIVE: replace(recipe, scenarios=("headline", "collaborative"), knobs=2),
        "ddpg-1-step": replace(recipe, ddpg=replace(ddpg, steps=1)),
        "ddpg-gaussian-noise": replace(recipe, noise="gaussian"),
        "ddpg-ornstein-uhlenbeck-noise": replace(recipe, noise="ornstein-uhlenbeck"),
        "ddpg-no-guide": replace(recipe, ddpg=replace(ddpg, guided_steps=ddpg.warm_up_steps, guided_share=0.0)),
        "ddpg-no-memory": replace(recipe, variety=replace(recipe.variety, remembers=False)),
        "ddpg-straight-through": replace(recipe, sampled=True),
    }
    assert changed.keys() == {"ddpg", "bandit", COLLABORATIVE, *ABLATIONS}
    if name not in changed:
        raise ConfigurationError(f"no recipe for a policy {name!r}; there are {', '.join(changed)}")
    found = changed[name]
    if quick:
        return replace(found, total_steps=found.total_steps // 10, validate_every_steps=found.validate_every_steps // 5)
    return found
