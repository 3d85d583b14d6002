"""Weights that a learner publishes while vehicles drive: taken between two decisions, or refused and counted.

Whatever arrives, the policy goes on with the weights that it has unless the new ones are whole, fit this program, are
for this policy, come from the learner that is followed, and are newer than what that learner sent before.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol, runtime_checkable

import structlog

from ..bus.errors import WeightsError
from ..bus.messages import PolicyWeights
from .features import FEATURE_SCHEMA
from .weights import Weights, decode_weights

log = structlog.get_logger()


@runtime_checkable
class TakesWeights(Protocol):
    """A policy whose weights may be replaced. `weights_label` says whose it has, and travels with its decisions."""

    name: str
    weights_label: str

    def use(self, weights: Weights, label: str = "") -> None:
        """Raises WeightsError, and stays as it is, where it cannot be served with them."""
        ...


class LiveWeights:
    """learner: whose weights are taken; None: the first one's whose weights are fit to be taken.

    `counters`: weights_taken, weights_refused.<reason>. What came before, unchanged, is neither.
    """

    def __init__(self, policy: TakesWeights, *, learner: str | None = None) -> None:
        self._policy = policy
        self._learner = learner
        self._version: int | None = None
        self.counters: Counter[str] = Counter()

    def hear(self, learner: str, message: PolicyWeights) -> bool:
        """Take a learner's message; False where the weights stay as they are."""
        if learner == self._learner and message.version == self._version:
            return False  # retained, so each connection begins with it
        label = weights_label(learner, message.version)
        try:
            self._check(learner, message)
            self._policy.use(decode_weights(message.weights, label), label)
        except WeightsError as error:
            self.counters[f"weights_refused.{error.reason}"] += 1
            log.warning("weights refused", learner=learner, version=message.version, why=str(error)[:200])
            return False
        self._learner, self._version = learner, message.version
        self.counters["weights_taken"] += 1
        log.info("new weights", policy=self._policy.name, learner=learner, version=message.version)
        return True

    def _check(self, learner: str, message: PolicyWeights) -> None:
        """Whatever can be told without unpacking anything."""
        if self._learner not in (None, learner):
            raise WeightsError("another learner", f"{learner} is not {self._learner}, which is followed")
        if message.policy != self._policy.name:
            raise WeightsError("another policy", f"weights of {message.policy!r} for {self._policy.name!r}")
        if message.feature_schema != FEATURE_SCHEMA:
            raise WeightsError("other features", f"features {message.feature_schema}, here they are {FEATURE_SCHEMA}")
        if self._version is not None and message.version < self._version:
            raise WeightsError("old version", f"version {message.version} after {self._version}")


def weights_label(learner: str, version: int) -> str:
    """How decisions name the weights behind them."""
    return f"{learner} v{version}"
