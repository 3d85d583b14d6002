"""Every policy in the placement environment: which is worth most, how surely, and what a decision takes.

`roadside bench policy` runs each policy on the same arrivals, links and hidden speeds, for each number of edges and
each heartbeat, and compares them seed by seed. Weights are those of the package; nothing is trained here.
docs/policies.md has the formulas and reads the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import msgspec

from ..bus.errors import ConfigurationError
from ..policy.environment.constants import COMMITTED, Scenario
from ..policy.environment.environment import Summary
from ..qos.intervals import mean_95
from ..qos.run import this_machine
from .parallel import run_parallel
from .policy_cells import CLAIRVOYANT, LEARNS_NOTHING, Cell, PolicyJob, contenders, run_job
from .policy_timing import decision_times, step_time
from .trained import TRAINED, variants

_FIRST_SEED = 101


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """How much is run. base: what the cells have in common; its heartbeat and edges are the headline's."""

    base: Cell = field(default_factory=Cell)
    heartbeats_s: tuple[float, ...] = (0.0, 0.1, 0.5, 2.0)
    edges: tuple[int, ...] = (3, 5, 8, 32)
    seeds: int = 10
    tasks: int = 3000

    def quick(self) -> PolicyPlan:
        return replace(self, seeds=3, tasks=1000)

    def cells(self) -> list[Cell]:
        """The headline first."""
        cells = [replace(self.base, heartbeat_s=beat, edges=n) for n, beat in product(self.edges, self.heartbeats_s)]
        return sorted(cells, key=lambda cell: cell != self.base)


def plan_of(
    *, file: Path | None, scenario: str, rate_hz: float, edges: list[int] | None, heartbeats_s: list[float] | None
) -> PolicyPlan:
    """A whole plan for these constants; None: the committed ones, and all the heartbeats and numbers of edges.

    The first of the edges and of the heartbeats is the headline's. Raises ConfigurationError.
    """
    known: dict[str, Scenario] = {name: name for name in get_args(Scenario)}
    if scenario not in known:
        raise ConfigurationError(f"there is no scenario {scenario!r}; there are {', '.join(known)}")
    base = Cell(rate_hz=rate_hz, scenario=known[scenario], file=file or COMMITTED)
    plan = PolicyPlan()
    if edges:
        base, plan = replace(base, edges=edges[0]), replace(plan, edges=tuple(edges))
    if heartbeats_s:
        base, plan = replace(base, heartbeat_s=heartbeats_s[0]), replace(plan, heartbeats_s=tuple(heartbeats_s))
    base.constants()  # an unusable file is told before anything is run
    return replace(plan, base=base)


_Results = dict[PolicyJob, Summary]


def measure_policy(plan: PolicyPlan) -> dict[str, Any]:
    """The bench's JSON object; on two cores about twenty minutes, two where the plan is quick."""
    policies = contenders()
    seeing = [name for name in policies if name != CLAIRVOYANT]
    variants, elsewhere = _variants(plan.base), _elsewhere(plan.base)
    jobs = [job for cell in plan.cells() for name in policies for job in _jobs(plan, cell, name)]
    jobs += [job for cell, name, _, _ in variants for job in _jobs(plan, cell, name)]
    jobs += [job for cell in elsewhere for name in seeing for job in _jobs(plan, cell, name)]
    jobs = list(dict.fromkeys(jobs))
    results = dict(zip(jobs, run_parallel(run_job, jobs, label="policy"), strict=True))
    rows = [_row(plan, results, cell, name) for cell in plan.cells() for name in policies]
    paired = [
        _paired(plan, results, cell, name, rival)
        for cell in plan.cells()
        for name in TRAINED
        for rival in policies
        if name in seeing and rival in seeing and rival != name
    ]
    step_us = step_time(plan.base)
    return {
        "bench": "policy",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {
            "seeds": [_FIRST_SEED + n for n in range(plan.seeds)],
            "tasks": plan.tasks,
            "headline": asdict(plan.base) | {"file": plan.base.file.name},
            "constants_sha256": plan.base.constants().sha256,
            "step_us_p50": step_us,
            "ci95": "half the width of the 95% interval of a mean over seeds, Student's t",
        },
        "rows": rows,
        "paired": paired,
        "ablations": [_ablation(plan, results, *variant) for variant in variants],
        "elsewhere": [
            _row(plan, results, cell, name) for cell in elsewhere for name in policies if name != CLAIRVOYANT
        ],
        "decisions": decision_times(seeing),
        "ratios": _ratios(plan, results, policies) | {"step_us_p50": step_us},
    }


def _jobs(plan: PolicyPlan, cell: Cell, policy: str) -> list[PolicyJob]:
    if policy == CLAIRVOYANT:
        # What it knows does not come with heartbeats: once is enough.
        cell = replace(cell, heartbeat_s=0.0)
    return [PolicyJob(cell, policy, _FIRST_SEED + n, plan.tasks) for n in range(plan.seeds)]


def _summaries(plan: PolicyPlan, results: _Results, cell: Cell, policy: str) -> list[Summary]:
    return [results[job] for job in _jobs(plan, cell, policy)]


