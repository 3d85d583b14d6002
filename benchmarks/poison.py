"""What a stranger's nonsense on an unsecured broker costs the tasks of others.

`roadside bench poison` lets a fleet drive in stretches at one and the same load. During every other of them somebody
publishes, sixty times a second unless told otherwise and on every address that vehicles and nodes listen to, what
cannot be read: noise, cut and prolonged messages, single bits turned, arrays in arrays, lengths that nobody could
hold. Compared are latencies of answers with poison and without, of all stretches together, since a p99 of few says
nothing. The nodes have cores of their own, as in the overload bench, so that what the stranger computes himself does
not count.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..policy.names import DEFAULT_POLICY
from ..qos.comparison import percentiles
from ..qos.report import in_time, percentile
from ..qos.run import RunDirectory
from .cores import DividedCores, divided_cores
from .faults_traffic import POISON_PER_S, Addressees, poison
from .loaded_fleet import FLEET, NODES, LoadedFleet, Stage, even_rates, loaded_fleet, shown_progress

_EDGES = tuple(name for name, role in NODES.items() if role == "edge")
_CLOUD = next(name for name, role in NODES.items() if role == "cloud")
_SHARES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
_RESAMPLES = 2000
_SEED = 20_240_229
_WARM_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class PoisonSettings:
    """tasks_per_s: of all vehicles. poison_per_s: messages of the stranger. pairs: stretches with poison, and as many
    without; stretch_s: seconds of each."""

    vehicles: int = 4
    tasks_per_s: float = 6.0
    poison_per_s: float = POISON_PER_S
    pairs: int = 5
    stretch_s: float = 30.0
    policy: str = DEFAULT_POLICY


QUICK = PoisonSettings(vehicles=2, pairs=1, stretch_s=6.0)


@dataclass(slots=True)
class _Stretch:
    poisoned: bool
    stage: Stage
    nodes_cpu_s: float


def measure_poison(*, quick: bool = False, poison_per_s: float = POISON_PER_S) -> dict[str, Any]:
    """The bench's JSON object; about six minutes, less than one where quick."""
    settings = replace(QUICK if quick else PoisonSettings(), poison_per_s=poison_per_s)
    cores = divided_cores()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", configuration=asdict(settings), seed=0, argv=[])
        stretches = asyncio.run(_measure(settings, run, cores))
        manifest = run.read_manifest()
    clean, poisoned = ([each for each in stretches if each.poisoned == which] for which in (False, True))
    return {
        "bench": "poison",
        "machine": msgspec.to_builtins(manifest.machine),
        "settings": {
            **asdict(settings),
            "nodes": list(NODES),
            "cores": "shared" if cores is None else asdict(cores),
            "broker": manifest.broker,
            "quick": quick,
            "load_average_1m": load_before,
        },
        "rows": [{"poisoned": False, **_row(clean)}, {"poisoned": True, **_row(poisoned)}],
        "ratios": latency_ratios(_latencies_ms(clean), _latencies_ms(poisoned)),
    }


async def _measure(settings: PoisonSettings, run: RunDirectory, cores: DividedCores | None) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    with shown_progress() as tell:
        async with loaded_fleet(run, cores=cores) as fleet:
            tell("warming up")
            await _drive(fleet, settings, "warm-up", _WARM_UP_S, poisoned=False)
            for pair in range(settings.pairs):
                # What changes slowly on the machine must not always meet the same of the two first.
                for poisoned in (False, True) if pair % 2 == 0 else (True, False):
                    tell(f"pair {pair + 1} of {settings.pairs}, {'with' if poisoned else 'without'} poison")
                    # One name for both: the same questions at the same moments.
                    name = f"pair-{pair + 1}"
                    stretches.append(await _drive(fleet, settings, name, settings.stretch_s, poisoned=poisoned))
    run.finish()
    return stretches


async def _drive(
    fleet: LoadedFleet, settings: PoisonSettings, name: str, duration_s: float, *, poisoned: bool
) -> _Stretch:
    rates_per_s = even_rates(name, settings.vehicles, settings.tasks_per_s)
    stranger = None
    used_s = fleet.nodes_cpu_s()
    if poisoned:
        addressees = Addressees(FLEET, tuple(rates_per_s), _EDGES, _CLOUD)
        draw, per_s = random.Random(name), settings.poison_per_s
        stranger = asyncio.create_task(poison(fleet.broker.url, addressees, draw, for_s=math.inf, per_s=per_s))
    try:
        stage = await fleet.drive(rates_per_s, duration_s, policy=settings.policy)
    finally:
        if stranger is not None:
            # Where the stranger failed there was no poison, and nothing to compare.
            if stranger.done():
                await stranger
            stranger.cancel()
    return _Stretch(poisoned, stage, fleet.nodes_cpu_s() - used_s)


def _latencies_ms(stretches: Sequence[_Stretch]) -> list[float]:
    """Of the answers that nodes gave."""
    return [
        outcome.latency_ms
        for stretch in stretches
        for outcome in stretch.stage.outcomes
        if outcome.state == "result" and outcome.place != "vehicle"
    ]


def _row(stretches: Sequence[_Stretch]) -> dict[str, Any]:
    outcomes = [outcome for stretch in stretches for outcome in stretch.stage.outcomes]
    latencies_ms = _latencies_ms(stretches)
    used_ms = sum(stretch.nodes_cpu_s for stretch in stretches) * 1000
    return {
        "tasks": len(outcomes),
        "answers": len(latencies_ms),
        "in_time_share": in_time(outcomes) / len(outcomes),
        **{f"latency_ms_{name}": percentile(latencies_ms, share) for name, share in _SHARES.items()},
        "nodes_cpu_ms_per_answer": used_ms / len(latencies_ms) if latencies_ms else None,
    }


def latency_ratios(clean_ms: Sequence[float], poisoned_ms: Sequence[float]) -> dict[str, float]:
    """Percentiles with poison over those without, each with the ends of its bootstrapped 95% interval.

    None of them where one of the two has no answers.
    """
    if not clean_ms or not poisoned_ms:
        return {}
    draw = np.random.default_rng(_SEED)
    clean, poisoned = (draw.choice(values, (_RESAMPLES, len(values))) for values in (clean_ms, poisoned_ms))
    ratios: dict[str, float] = {}
    for name, share in _SHARES.items():
        then_ms, now_ms = (percentiles(np.asarray([values]), share)[0] for values in (clean_ms, poisoned_ms))
        low, high = np.quantile(percentiles(poisoned, share) / percentiles(clean, share), (0.025, 0.975))
        ratios[f"poison_latency_{name}"] = float(now_ms / then_ms)
        ratios[f"poison_latency_{name}_low95"], ratios[f"poison_latency_{name}_high95"] = float(low), float(high)
    return ratios
