"""What the learner's thread does: take in experiences, learn, compare, and say what is to be published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..bus.messages import PolicyWeights
from ..policy.experience import Experience
from ..policy.live_weights import weights_label
from ..policy.training.learner import CURRENT_FILE, LearnerOptions, PolicyLearner, Verdict
from ..policy.weights import load_weights
from .configuration import LearnerConfiguration
from .publications import Publications

# Of one round. A process that is told to stop waits for the slice that is under way.
_MOST_UPDATES = 200
_SLICE_UPDATES = 20


@dataclass(frozen=True, slots=True)
class Heard:
    """weights: whose decided the task, as `Decision` has it."""

    vehicle: str
    task_id: str
    experience: Experience
    weights: str


@dataclass(frozen=True, slots=True)
class Round:
    """new: experiences that were taken in; left_out: that were known already, or came too late.

    loss: None where nothing was learnt; no number where learning failed and begins anew.
    verdict: None where nothing was looked at.
    publication: to be published now; None where the weights are the same.
    """

    new: int
    left_out: int
    updates: int
    loss: float | None
    verdict: Verdict | None
    publication: PolicyWeights | None


class Trainer:
    """Made and used on one thread, its own: torch computes there.

    retained: what the broker has of this learner. Raises ConfigurationError where folder or weights cannot be used.
    """

    def __init__(self, configuration: LearnerConfiguration, retained: PolicyWeights | None) -> None:
        # Batches this small are dearer with a second thread.
        torch.set_num_threads(1)
        self._configuration = configuration
        options = LearnerOptions(
            algorithm="bandit" if configuration.policy == "bandit" else "ddpg",
            patience_s=configuration.patience_s,
            least_held_out=configuration.least_held_out,
            watched=configuration.watched,
            margin=configuration.margin,
        )
        folder = configuration.folder_path
        # Weights of its own win, so that those to begin with need not be there any more.
        own = folder / CURRENT_FILE
        start = load_weights(own if own.exists() else configuration.start_path)
        self._learner = PolicyLearner(folder, start=start, options=options, seed=configuration.seed)
        self._publications = Publications(folder, configuration.policy, retained)
        self._trained_tasks = self._publications.trained_tasks
        self._updates_owed = 0.0
        self._unreviewed = 0

    @property
    def label(self) -> str:
        """How vehicles' decisions name the weights that are served."""
        return weights_label(self._configuration.name, self._publications.version)

    def publication(self, note: str = "what this learner serves since it was started") -> PolicyWeights:
        """The weights that are served, as they are published."""
        return self._publications.message(self._learner.current, trained_tasks=self._trained_tasks, note=note)

    def round(self, heard: list[Heard], now_s: float, stopped: Callable[[], bool]) -> Round:
        """now_s: on the clock of the experiences. stopped: whether to come to an end; asked between slices."""
        new = sum(
            self._learner.observe(
                f"{each.vehicle}/{each.task_id}", each.vehicle, each.experience, by_current=each.weights == self.label
            )
            for each in heard
        )
        self._trained_tasks += new
        self._unreviewed += new
        updates, loss = self._train(new, now_s, stopped)
        verdict, publication = self._review()
        return Round(new, len(heard) - new, updates, loss, verdict, publication)

    def close(self) -> None:
        """Remember how much was learnt from."""
        self.publication()

    def _train(self, new: int, now_s: float, stopped: Callable[[], bool]) -> tuple[int, float | None]:
        """How many batches were learnt from, and the last slice's loss."""
        owed = self._updates_owed + new * self._configuration.updates_per_outcome
        self._updates_owed = min(owed, _MOST_UPDATES)
        done, loss = 0, None
        while (updates := min(_SLICE_UPDATES, int(self._updates_owed))) and not stopped():
            latest = self._learner.train(updates, now_s)
            if latest is None:
                break
            self._updates_owed -= updates
            done, loss = done + updates, latest
        return done, loss

    def _review(self) -> tuple[Verdict | None, PolicyWeights | None]:
        if self._unreviewed < self._configuration.review_outcomes:
            return None, None
        self._unreviewed = 0
        verdict = self._learner.review()
        if verdict.action == "none":
            return verdict, None
        return verdict, self.publication(_told(verdict))


def _told(verdict: Verdict) -> str:
    if (found := verdict.comparison) is None:
        return f"{verdict.action}: {verdict.reason}"
    return (
        f"{verdict.action}: {found.difference:+.3f} utility a task (95%: {found.lower:+.3f} to {found.upper:+.3f})"
        f" on {found.decisions} held-out decisions, {found.agreement:.0%} of them alike"
    )
