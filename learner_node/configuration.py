"""A learner's configuration: the keys of its TOML file and the flags of `roadside learner`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from msgspec import Meta

from ..bus.configuration import MemberConfiguration
from ..policy.weights import bundled_weights

LearnablePolicy = Literal["ddpg", "bandit"]
LEARNABLE: tuple[LearnablePolicy, ...] = get_args(LearnablePolicy)


class LearnerConfiguration(MemberConfiguration, frozen=True, kw_only=True):
    """policy: whose weights are learnt and published.

    folder: what it has learnt so far, from which it goes on when it is started again; None: a folder with its name.
    start: weights to begin with where that folder is empty; None: those that ship. seed: of its training.
    round_interval_s: how often it takes in what it has heard, and learns.
    updates_per_outcome: batches that are learnt from for each new outcome.
    review_outcomes: so many new outcomes between two looks at whether what was learnt is better than what is served.
    patience_s, least_held_out, watched, margin: as in LearnerOptions (policy/training/learner.py).
    """

    name: str = "learner-1"
    policy: LearnablePolicy = "ddpg"
    folder: str | None = None
    start: str | None = None
    seed: int = 0
    round_interval_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    updates_per_outcome: Annotated[float, Meta(gt=0, le=100)] = 4.0
    review_outcomes: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    patience_s: Annotated[float, Meta(ge=0, le=600)] = 15.0
    least_held_out: Annotated[int, Meta(ge=2, le=2_000)] = 400
    watched: Annotated[int, Meta(ge=2, le=100_000)] = 400
    margin: Annotated[float, Meta(ge=0, le=1)] = 0.0

    @property
    def folder_path(self) -> Path:
        return Path(self.folder or self.name)

    @property
    def start_path(self) -> Path:
        return bundled_weights(self.policy) if self.start is None else Path(self.start)
