"""`roadside bench rivals`: how each rival does with each of the settings that were tried for it.

On the seeds from 500 on, which are for choosing; results are reported on others. In the placement environment what
counts is the utility, in PerLLM's set-up the share of requests in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import msgspec

from ..policy.environment.constants import load_constants
from ..policy.environment.environment import Environment, run_episode
from ..policy.perllm.constants import perllm_file
from ..policy.perllm.environment import PerllmEnvironment
from ..policy.registry import PolicyOptions
from ..qos.run import this_machine
from .parallel import run_parallel
from .rival_settings import TRIED, Rival

_FIRST_SEED = 500
_SEEDS = {"fleet": 10, "perllm": 2}
_FLEET_TASKS = 2000
_PERLLM_REQUESTS = 5000


@dataclass(frozen=True, slots=True)
class _Job:
    set_up: str
    rival: Rival
    seed: int


def measure_rivals() -> dict[str, Any]:
    """The bench's JSON object; about six minutes on two cores."""
    tried = [(set_up, rival) for set_up, rivals in TRIED.items() for rival in rivals]
    jobs = [_Job(set_up, rival, _FIRST_SEED + n) for set_up, rival in tried for n in range(_SEEDS[set_up])]
    results = dict(zip(jobs, run_parallel(_run, jobs, label="rivals"), strict=True))
    rows: dict[str, list[dict[str, Any]]] = {set_up: [] for set_up in TRIED}
    for set_up, rival in tried:
        figures = [results[_Job(set_up, rival, _FIRST_SEED + n)] for n in range(_SEEDS[set_up])]
        means = {name: fmean(each[name] for each in figures) for name in figures[0]}
        rows[set_up].append({"policy": rival.policy, "settings": str(rival), **means})
    return {
        "bench": "rivals",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {
            "first_seed": _FIRST_SEED,
            "seeds": _SEEDS,
            "fleet_tasks": _FLEET_TASKS,
            "perllm_requests": _PERLLM_REQUESTS,
            "constants_sha256": {"fleet": load_constants().sha256, "perllm": perllm_file().sha256},
        },
        "rows": rows["fleet"],
        "perllm": rows["perllm"],
        "ratios": {},
    }


def _run(job: _Job) -> dict[str, float]:
    policy = job.rival.build(PolicyOptions(seed=job.seed))
    if job.set_up == "fleet":
        fleet = run_episode(Environment(load_constants(), tasks=_FLEET_TASKS, seed=job.seed), policy)
        return {"utility": fleet.utility, "in_time_share": fleet.in_time_share}
    constants = msgspec.structs.replace(perllm_file().headline, requests=_PERLLM_REQUESTS)
    figures = run_episode(PerllmEnvironment(constants, seed=job.seed), policy)
    return {
        "success_share": figures.success_share,
        "tokens_per_s": figures.tokens_per_s,
        "joules_per_request": figures.joules_per_request,
    }
