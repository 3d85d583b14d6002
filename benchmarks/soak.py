"""Hours of driving under steady load with a fault every minute: does anything grow, slow down or get lost?

`roadside bench soak --minutes 60` holds a fleet at 70% of what it takes on this machine. Vehicles ask by policy, but
for one, which asks for edge and cloud together only, so that contexts come and go. Every minute something breaks, in
turn: an edge is killed and started again, a cloud or an edge is stopped for two seconds, the link between an edge and
the broker is cut for three.

Every five seconds each process is looked at from outside. Memory's slope is that of a least-squares line through
averages over stretches, after the first fifth of the time; of a process that was killed it is that of its last life.
The latencies of the last sixth of the time are set beside those of the first. At the end the vehicles stop, the cloud's
contexts get the time after which it forgets them, and what is left is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..bus.broker import free_port
from ..bus.places import Place
from ..bus.transport import Bus
from ..qos.report import summarise
from ..qos.run import RunDirectory
from .capacity import HOLD_SHARE, CapacitySettings, find_knee
from .loaded_fleet import (
    FLEET,
    NODES,
    START_TIMEOUT_S,
    LoadedFleet,
    Stage,
    even_rates,
    loaded_fleet,
    shown_progress,
)
from .overload import Observer
from .soak_samples import Samples, answer_ms, first_and_last, metric_value, process_row, ratio, worst

_KILLED, _LINKED, _CLOUD = "edge-2", "edge-1", "cloud-1"
_TOGETHER: Place = "edge+cloud"


@dataclass(frozen=True, slots=True)
class SoakSettings:
    """fault_every_s: between two faults; stopped_s, cut_s: how long a process stands still, and a link is cut.

    sample_s: between two looks at the processes. warm_up_share: of the time, which memory's slope leaves out.
    part_share: of the time, whose latencies are compared. forget_s: after which a cloud keeps no context of silent
    edges; its metrics are then read.
    """

    capacity: CapacitySettings
    vehicles: int = 4
    fault_every_s: float = 60.0
    stopped_s: float = 2.0
    cut_s: float = 3.0
    sample_s: float = 5.0
    warm_up_share: float = 0.2
    part_share: float = 1 / 6
    forget_s: float = 15.0


SETTINGS = SoakSettings(CapacitySettings(factor=2.0, refinements=1))


def measure_soak(*, minutes: float, knee_tasks_per_s: float | None = None, settings: SoakSettings = SETTINGS) -> Any:
    """The bench's JSON object; takes so long, and some two minutes more.

    knee_tasks_per_s: where it is known, it is not looked for.
    """
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", configuration=asdict(settings), seed=0, argv=[])
        soak = _Soak(settings, run, duration_s=60 * minutes)
        asyncio.run(soak.measure(knee_tasks_per_s))
        tasks = summarise(run)["tasks"]
        manifest = run.read_manifest()
    rows = soak.process_rows()
    kept = [row for row in rows if row["lives"] == 1]
    return {
        "bench": "soak",
        "machine": msgspec.to_builtins(manifest.machine),
        "settings": {
            **asdict(settings),
            "minutes": minutes,
            "knee_tasks_per_s": soak.knee_per_s,
            "nodes": list(NODES),
            "broker": manifest.broker,
            "load_average_1m": load_before,
        },
        "rows": rows,
        "faults": soak.faults,
        "tasks": tasks,
        "contexts_left": soak.contexts_left,
        **soak.latency_figures(),
        "ratios": {
            "worst_memory_mb_per_h": worst(kept, "memory_mb_per_h"),
            **soak.latency_ratios(),
        },
    }


class _Soak:
    """One measurement. faults: what broke, with the second at which it did."""

    def __init__(self, settings: SoakSettings, run: RunDirectory, *, duration_s: float) -> None:
        self.knee_per_s = 0.0
        self.faults: list[dict[str, Any]] = []
        self.contexts_left: float | None = None
        self._settings = settings
        self._run = run
        self._duration_s = duration_s
        self._began_s = 0.0
        self._samples: dict[str, Samples] = {}
        self._driven: Stage | None = None
        self._observed: dict[str, Any] = {}

    async def measure(self, knee_tasks_per_s: float | None) -> None:
        settings, metrics_port = self._settings, free_port()
        node_flags = {_CLOUD: ("--metrics", str(metrics_port))}
        with shown_progress() as tell:
            async with (
                loaded_fleet(self._run, node_flags=node_flags, behind_a_link=_LINKED) as fleet,
                Bus(url=fleet.broker.url, fleet=FLEET, name="observer") as bus,
            ):

                async def stage(name: str, tasks_per_s: float, duration_s: float) -> Stage:
                    tell(f"{name}: {tasks_per_s:.1f} tasks/s for {duration_s:.0f} s")
                    rates_per_s = even_rates(name, settings.capacity.vehicles, tasks_per_s)
                    return await fleet.drive(rates_per_s, duration_s, policy=settings.capacity.policy)

                self.knee_per_s = knee_tasks_per_s or await find_knee(settings.capacity, stage, [])
                if not self.knee_per_s:
                    return
                tell(f"{HOLD_SHARE * self.knee_per_s:.1f} tasks/s for {self._duration_s / 60:.0f} minutes")
                observer = Observer(bus)
                observing = asyncio.create_task(observer.run())
                await self._drive(fleet)
                assert self._driven is not None
                self._observed = observer.row(self._driven)
                observing.cancel()
                tell("until contexts are forgotten")
                await asyncio.sleep(settings.forget_s)
                self.contexts_left = metric_value(await asyncio.to_thread(_page, metrics_port), "roadside_contexts")
        self._run.finish()

    async def _drive(self, fleet: LoadedFleet) -> None:
        settings = self._settings
        rates_per_s = even_rates("soak", settings.vehicles, HOLD_SHARE * self.knee_per_s)
        together = next(iter(rates_per_s))
        self._began_s = time.monotonic()
        beside = [
            asyncio.create_task(self._look_at_processes(fleet, list(rates_per_s))),
            asyncio.create_task(self._break_things(fleet)),
        ]
        try:
            self._driven = await fleet.drive(
                rates_per_s, self._duration_s, policy=settings.capacity.policy, places={together: _TOGETHER}
            )
        finally:
            for task in beside:
                task.cancel()
            results = await asyncio.gather(*beside, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _look_at_processes(self, fleet: LoadedFleet, vehicles: list[str]) -> None:
        # Not while the vehicles come to their ends, and close what they have open.
        while (at_s := time.monotonic() - self._began_s) <= self._duration_s:
            await asyncio.sleep(self._settings.sample_s)
            pids = {name: fleet.fleet.pid(name) for name in ("recorder", *NODES, *vehicles)}
            for name, pid in {"broker": fleet.broker.pid, **pids}.items():
                self._samples.setdefault(name, Samples()).take(pid, at_s)

    async def _break_things(self, fleet: LoadedFleet) -> None:
        """One after the other while there is time for the whole of it; the last minute is left in peace."""
        faults: dict[str, Callable[[LoadedFleet], Awaitable[None]]] = {
            f"{_KILLED} killed": self._kill,
            f"{_CLOUD} stopped": lambda fleet: self._stop(fleet, _CLOUD),
            f"link of {_LINKED} cut": self._cut,
            f"{_LINKED} stopped": lambda fleet: self._stop(fleet, _LINKED),
        }
        for number in itertools.count(1):
            at_s = number * self._settings.fault_every_s
            if at_s + self._settings.fault_every_s > self._duration_s:
                return
            await asyncio.sleep(self._began_s + at_s - time.monotonic())
            what = list(faults)[(number - 1) % len(faults)]
            self.faults.append({"at_s": round(time.monotonic() - self._began_s, 1), "fault": what})
            await faults[what](fleet)

    async def _kill(self, fleet: LoadedFleet) -> None:
        fleet.fleet.signal(_KILLED, signal.SIGKILL)
        await fleet.fleet.wait(_KILLED)
        await fleet.start_node(_KILLED)
        await fleet.fleet.ready([_KILLED], timeout_s=START_TIMEOUT_S)

    async def _stop(self, fleet: LoadedFleet, name: str) -> None:
        fleet.fleet.signal(name, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._settings.stopped_s)
        finally:
            fleet.fleet.signal(name, signal.SIGCONT)

    async def _cut(self, fleet: LoadedFleet) -> None:
        fleet.link.cut()
        try:
            await asyncio.sleep(self._settings.cut_s)
        finally:
            fleet.link.heal()

    # What came of it

    def process_rows(self) -> list[dict[str, Any]]:
        warm_up_s = self._settings.warm_up_share * self._duration_s
        # A tenth of what is left, so that a line has some ten points, however long it took.
        stretch_s = max(self._settings.sample_s, (self._duration_s - warm_up_s) / 10)
        return [
            process_row(name, samples, warm_up_s=warm_up_s, stretch_s=stretch_s)
            for name, samples in self._samples.items()
        ]

    def latency_figures(self) -> dict[str, Any]:
        if self._driven is None:
            return {"offered_tasks_per_s": None, "in_time_share": None, "latency_ms": None, **self._observed}
        return {
            "offered_tasks_per_s": self._driven.tasks_per_s,
            "in_time_share": self._driven.in_time_share,
            "latency_ms": self._driven.latency_ms,
            **self._observed,
        }

    def latency_ratios(self) -> dict[str, float | None]:
        """Last part by first."""
        if self._driven is None:
            return {"p50_last_of_first": None, "p99_last_of_first": None}
        driven, part_s = self._driven, self._settings.part_share * self._duration_s
        return {
            f"{name}_last_of_first": ratio(
                *first_and_last(driven.outcomes, driven.began_s, driven.ended_s, part_s, answer_ms(share))
            )
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return page.read().decode()
