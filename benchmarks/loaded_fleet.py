"""A fleet on this machine under an open load, for benches: nodes that stay, and vehicles that come for a stage.

A broker, a recorder and the nodes are started once. In each stage new vehicles drive through the bundled log. The load
is open: a vehicle creates its tasks when its schedule says so, whatever became of the last one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..bus.broker import Broker
from ..bus.errors import FleetError
from ..bus.link import LinkShape
from ..bus.messages import Outcome
from ..bus.places import Place
from ..bus.shaping_proxy import ShapingProxy
from ..fleet import Fleet
from ..qos.journal import read_journal
from ..qos.ledger import Ledger
from ..qos.report import in_time, latency_ms
from ..qos.run import RunDirectory
from .cores import DividedCores, cpu_s, keep_started, kept_to

FLEET = "capacity"
NODES = {"edge-1": "edge", "edge-2": "edge", "cloud-1": "cloud"}
START_TIMEOUT_S = 120.0
_RECORDED_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What one load came to. began_s, ended_s: Unix seconds between which all vehicles drove; by_vehicle: the outcomes
    of the tasks that were created then."""

    began_s: float
    ended_s: float
    by_vehicle: dict[str, list[Outcome]]

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for outcomes in self.by_vehicle.values() for outcome in outcomes]

    @property
    def tasks_per_s(self) -> float:
        return len(self.outcomes) / (self.ended_s - self.began_s)

    @property
    def goodput_per_s(self) -> float:
        return in_time(self.outcomes) / (self.ended_s - self.began_s)

    @property
    def in_time_share(self) -> float:
        return in_time(self.outcomes) / len(self.outcomes) if self.outcomes else 0.0

    @property
    def latency_ms(self) -> dict[str, float | None]:
        """Of results; a fallback always takes as long as its task may."""
        return latency_ms([outcome for outcome in self.outcomes if outcome.state == "result"])


class LoadedFleet:
    """Nodes that serve, and the vehicles that load them. link: between the broker and one of the nodes."""

    def __init__(
        self,
        run: RunDirectory,
        broker: Broker,
        fleet: Fleet,
        link: ShapingProxy,
        behind_a_link: str | None,
        node_flags: Mapping[str, tuple[str, ...]],
        cores: DividedCores | None = None,
    ) -> None:
        self.run = run
        self.broker = broker
        self.fleet = fleet
        self.link = link
        self._behind_a_link = behind_a_link
        self._node_flags = node_flags
        self._cores = cores

    async def start_node(self, name: str) -> None:
        """Also again, after its end; does not wait until it serves."""
        flags = ("--name", name, "--fleet", FLEET, *self._node_flags.get(name, ()))
        url = self.link.url if name == self._behind_a_link else None
        await self.fleet.start(name, NODES[name], *flags, broker_url=url)
        if self._cores is not None:
            keep_started(self.fleet.pid(name), self._cores.nodes)

    def nodes_cpu_s(self) -> float:
        """Seconds of a core that the nodes, all of them running, have used since their start."""
        return sum(cpu_s(self.fleet.pid(name)) for name in NODES)

    async def drive(
        self,
        rates_per_s: Mapping[str, float],
        duration_s: float,
        *,
        policy: str,
        places: Mapping[str, Place] | None = None,
    ) -> Stage:
        """Let new vehicles create so many tasks per second each; returns when each of their tasks has ended.

        places: of vehicles that ask one place only, whatever the policy would say. Vehicles that have driven before
        have the same tasks again: what they ask, and when, is drawn from their names.
        Raises FleetError where a vehicle failed, or nothing of them was recorded.
        """
        vehicles = list(rates_per_s)
        started_s = time.time()
        for number, (vehicle, rate_hz) in enumerate(rates_per_s.items()):
            flags: dict[str, object] = {
                "name": vehicle,
                "fleet": FLEET,
                "journal": self.run.journal_path(vehicle),
                "policy": policy,
                "rate-hz": rate_hz,
                "duration": duration_s,
                "start-share": number / len(vehicles),
            }
            if places and vehicle in places:
                flags["place"] = places[vehicle]
            words = (word for flag, value in flags.items() for word in (f"--{flag}", str(value)))
            await self.fleet.start(vehicle, "vehicle", *words)
        await self.fleet.finished(vehicles)
        recorded = await self._recorded(vehicles, since_s=started_s)
        by_vehicle = {vehicle: outcomes for vehicle, outcomes in recorded.items() if outcomes}
        if not by_vehicle:
            raise FleetError(f"no task of {vehicles[0]} was recorded: see whether the disk is full, and try again")
        began_s = max(min(outcome.created_at_s for outcome in outcomes) for outcomes in by_vehicle.values())
        ended_s = min(max(outcome.created_at_s for outcome in outcomes) for outcomes in by_vehicle.values())
        within = {
            vehicle: [one for one in outcomes if began_s <= one.created_at_s <= ended_s]
            for vehicle, outcomes in by_vehicle.items()
        }
        return Stage(began_s, ended_s, within)

    async def _recorded(self, vehicles: list[str], *, since_s: float) -> dict[str, list[Outcome]]:
        """The outcomes of each vehicle's tasks since then, once the recorder has written what the journals know of."""
        expected = sum(len(read_journal(self.run.journal_path(vehicle))) for vehicle in vehicles)
        give_up_at_s = time.monotonic() + _RECORDED_TIMEOUT_S
        while True:
            with Ledger.open(self.run) as ledger:
                outcomes = [one for one in ledger.outcomes() if not one.repeat and one.vehicle in vehicles]
            if len(outcomes) >= expected or time.monotonic() > give_up_at_s:
                recent = [one for one in outcomes if one.outcome.created_at_s >= since_s]
                return {vehicle: [one.outcome for one in recent if one.vehicle == vehicle] for vehicle in vehicles}
            await asyncio.sleep(0.2)


@asynccontextmanager
async def loaded_fleet(
    run: RunDirectory,
    *,
    node_flags: Mapping[str, tuple[str, ...]] | None = None,
    behind_a_link: str | None = None,
    cores: DividedCores | None = None,
) -> AsyncIterator[LoadedFleet]:
    """Start broker, recorder and nodes, and stop them all at the end.

    node_flags: more flags for some of the nodes. behind_a_link: the node that reaches the broker through a proxy which
    can be told to break the link (`LoadedFleet.link`). cores: nodes on some, all else, this process too, on the others;
    None: all of them share all.
    """
    own_cores = nullcontext() if cores is None else kept_to(cores.load)
    with own_cores:
        async with Broker(directory=run.path / "broker") as broker, Fleet(run, broker.url) as fleet:
            run.note_broker(broker.kind)
            await fleet.start("recorder", "record", str(run.path), "--fleet", FLEET)
            async with ShapingProxy(broker.url, LinkShape()) as link:
                loaded = LoadedFleet(run, broker, fleet, link, behind_a_link, node_flags or {}, cores)
                for name in NODES:
                    await loaded.start_node(name)
                await fleet.ready(["recorder", *NODES], timeout_s=START_TIMEOUT_S)
                yield loaded
                await fleet.stop(NODES)
            await fleet.stop(["recorder"])


def even_rates(stage: str, vehicles: int, tasks_per_s: float) -> dict[str, float]:
    """For so many vehicles of a stage, tasks per second of each."""
    return {f"{stage}-vehicle-{number}": tasks_per_s / vehicles for number in range(1, vehicles + 1)}


@contextmanager
def shown_progress() -> Iterator[Any]:
    """Gives a function that shows what is going on now."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("starting the nodes", total=None)
        yield lambda description: progress.update(bar, description=description)
