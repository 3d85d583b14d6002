"""The placement environment as others' agents know environments: Gymnasium's interface.

    environment = PlacementEnvironment(load_constants(), heartbeat_s=0.5)
    observation, _ = environment.reset(seed=1000)

Needs the `train` extra; nothing else imports this module.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ...bus.errors import ConfigurationError
from ..features import FEATURE_LIMIT, FEATURES
from ..selection import best
from .constants import EnvironmentConstants
from .environment import Environment, Situation

Observation = dict[str, NDArray[Any]]

_SEEDS = 2**31


class PlacementEnvironment(gymnasium.Env[Any, np.int64]):
    """Observation: "features" [rows, len(FEATURES)] float32 and "allowed" [rows] of 0 and 1; rows beyond are zeros.

    Action: a row. One that is not allowed is replaced by the allowed one of highest expected utility, and the step's
    info says so under "replaced". Reward: the decision's realised utility.
    rows: to pad to, so that fleets of several sizes look alike; 0: none to spare.
    options: of Environment (edges, heartbeat_s, rate, tasks, ...). A reset without a seed draws the next traces.

    Raises ConfigurationError where `rows` is too few for the fleet.
    """

    def __init__(self, constants: EnvironmentConstants, *, rows: int = 0, **options: Any) -> None:
        self._environment = Environment(constants, **options)
        fleet_rows = len(self._environment.layout)
        self._rows = rows or fleet_rows
        if self._rows < fleet_rows:
            raise ConfigurationError(f"the fleet has {fleet_rows} places to choose from; give as many rows")
        shape = (self._rows, len(FEATURES))
        self.observation_space = spaces.Dict(
            {
                "features": spaces.Box(-FEATURE_LIMIT, FEATURE_LIMIT, shape, np.float32),
                "allowed": spaces.MultiBinary(self._rows),
            }
        )
        self.action_space = spaces.Discrete(self._rows)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        trace_seed = int(self.np_random.integers(_SEEDS)) if seed is None else seed
        return self._observation(self._environment.reset(trace_seed)), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        allowed = self._environment.situation.allowed
        row = int(action)
        replaced = row >= len(allowed) or not allowed[row]
        if replaced:
            row = best(self._environment.situation.candidates.utility, allowed)
        step = self._environment.step(row)
        # The fleet drives on after the last task: the episode is cut off there, it has no end of its own.
        truncated = step.situation is None
        observation = self._nothing() if step.situation is None else self._observation(step.situation)
        return observation, step.reward, False, truncated, {"replaced": replaced}

    def _nothing(self) -> Observation:
        return {
            "features": np.zeros((self._rows, len(FEATURES)), np.float32),
            "allowed": np.zeros(self._rows, np.int8),
        }

    def _observation(self, situation: Situation) -> Observation:
        observation, rows = self._nothing(), len(situation.allowed)
        observation["features"][:rows] = situation.candidates.features
        observation["allowed"][:rows] = situation.allowed
        return observation
