"""`clairvoyant`: what could be had by knowing everything, as a yardstick for those who do not.

It sees every queue as it is, every task to come and how each will turn out, and rolls out the greedy policy with that
knowledge: for each row that may be taken, what this task and the next ones would come to together. It is not quite a
bound: a longer look or a better policy in the roll-out would find more, and where there is more to do than the fleet
can, a policy that gives some tasks up may pass it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import Choice
from ..candidates import Candidates
from ..experience import Experience
from ..features import TaskFacts
from ..selection import best
from .dynamics import FleetState
from .environment import Environment


class ClairvoyantPolicy:
    """horizon: how many tasks it looks ahead; 0: greedy, with the true outcome of each row.

    It belongs to one environment, whose waiting task is the one that it decides, and leaves the knobs alone.
    """

    name = "clairvoyant"
    ignores_floors = False

    def __init__(self, environment: Environment, *, horizon: int = 40) -> None:
        self._environment = environment
        self._horizon = horizon
        self._rows: list[list[int]] = []
        self._rows_of: object = None

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        environment = self._environment
        scores = np.zeros(len(candidates))
        for row in np.flatnonzero(allowed).tolist():
            state = environment.state.copy()
            scores[row] = environment.look(state, environment.number, row).utility + self._roll_out(state)
        return Choice(best(scores, allowed), scores, 1.0, "the best way that things can go")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def _roll_out(self, state: FleetState) -> float:
        """Utility of the tasks after the waiting one, each sent where it is worth most by itself."""
        environment, rows = self._environment, self._allowed_rows()
        total = 0.0
        for number in range(environment.number + 1, min(environment.number + 1 + self._horizon, environment.tasks)):
            _, row = max((environment.peek(state, number, row).utility, row) for row in rows[number])
            total += environment.look(state, number, row).utility
        return total

    def _allowed_rows(self) -> list[list[int]]:
        """Of each task of the episode that is under way."""
        traces = self._environment.traces
        if self._rows_of is not traces:
            self._rows = [np.flatnonzero(free).tolist() for free in traces.reachable]
            self._rows_of = traces
        return self._rows
