"""Where a task goes next: the policy's choice among what is left for it."""

from __future__ import annotations

import math

from ..bus.messages import Candidate, Decision, Rejected
from ..policy.candidates import FLOOR, NodeView, build_candidates
from ..policy.guard import Guard
from ..policy.utility import UtilityModel
from .attempts import Attempt
from .nodes import NodeTable
from .own_model import OwnModel, OwnPlace
from .task_run import TaskRun

_FIRST_RETRY_MS = 100.0
# A node that refused for one of these may take the same task later; any other reason stays.
_PASSES_WITH_TIME = frozenset(("full", "deadline"))


class Placer:
    """Asks the policy, on what `nodes` knows. Times are of the monotonic clock."""

    def __init__(
        self,
        *,
        own_place: OwnPlace | OwnModel,
        nodes: NodeTable,
        guard: Guard,
        utility: UtilityModel,
        silent_after_ms: float,
    ) -> None:
        self._own_place = own_place
        self._nodes = nodes
        self._guard = guard
        self._utility = utility
        self._silent_after_ms = silent_after_ms

    def decide(self, task: TaskRun, now_s: float, *, but_not: str | None = None) -> Decision:
        """The policy's decision, without the nodes that the task avoids and without `but_not`."""
        avoided = task.avoided_at(now_s) | ({but_not} if but_not else set())
        facts = task.facts(now_s)
        own_view = NodeView(
            state=self._own_place.state(), age_ms=0.0, unreported=0, network_ms=0.0, refused=task.own_model_failed
        )
        views = [own_view, *self._nodes.views(now_s, refused_by=avoided)]
        candidates = build_candidates(facts, views, self._utility, silent_after_ms=self._silent_after_ms)
        # Without a node that is still being waited for, it is only a question.
        return self._guard.decide(facts, candidates, now_s, hypothetical=but_not is not None)

    def elsewhere(self, task: TaskRun, attempt: Attempt, now_s: float) -> Candidate | None:
        """Where the task would go without this attempt's node.

        The narrator is not elsewhere: it loses nothing by waiting. A model of the vehicle's own may be.
        """
        candidate = chosen(self.decide(task, now_s, but_not=attempt.node))
        if candidate.place == "vehicle" and (isinstance(self._own_place, OwnPlace) or candidate.masked):
            return None
        return candidate

    def avoid_after_refusal(self, task: TaskRun, node: str, refusal: Rejected, now_s: float) -> float:
        """Until when a node that has refused the task is not to be asked again; infinite where that is for good."""
        if refusal.reason not in _PASSES_WITH_TIME:
            return math.inf
        refused = task.refusals.get(node, 0)
        task.refusals[node] = refused + 1
        # One that keeps refusing is asked ever more rarely, whatever it says of its queue.
        return now_s + max(refusal.retry_after_ms, _FIRST_RETRY_MS * 2**refused) / 1000

    def earliest_retry_s(self, task: TaskRun, decision: Decision, now_s: float) -> float | None:
        """When a node that refused the task may be asked again and could still answer.

        None where there is none, or where the policy passed over a node that could be asked now.
        """
        if any(row.place != "vehicle" and row.masked in ("", FLOOR) for row in decision.candidates):
            return None
        retries = [
            until_s
            for node, until_s in task.avoided.items()
            if now_s < until_s and until_s + self._nodes.quickest_ms(node, task.kind.name) / 1000 <= task.speak_s
        ]
        return min(retries, default=None)


def chosen(decision: Decision) -> Candidate:
    """The row that the policy took."""
    return decision.candidates[decision.chosen]
