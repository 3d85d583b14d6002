"""`shadow-price`: greedy, but each task pays for the links and slots that it keeps from those who come after it.

What a second of a resource is worth is the dual of the fluid problem "give every task a place so that the busiest
resource works least":

    max over prices >= 0 with sum 1 of   sum over tasks of   min over places p of   cost(task, p)
    cost(task, p) = price[p, link] upload(task, p) / n_p + price[p, slots] service(task, p) / s_p

where the n_p nodes of a place, with s_p slots in all, are pooled. The prices are learnt from the tasks alone, by
exponentiated gradient steps: each task goes in thought to its cheapest place, whose resources' prices rise by what it
uses there; what counts is the mean of the prices over the last tasks (Arora, Hazan and Kale, "The multiplicative
weights update method", 2012, section 3). They say where it is scarce, and not how scarce it is: that is told by how
long tasks have had to wait lately. A decision then is

    argmax   utility - value of time * price_factor * mean wait * cost(task, row) / deadline

so small pictures go where links are scarce, short answers where slots are, and all is plain greed where nobody waits.
The vehicle's own place costs nobody else anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..bus.places import PLACES, Place
from .base import Choice, PolicyOptions, register
from .candidates import Candidates
from .experience import Experience
from .features import TaskFacts
from .selection import best
from .utility import UtilityModel

_SHARED_PLACES = tuple(place for place in PLACES if place != "vehicle")
_LATE = 1e3


@dataclass(frozen=True, slots=True)
class ShadowPriceSettings:
    """objective: what is weighed against the price: `utility`, or `delay`: in time first, then shortest delay.

    price_factor: delay that a second of the one scarce resource is worth, for each second that tasks wait. step: of the
    gradient; memory: tasks over which prices and waits are averaged.
    """

    objective: Literal["utility", "delay"] = "utility"
    price_factor: float = 250.0
    step: float = 2.0
    memory: int = 500


class _Prices:
    """[place, (link, slots)] for each shared place; sums to 1."""

    def __init__(self, settings: ShadowPriceSettings) -> None:
        self._settings = settings
        self._use = np.zeros((len(_SHARED_PLACES), 2))  # in units of the first task's, so that steps have no unit
        self._known = np.zeros(len(_SHARED_PLACES), np.bool_)
        self._unit = 0.0
        self._tasks = 0
        self.mean = np.zeros_like(self._use)

    def learn(self, use: NDArray[np.float64], there: NDArray[np.bool_]) -> None:
        """use: what the task would use at each place, in seconds of all of it; there: which places there are."""
        if not there.any():
            return
        if (there & ~self._known).any():
            # What the prices were worth without a place that is new does not matter any more.
            self._known |= there
            self._use[:], self._tasks = 0.0, 0
            self._unit = float(use[there].mean()) or 1.0
        self._tasks += 1
        horizon = min(self._tasks, self._settings.memory)
        weights = np.exp(self._use - self._use[self._known].max()) * self._known[:, None]
        prices = weights / weights.sum()
        cheapest = int(np.where(there, (prices * use).sum(axis=1), np.inf).argmin())
        self._use[cheapest] += self._settings.step / math.sqrt(horizon) * use[cheapest] / self._unit
        self.mean += (prices - self.mean) / horizon


@register("shadow-price")
class ShadowPricePolicy:
    """Learns from what is asked, not from what came of it."""

    name = "shadow-price"
    ignores_floors = False

    def __init__(self, options: PolicyOptions, settings: ShadowPriceSettings | None = None) -> None:
        del options
        self._settings = settings or ShadowPriceSettings()
        self._prices = _Prices(self._settings)
        self._value_of_time = UtilityModel().latency_weight
        self._mean_wait_s = 0.0
        self._tasks = 0
        self._pools: dict[tuple[Place, ...], list[tuple[int, NDArray[np.intp]]]] = {}

    def decide(self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], now_s: float) -> Choice:
        use_s = np.zeros((len(candidates), 2))
        typical_s = np.zeros((len(_SHARED_PLACES), 2))
        there = np.zeros(len(_SHARED_PLACES), np.bool_)
        place_of_row = np.full(len(candidates), -1)
        for place, rows in self._rows_by_place(candidates.places):
            rows = rows[allowed[rows]]
            if not len(rows):
                continue
            use_s[rows, 0] = candidates.upload_ms[rows] / (1000 * len(rows))
            use_s[rows, 1] = candidates.service_ms[rows] / (1000 * candidates.slots[rows].sum())
            # The row that the task would take there stands for the place.
            typical_s[place] = use_s[rows[candidates.latency_ms[rows].argmin()]]
            there[place] = True
            place_of_row[rows] = place
        self._prices.learn(typical_s, there)
        worth_s = self._settings.price_factor * self._mean_wait_s
        scores = self._scores(
            task, candidates, allowed, worth_s * (self._prices.mean[place_of_row] * use_s).sum(axis=1)
        )
        index = best(scores, allowed)
        self._tasks += 1
        waits_s = float(candidates.wait_ms[index]) / 1000
        self._mean_wait_s += (waits_s - self._mean_wait_s) / min(self._tasks, self._settings.memory)
        return Choice(index, scores, 1.0, "highest value after shadow prices")

    def observe(self, experience: Experience) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        prices = dict(zip(_SHARED_PLACES, self._prices.mean.tolist(), strict=True))
        return {"prices": prices, "mean_wait_s": self._mean_wait_s}

    def _scores(
        self, task: TaskFacts, candidates: Candidates, allowed: NDArray[np.bool_], price_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self._settings.objective == "utility":
            return candidates.utility - self._value_of_time * price_s * 1000 / task.remaining_ms
        late = candidates.latency_ms > task.remaining_ms
        if late[allowed].all():
            # Nothing is gained by sparing others when this task is lost for it.
            return -candidates.latency_ms / task.remaining_ms
        return -(candidates.latency_ms + price_s * 1000) / task.remaining_ms - _LATE * late

    def _rows_by_place(self, places: tuple[Place, ...]) -> list[tuple[int, NDArray[np.intp]]]:
        if (found := self._pools.get(places)) is None:
            self._pools.clear()  # a fleet changes rarely; what it was before need not be kept
            shared = [
                (index, np.array([row for row, at in enumerate(places) if at == place], np.intp))
                for index, place in enumerate(_SHARED_PLACES)
            ]
            found = self._pools[places] = [(index, rows) for index, rows in shared if len(rows)]
        return found
