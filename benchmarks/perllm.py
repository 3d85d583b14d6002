"""PerLLM's evaluation (arXiv 2405.14636, section 4) anew: its Table 1, its Figs. 4 to 6, and the bound it leaves out.

`roadside bench perllm` runs every policy on the same requests: the headline cell (100 and 300 Mbps, stable) with ten
seeds, and each edge model on stable and fluctuating links with fewer. Throughput is set against cloud-only on the same
requests, energy against the linear program's bound for them. docs/policies.md says what the set-up is and where the
paper is silent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from ..policy.perllm.constants import perllm_file
from ..policy.perllm.environment import Figures
from ..qos.intervals import mean_95
from ..qos.run import this_machine
from .parallel import run_parallel
from .perllm_cells import BOUND, CLOUD_ONLY, HEADLINE_MODEL, NETWORKS, Cell, PerllmJob, contenders, run_job

_FIRST_SEED = 101


@dataclass(frozen=True, slots=True)
class PerllmPlan:
    """How much is run. seeds: in the headline cell; cell_seeds: in each other one; requests: in each run."""

    seeds: int = 10
    cell_seeds: int = 2
    requests: int = 10_000


QUICK = PerllmPlan(seeds=3, cell_seeds=1, requests=3000)


@dataclass(frozen=True, slots=True)
class _Group:
    """One policy's runs in one cell, with cloud-only's and the bound's on the same requests, seed by seed."""

    cell: Cell
    policy: str
    figures: list[Figures]
    cloud_only: list[Figures]
    bound: list[Figures]


def measure_perllm(plan: PerllmPlan = PerllmPlan()) -> dict[str, Any]:
    """The bench's JSON object; about four minutes on two cores."""
    headline = Cell()
    models = list(perllm_file().edge_models)
    cells = [Cell(network, model) for model in (HEADLINE_MODEL, *models) for network in NETWORKS]
    groups = _run(plan, cells)
    rows = [_row(group) for group in groups if group.cell == headline]
    return {
        "bench": "perllm",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {
            **asdict(plan),
            "first_seed": _FIRST_SEED,
            "constants_sha256": perllm_file().sha256,
            "headline": msgspec.to_builtins(headline.constants(plan.requests)),
            "throughput_ratio": "tokens per second over cloud-only's on the same requests",
            "joules": "physical: idle power all the time, slots while they work, transmitters while they send",
            "billed_joules": "every request charged with its slot's busy power from asking to answer, waiting included",
            "lp_bound": "fluid: requests may be cut, nobody waits, deadlines are forgotten; each figure by itself",
        },
        "rows": rows,
        "cells": [
            {"network": group.cell.network, "model": group.cell.model, **_row(group)}
            for group in groups
            if group.cell != headline
        ],
        "table_1": _table_1(groups, models),
        "ratios": _ratios(rows),
    }


def _run(plan: PerllmPlan, cells: list[Cell]) -> list[_Group]:
    policies = contenders()
    seeds = {
        cell: [_FIRST_SEED + n for n in range(plan.seeds if cell == Cell() else plan.cell_seeds)] for cell in cells
    }
    jobs = [
        PerllmJob(cell, policy, seed, plan.requests) for cell in cells for policy in policies for seed in seeds[cell]
    ]
    by_job = dict(zip(jobs, run_parallel(run_job, jobs, label="perllm"), strict=True))

    def of(cell: Cell, policy: str) -> list[Figures]:
        return [by_job[PerllmJob(cell, policy, seed, plan.requests)] for seed in seeds[cell]]

    return [
        _Group(cell, policy, of(cell, policy), of(cell, CLOUD_ONLY), of(cell, BOUND))
        for cell in cells
        for policy in policies
    ]


def _row(group: _Group) -> dict[str, Any]:
    """Means over the seeds; *_ci95: half the width of the 95% interval, None of a single seed."""
    row: dict[str, Any] = {"policy": group.policy, "seeds": len(group.figures)}
    columns = {
        "success_share": [each.success_share for each in group.figures],
        "throughput_ratio": [
            each.tokens_per_s / cloud.tokens_per_s for each, cloud in zip(group.figures, group.cloud_only, strict=True)
        ],
        "joules_per_request": [each.joules_per_request for each in group.figures],
        "billed_joules_per_request": [each.billed_joules_per_request for each in group.figures],
        "energy_bound_ratio": [
            each.joules_per_request / bound.joules_per_request
            for each, bound in zip(group.figures, group.bound, strict=True)
        ],
        "latency_mean_s": [each.latency_mean_s for each in group.figures],
        "cloud_share": [each.cloud_share for each in group.figures],
    }
    for name, values in columns.items():
        estimate = mean_95(values)
        assert estimate is not None
        row[name] = estimate.value
        if name in ("success_share", "throughput_ratio", "energy_bound_ratio"):
            row[f"{name}_ci95"] = estimate.half_width
    row["bound"] = group.policy == BOUND
    return row


def _table_1(groups: list[_Group], models: list[str]) -> list[dict[str, Any]]:
    """Percent in time, over both networks, of every policy here and of every method there."""
    ours: dict[str, dict[str, list[float]]] = {}
    for group in groups:
        if group.cell.model in models and group.policy != BOUND:
            shares = ours.setdefault(group.policy, {}).setdefault(group.cell.model, [])
            shares.extend(100 * each.success_share for each in group.figures)
    published = perllm_file().table_1
    return [
        *(
            {"method": f"{name} (published)", **{model: shares[model] for model in models}}
            for name, shares in published.items()
        ),
        *(
            {"method": name, **{model: sum(by[model]) / len(by[model]) for model in models}}
            for name, by in ours.items()
        ),
    ]


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What the rows are for: how near each comes to the bound, and PerLLM's own claims."""
    by_policy = {row["policy"]: row for row in rows}
    bound_ratio = by_policy[BOUND]["throughput_ratio"]
    perllm, cloud = by_policy["cs-ucb-predicted"], by_policy[CLOUD_ONLY]
    best = by_policy["shadow-price"]
    return {
        "throughput_bound_ratio": bound_ratio,
        "shadow_price_success_share": best["success_share"],
        "shadow_price_throughput_ratio": best["throughput_ratio"],
        "shadow_price_throughput_of_bound": best["throughput_ratio"] / bound_ratio,
        "shadow_price_energy_bound_ratio": best["energy_bound_ratio"],
        "cs_ucb_predicted_success_share": perllm["success_share"],
        "cs_ucb_predicted_joules_of_cloud_only": perllm["joules_per_request"] / cloud["joules_per_request"],
        "cs_ucb_predicted_billed_joules_of_cloud_only": perllm["billed_joules_per_request"]
        / cloud["billed_joules_per_request"],
    }
