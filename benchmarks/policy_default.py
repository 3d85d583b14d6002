"""Which policy is the default: the one that wins in the simulated fleet that was fitted to a run of the demo.

`roadside bench default` fits it (calibrate.py), runs every policy in it seed by seed, at the run's own load and at
multiples of it, and ranks them by their mean utility over the loads. Of those that are not surely worse than the best,
the first in the order of policy_cells.py is the default: what learns nothing before what learns as it goes, and that
before what was trained. Policies that go where they are told, or draw blindly, are shown and are no candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ..policy.environment.environment import Summary
from ..policy.names import DEFAULT_POLICY
from ..qos.intervals import mean_95
from .parallel import run_parallel
from .policy_cells import CLAIRVOYANT, Cell, PolicyJob, contenders, run_job

_FIRST_SEED = 101
_NO_CANDIDATES = ("static", "random")


@dataclass(frozen=True, slots=True)
class DefaultPlan:
    """loads: over that of the run. tasks: in an episode, of which there is one for each seed and load."""

    loads: tuple[float, ...] = (1.0, 3.0, 10.0)
    seeds: int = 10
    tasks: int = 600

    def quick(self) -> DefaultPlan:
        return replace(self, seeds=3, tasks=200)


def measure_default(calibrate: Callable[[], dict[str, Any]], plan: DefaultPlan) -> dict[str, Any]:
    """The bench's JSON object; a minute and a half, and what calibrating takes.

    calibrate: gives the result of `roadside bench calibrate`.
    """
    calibrated = calibrate()
    run = calibrated["settings"]
    base = Cell(
        heartbeat_s=run["heartbeat_s"],
        edges=max(1, run["edges"]),
        rate_hz=run["rate_hz"],
        scenario="collaborative",
        file=Path(run["environment"]),
    )
    cells = [replace(base, rate_hz=base.rate_hz * load) for load in plan.loads]
    names = [name for name in contenders() if name != CLAIRVOYANT]
    jobs = [
        PolicyJob(cell, name, _FIRST_SEED + seed, plan.tasks)
        for name in names
        for cell in cells
        for seed in range(plan.seeds)
    ]
    summaries = dict(zip(jobs, run_parallel(run_job, jobs, label="policies"), strict=True))
    by_policy = {name: [each for job, each in summaries.items() if job.policy == name] for name in names}
    best, default = pick(by_policy)
    return {
        "bench": "default",
        "machine": calibrated["machine"],
        "settings": {
            "run": run["run"],
            "environment": run["environment"],
            "constants_sha256": run["environment_sha256"],
            "edges": base.edges,
            "heartbeat_s": base.heartbeat_s,
            "rates_hz": [cell.rate_hz for cell in cells],
            "seeds": [_FIRST_SEED + seed for seed in range(plan.seeds)],
            "tasks": plan.tasks,
        },
        "rows": [
            _row(name, by_policy, best, plan) for name in sorted(names, key=lambda name: -_utility(by_policy[name]))
        ],
        "best": best,
        "wins": default,
        "default": DEFAULT_POLICY,
        "ratios": {
            f"{name}_minus_{DEFAULT_POLICY}": _utility(by_policy[name]) - _utility(by_policy[DEFAULT_POLICY])
            for name in ("ddpg", default)
            if name in by_policy and name != DEFAULT_POLICY
        },
    }


def pick(by_policy: dict[str, list[Summary]]) -> tuple[str, str]:
    """The best candidate, and who should be the default. The summaries are of the same episodes in the same order."""
    candidates = [name for name in by_policy if name not in _NO_CANDIDATES]
    best = max(candidates, key=lambda name: _utility(by_policy[name]))
    return best, next(name for name in candidates if _behind(by_policy[best], by_policy[name])[1] <= 0)


def _utility(summaries: list[Summary]) -> float:
    return fmean(each.utility for each in summaries)


def _behind(best: list[Summary], other: list[Summary]) -> tuple[float, float]:
    """By how much the other is behind, and at least how much, 95% sure."""
    estimate = mean_95([each.utility - its.utility for each, its in zip(best, other, strict=True)])
    assert estimate is not None
    return estimate.value, estimate.value - (estimate.half_width or 0.0)


def _row(name: str, by_policy: dict[str, list[Summary]], best: str, plan: DefaultPlan) -> dict[str, Any]:
    summaries = by_policy[name]
    behind, behind_at_least = _behind(by_policy[best], summaries)
    of_load = [summaries[at : at + plan.seeds] for at in range(0, len(summaries), plan.seeds)]
    return {
        "policy": name,
        "utility": _utility(summaries),
        **{f"load_{load:g}": _utility(these) for load, these in zip(plan.loads, of_load, strict=True)},
        "behind": behind,
        "behind_lower95": behind_at_least,
        "in_time_share": fmean(each.in_time_share for each in summaries),
        **{place: fmean(each.place_shares[place] for each in summaries) for place in summaries[0].place_shares},
    }
