"""With what each policy that has weights is trained: DDPG, the bandit, and DDPG with one thing changed.

DDPG learns on fleets of every kind. The bandit, and what tells what DDPG's parts are worth, learn on the committed
fleet alone and from fewer decisions: `ddpg-one-fleet` is whole, and the others lack one part of it each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ...bus.errors import ConfigurationError
from ..served import ABLATIONS, KNOBS, ONE_FLEET
from .ddpg import DdpgOptions
from .placement import Variety

NoiseName = Literal["diffusion", "gaussian", "ornstein-uhlenbeck"]

# Of placement, wherever it is learnt: here from nothing, and by a learner (learner.py) from weights that are served.
PLACEMENT = DdpgOptions(
    discount=0.95,
    steps=3,
    batch_size=96,
    replay_capacity=40_000,
    actor_learning_rate=5e-4,
    critic_learning_rate=1e-3,
    target_rate=0.01,
    penalty=0.005,
)


@dataclass(frozen=True)
class Recipe:
    """total_steps: decisions to learn from. scaling_steps: further ones, by the guide, that fix the inputs' scaling.

    prior_weight: of the expected utility in a score.
    knobs: 2 where they are to be learnt.
    noise_deviation: of the exploration noise, in units of the score.
    validate_every_steps: decisions between two looks at the validation episodes; the best weights are kept.
    """

    algorithm: Literal["ddpg", "bandit"] = "ddpg"
    total_steps: int = 40_000
    scaling_steps: int = 6_000
    prior_weight: float = 10.0
    knobs: int = 0
    noise: NoiseName = "diffusion"
    noise_deviation: float = 0.5
    validate_every_steps: int = 8_000
    ddpg: DdpgOptions = field(
        default_factory=lambda: replace(
            PLACEMENT, warm_up_steps=1_000, guided_steps=5_000, guided_share=0.05, train_every_steps=4, decay_from=0.6
        )
    )
    variety: Variety = field(default_factory=Variety)


def recipe_of(name: str, *, quick: bool = False) -> Recipe:
    """The recipe of a policy of policy/served.py; ConfigurationError for another name.

    quick: a tenth of the decisions, to see that it works.
    """
    recipe = Recipe()
    one_fleet = replace(
        recipe,
        total_steps=36_000,
        scaling_steps=2_400,
        validate_every_steps=6_000,
        variety=replace(recipe.variety, together=0.0, others=0.0),
    )
    ddpg = recipe.ddpg
    changed = {
        "ddpg": recipe,
        "bandit": replace(
            one_fleet,
            algorithm="bandit",
            prior_weight=1.0,
            noise="gaussian",
            noise_deviation=0.05,
            ddpg=replace(ddpg, discount=0.0, steps=1),
        ),
        KNOBS: replace(recipe, knobs=2),
        ONE_FLEET: one_fleet,
        "ddpg-1-step": replace(one_fleet, ddpg=replace(ddpg, steps=1)),
        "ddpg-gaussian-noise": replace(one_fleet, noise="gaussian"),
        "ddpg-ornstein-uhlenbeck-noise": replace(one_fleet, noise="ornstein-uhlenbeck"),
        "ddpg-no-memory": replace(one_fleet, variety=replace(one_fleet.variety, remembers=False)),
    }
    assert changed.keys() == {"ddpg", "bandit", KNOBS, ONE_FLEET, *ABLATIONS}
    if name not in changed:
        raise ConfigurationError(f"no recipe for a policy {name!r}; there are {', '.join(changed)}")
    found = changed[name]
    if quick:
        return replace(found, total_steps=found.total_steps // 10, validate_every_steps=found.validate_every_steps // 5)
    return found
