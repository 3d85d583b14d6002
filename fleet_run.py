"""`roadside fleet FILE`: every member of a fleet's file as a process of this machine, until told to stop.

A node that dies takes nobody along: vehicles place their tasks elsewhere, and the fleet goes on, says so, and tells
by its exit status. What it cannot go on without are its broker and its recorder.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bus.broker import Broker
from .bus.configuration import read_toml
from .bus.errors import BrokerError, ConfigurationError, FleetError
from .bus.fleet_file import FleetFile, Member, is_fleet, read_fleet
from .bus.waiting import until_reachable
from .datasets.sources import without_password
from .fleet import Fleet
from .fleet_check import check_file
from .qos.run import BrokerKind, RunDirectory

_START_TIMEOUT_S = 120.0
_LOOK_INTERVAL_S = 0.5
_RECORDER = "recorder"


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The flags of `roadside fleet`. broker, tls: instead of the file's; run: None for a new folder in runs/."""

    file: Path
    broker: str | None = None
    tls: Path | None = None
    run: Path | None = None


async def run_fleet(options: FleetOptions, say: Callable[[str], None], stop: asyncio.Event) -> RunDirectory:
    """Run the fleet until `stop` is set or, where it has vehicles, until the last of them has finished.

    Nothing is started before the whole file is known to be usable. Raises ConfigurationError for one that is not,
    FleetError, after everything else has ended in good order, where a process had died.
    """
    file = _usable(options)
    run = RunDirectory.create(options.run, configuration=_without_passwords(options.file), seed=0, argv=sys.argv)
    async with AsyncExitStack() as stack:
        tls = options.tls or (Path(file.tls) if file.tls is not None else None)
        url, kind, own_broker = await _broker(options.broker or file.broker, tls, run, stack)
        run.note_broker(kind)
        dead: list[str] = []
        # As the recorder, which does not run yet.
        who = {"tls": tls, "identity": file.recorder.name}
        if await until_reachable(url, wait_s=_longest_wait_s(file), stop=stop, **who):
            fleet = await stack.enter_async_context(Fleet(run, url, options.tls))
            say(f"fleet {file.name}: {_counted(file)}, {kind} broker; logs in {run.path / 'logs'}; Ctrl-C stops it")
            dead = await _Members(options.file, file, run, fleet).live(own_broker, say, stop)
    run.finish()
    if dead:
        raise FleetError(f"{', '.join(dead)} had died; everything else ended in good order (run: {run.path})")
    return run


class _Members:
    """The processes of one file's members."""

    def __init__(self, path: Path, file: FleetFile, run: RunDirectory, fleet: Fleet) -> None:
        self._path = path
        self._file = file
        self._run = run
        self._fleet = fleet
        self._nodes = [member for member in file.members if member.role != "vehicle"]
        self._vehicles = file.of_role("vehicle")

    async def live(self, broker: Broker | None, say: Callable[[str], None], stop: asyncio.Event) -> list[str]:
        """Start them all, look after them, and end them; returns the names of those that died meanwhile."""
        nodes, vehicles = [member.name for member in self._nodes], [member.name for member in self._vehicles]
        dead: list[str] = []
        await self._start([self._file.recorder])
        await self._start(self._nodes)
        if await _unless_stopped(self._fleet.ready([_RECORDER, *nodes], timeout_s=_START_TIMEOUT_S), stop):
            await self._start(self._vehicles)
            dead = await _watch(self._fleet, nodes, vehicles, broker, say, stop)
            await self._fleet.stop(vehicles)
        # Vehicles end first, so that nodes can answer what is open; the recorder ends last, and hears it all.
        await self._fleet.stop(nodes)
        await self._fleet.stop([_RECORDER])
        return dead

    async def _start(self, members: list[Member]) -> None:
        for member in members:
            await self._fleet.start(member.name, *self._arguments(member))

    def _arguments(self, member: Member) -> list[str]:
        """The process reads the file itself; what is said here is only what belongs to this run."""
        if member.role == "recorder":
            arguments = ["record", str(self._run.path), "--config", str(self._path)]
        else:
            arguments = [member.role, "--config", str(self._path), "--name", member.name]
        values = {**self._file.defaults, **member.values}
        if values.get("log_level") in ("warning", "error"):
            # Being ready is told at level info, and somebody waits for it.
            arguments += ["--log-level", "info"]
        if member.role == "vehicle" and "journal" not in values:
            arguments += ["--journal", str(self._run.journal_path(member.name))]
        return arguments


def _usable(options: FleetOptions) -> FleetFile:
    file = options.file
    document = read_toml(file)
    if not is_fleet(document):
        raise ConfigurationError(
            f"{file} is the file of one process: start it with `roadside vehicle|edge|cloud|learner --config {file}`"
        )
    report = check_file(file, options.broker)
    for problem in report.problems:
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise ConfigurationError(f"{file}: {problem}{more}; `roadside check {file}` shows all there is")
    return read_fleet(document)


async def _broker(
    url: str | None, tls: Path | None, run: RunDirectory, stack: AsyncExitStack
) -> tuple[str, BrokerKind, Broker | None]:
    if url is not None:
        return url, "external", None
    broker = await stack.enter_async_context(Broker(directory=run.path / "broker", tls=tls))
    return broker.url, broker.kind, broker


def _longest_wait_s(file: FleetFile) -> float:
    waits_s = [file.defaults.get("wait_for_broker_s", 0.0)]
    waits_s += [member.values.get("wait_for_broker_s", 0.0) for member in file.members]
    return max(waits_s)


def _without_passwords(path: Path) -> dict[str, Any]:
    """The file's content, fit to be kept in a run's manifest: brokers and cameras may have passwords in their URLs."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return without_password(value)
        if isinstance(value, dict):
            return {key: clean(each) for key, each in value.items()}
        return [clean(each) for each in value] if isinstance(value, list) else value

    return clean(read_toml(path))


async def _unless_stopped(wait: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Wait for something; False where the stop came first."""
    waiting, stopped = asyncio.ensure_future(wait), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return False
        await waiting
        return True
    finally:
        waiting.cancel()
        stopped.cancel()


async def _watch(
    fleet: Fleet,
    nodes: Collection[str],
    vehicles: Collection[str],
    broker: Broker | None,
    say: Callable[[str], None],
    stop: asyncio.Event,
) -> list[str]:
    """Look after the processes until it is time to stop; returns the names of those that died."""
    running, dead = {*nodes, *vehicles}, []
    broker_ended = asyncio.create_task(broker.wait()) if broker is not None else None
    try:
        while not stop.is_set() and not (vehicles and running.isdisjoint(vehicles)):
            fleet.check([_RECORDER])
            if broker_ended is not None and broker_ended.done():
                raise BrokerError("the fleet's own broker has ended: look at broker/broker.log in the run's folder")
            for name in sorted(running):
                code = fleet.exit_status(name)
                if code is None:
                    continue
                running.discard(name)
                if code != 0:
                    dead.append(name)
                    say(f"{fleet.last_words(name)}; the others go on")
            try:
                await asyncio.wait_for(stop.wait(), _LOOK_INTERVAL_S)
            except TimeoutError:
                continue
    finally:
        if broker_ended is not None:
            broker_ended.cancel()
    return dead


def _counted(file: FleetFile) -> str:
    counts = ((len(file.of_role(role)), role) for role in ("vehicle", "edge", "cloud", "learner"))
    return ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for count, role in counts if count)