def _row(plan: PolicyPlan, results: _Results, cell: Cell, policy: str) -> dict[str, Any]:
    summaries = _summaries(plan, results, cell, policy)
    utility = mean_95([each.utility for each in summaries])
    assert utility is not None

    def mean(of: Callable[[Summary], float]) -> float:
        return fmean(map(of, summaries))

    return {
        "policy": policy,
        "heartbeat_s": cell.heartbeat_s,
        "edges": cell.edges,
        "rate_hz": cell.rate_hz,
        "drift": cell.constants().hidden.drift,
        "scenario": cell.scenario,
        "seeds": len(summaries),
        "utility": utility.value,
        "utility_ci95": utility.half_width,
        "in_time_share": mean(lambda each: each.in_time_share),
        "quality": mean(lambda each: each.quality),
        "latency_ms_p50": mean(lambda each: each.latency_p50_ms),
        "latency_ms_p95": mean(lambda each: each.latency_p95_ms),
        "energy_j": mean(lambda each: each.energy_j),
        "place_shares": {
            place: fmean(each.place_shares[place] for each in summaries) for place in summaries[0].place_shares
        },
    }


def _difference(one: Sequence[Summary], other: Sequence[Summary]) -> dict[str, float | None]:
    """Of the utilities, seed by seed: its mean, and the ends of its 95% interval."""
    estimate = mean_95([each.utility - its.utility for each, its in zip(one, other, strict=True)])
    assert estimate is not None
    half = estimate.half_width
    return {
        "difference": estimate.value,
        "lower95": None if half is None else estimate.value - half,
        "upper95": None if half is None else estimate.value + half,
    }


def _paired(plan: PolicyPlan, results: _Results, cell: Cell, policy: str, rival: str) -> dict[str, Any]:
    summaries, others = (_summaries(plan, results, cell, name) for name in (policy, rival))
    return {
        "policy": policy,
        "rival": rival,
        "heartbeat_s": cell.heartbeat_s,
        "edges": cell.edges,
        **_difference(summaries, others),
    }


_Variant = tuple[Cell, str, Cell, str]


def _variants(headline: Cell) -> list[_Variant]:
    """(cell, policy) that differs in one respect from (cell, policy)."""
    unaware, central = (replace(headline, in_flight=whose) for whose in ("none", "fleet"))
    names = contenders()
    aware = [name for name in ("greedy-utility", "jsq", "softmax-greedy", "ddpg") if name in names]
    return [
        *((headline, name, headline, of) for name, of in variants()),
        *((headline, name, headline, "static") for name in ("static vehicle", "static cloud")),
        *((cell, name, headline, name) for name in aware for cell in (unaware, central)),
    ]


def _ablation(plan: PolicyPlan, results: _Results, cell: Cell, name: str, own: Cell, reference: str) -> dict[str, Any]:
    summaries = _summaries(plan, results, cell, name)
    return {
        "policy": name,
        "in_flight": cell.in_flight,
        "utility": fmean(each.utility for each in summaries),
        "in_time_share": fmean(each.in_time_share for each in summaries),
        "against": f"{reference}, in flight {own.in_flight}" if name == reference else reference,
        **_difference(summaries, _summaries(plan, results, own, reference)),
    }


def _elsewhere(headline: Cell) -> list[Cell]:
    """Loads and drifts that are not the headline's, and the scenario in which knobs do something."""
    cells = [replace(headline, rate_hz=headline.rate_hz * factor) for factor in (0.7, 1.3)]
    cells += [replace(headline, drift=drift) for drift in (0.0, 0.5)]
    if headline.file == COMMITTED:
        cells.append(replace(headline, scenario="collaborative"))
    return cells


def _ratios(plan: PolicyPlan, results: _Results, policies: list[str]) -> dict[str, float]:
    """What the bench is asked for: differences of utility, and the lower ends of their 95% intervals."""

    def of(cell: Cell, name: str) -> list[Summary]:
        return _summaries(plan, results, cell, name)

    def utility(name: str) -> float:
        return fmean(each.utility for each in of(plan.base, name))

    ratios = {f"{name}_utility": utility(name) for name in ("clairvoyant", *TRAINED) if name in policies}
    unlearned = max((name for name in LEARNS_NOTHING if name in policies), key=utility)
    ratios[f"best_that_learns_nothing_is_{unlearned}"] = utility(unlearned)
    for name in TRAINED:
        if name not in policies:
            continue
        for rival in {unlearned: None, "softmax-greedy": None, "greedy-utility": None, "bandit": None}:
            if rival in policies and rival != name:
                difference = _difference(of(plan.base, name), of(plan.base, rival))
                ratios |= {f"{name}_minus_{rival}{suffix}": value for suffix, value in _named(difference)}
        worst = [_difference(of(cell, name), of(cell, "greedy-utility")) for cell in plan.cells()]
        lowest = min(worst, key=lambda each: each["difference"] or 0.0)
        ratios |= {f"{name}_minus_greedy-utility_in_its_worst_cell{suffix}": value for suffix, value in _named(lowest)}
    return ratios


def _named(difference: dict[str, float | None]) -> list[tuple[str, float]]:
    both = (("", difference["difference"]), ("_lower95", difference["lower95"]))
    return [(suffix, value) for suffix, value in both if value is not None]
