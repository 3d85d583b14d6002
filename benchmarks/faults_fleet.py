"""The fleet that `roadside bench faults` breaks: real processes, each behind a link of its own, and their histories.

    vehicle-1  asks edges that decode together with the cloud, every token of it       recorder
    vehicle-2  asks edges that answer alone                                            mosquitto
    edge-1, edge-2, cloud-1

It is started once; afterwards only what was killed comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import psutil

from ..bus.broker import Broker
from ..bus.defaults import HISTORY_VARIABLE
from ..bus.errors import FleetError
from ..bus.history import History, stop_file
from ..bus.link import Direction, LinkShape
from ..bus.mqtt_packets import Packet
from ..bus.shaping_proxy import ShapingProxy
from ..fleet import Fleet
from ..qos.history import Event, HistoryReader
from ..qos.journal import JournalEntry, read_journal
from ..qos.run import RunDirectory
from .small_disk import SmallDisk

FLEET = "faults"
EDGES = ("edge-1", "edge-2")
CLOUD = "cloud-1"
VEHICLES = ("vehicle-1", "vehicle-2")
NODES = (*EDGES, CLOUD)
RECORDER = "recorder"
CONTEXT_TTL_S = 1.0

_READY_S = 180.0
_LOOK_S = 0.01
_FOR_EVER_S = 1_000_000.0
# What an event before it may still be about: the longest task, and a context's time to live.
_REMEMBERED_S = 10.0

_OF_VEHICLES: dict[str, dict[str, Any]] = {
    # No exit is ever sure, so every token is asked for: whenever something breaks, contexts are in the cloud.
    "vehicle-1": {"place": "edge+cloud", "theta": 1.1, "rate_hz": 1.5},
    "vehicle-2": {"place": "edge", "rate_hz": 2.0},
}

Tamperer = Callable[[str, Direction, Packet], Iterable[bytes]]


class FaultFleet:
    """An asynchronous context manager.

    events: what the processes did of late, by time; `look` brings it up to date. skewed_s: by how much a process's wall
    clock is off.
    """

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory.create(folder, configuration={"fleet": FLEET}, seed=0, argv=["bench", "faults"])
        self.history_folder = self.run.path / "history"
        self.events: list[Event] = []
        self.skewed_s: dict[str, float] = {}
        self.tamperer: Tamperer | None = None
        self.links: dict[str, ShapingProxy] = {}
        self.disk: SmallDisk | None = None
        self.broker = Broker(prefer="mosquitto", directory=self.run.path / "broker")
        self._stack = AsyncExitStack()
        self._history = History(self.history_folder, "harness")
        self._reader = HistoryReader(self.history_folder)
        self._returning: dict[str, asyncio.Task[None]] = {}
        self._pids: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self.disk = self._stack.enter_context(SmallDisk(self.run.path / "journals"))
        await self._stack.enter_async_context(self.broker)
        self.run.note_broker(self.broker.kind)
        links = await self._stack.enter_async_context(AsyncExitStack())
        for number, name in enumerate((RECORDER, *NODES, *VEHICLES)):
            tamper = self._tampering(name)
            proxy = ShapingProxy(self.broker.url, LinkShape(), seed=number, tamper=tamper)
            self.links[name] = await links.enter_async_context(proxy)
        self._fleet = await self._stack.enter_async_context(Fleet(self.run, self.broker.url))
        for names in ((RECORDER, *NODES), VEHICLES):
            for name in names:
                await self.start(name)
            await self._fleet.ready(names, timeout_s=_READY_S)

    def _tampering(self, name: str) -> Callable[[Direction, Packet], Iterable[bytes]]:
        def tamper(direction: Direction, packet: Packet) -> Iterable[bytes]:
            return [packet.raw] if self.tamperer is None else self.tamperer(name, direction, packet)

        return tamper

    async def start(self, name: str, *, skew_s: float | None = None) -> None:
        """Start a process, or start it again; `ready` waits for it. skew_s: by how much its wall clock is off."""
        if skew_s is not None:
            self.skewed_s[name] = skew_s
        arguments = {RECORDER: ("record", str(self.run.path))}.get(name, (name.partition("-")[0],))
        variables = {HISTORY_VARIABLE: str(self.history_folder)}
        if name in self.skewed_s:
            variables["PYTHONPATH"] = str(_skewing_folder(self.run.path, self.skewed_s[name]))
        await self._fleet.start(
            *(name, *arguments, "--config", str(self._configuration(name))),
            broker_url=self.links[name].url,
            variables=variables,
        )

    def _configuration(self, name: str) -> Path:
        values: dict[str, Any] = {"name": name, "fleet": FLEET, "wait_for_broker_s": 30.0}
        if name in VEHICLES:
            journal = str(self.run.journal_path(name))
            values |= {"journal": journal, "duration_s": _FOR_EVER_S, "silent_after_ms": 1500.0, "speed": 4.0}
            values |= _OF_VEHICLES[name]
        elif name == CLOUD:
            values["context_ttl_s"] = CONTEXT_TTL_S
        path = self.run.path / f"{name}.toml"
        path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()))
        return path

    # What it does

    def look(self) -> list[Event]:
        """What is new; it is in `events` as well."""
        new = self._reader.read_new()
        if new:
            self.events = sorted([*self.events, *new], key=lambda event: event.at_s)
            self._pids |= {event.process: event.fields["pid"] for event in new if event.name == "process.began"}
        return new

    def forget_before(self, at_s: float) -> None:
        """Keep what somebody who looks at the time from `at_s` on needs."""
        self.events = [event for event in self.events if event.at_s >= at_s - _REMEMBERED_S]

    async def until(self, is_it: Callable[[Event], bool], *, since_s: float, timeout_s: float) -> Event | None:
        """The first event since then of which that holds; None where it does not come in time."""
        give_up_s = time.monotonic() + timeout_s
        self.look()
        new = [event for event in self.events if event.at_s >= since_s]
        while True:
            for event in new:
                if event.at_s >= since_s and is_it(event):
                    return event
            if time.monotonic() >= give_up_s:
                return None
            await asyncio.sleep(_LOOK_S)
            new = self.look()

    def note(self, event: str, **fields: Any) -> None:
        self._history.note(event, **fields)

    def journals(self) -> list[JournalEntry]:
        return [entry for path in self.run.journal_paths() for entry in read_journal(path)]

    # What is done to it

    async def stand_still_at(self, name: str, step: str, *, timeout_s: float) -> bool:
        """Have a process stop at its next event of that name; whether it came to that in time."""
        file = stop_file(self.history_folder, name, step)
        file.touch()
        process = self._process(name)
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            if process.status() == psutil.STATUS_STOPPED:
                self.note("process.stopped", target=name)
                return True
            await asyncio.sleep(_LOOK_S / 2)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        return process.status() == psutil.STATUS_STOPPED

    def stop(self, name: str) -> None:
        self._fleet.signal(name, signal.SIGSTOP)
        self.note("process.stopped", target=name)

    def go_on(self, name: str) -> None:
        self.note("process.continued", target=name)
        self._fleet.signal(name, signal.SIGCONT)

    async def kill(self, name: str) -> None:
        self._fleet.signal(name, signal.SIGKILL)
        await self._fleet.wait(name)
        self.note("process.killed", target=name)

    def come_back(self, name: str, *, skew_s: float | None = None) -> None:
        """Start a process again beside what else goes on; `back` waits for it."""

        async def start() -> None:
            await self.start(name, skew_s=skew_s)
            await self._fleet.ready([name], timeout_s=_READY_S)

        self._returning[name] = asyncio.create_task(start())

    async def end(self, name: str) -> None:
        """In good order, as SIGTERM asks for."""
        await self._fleet.stop([name])
        self.note("process.killed", target=name)

    async def back(self, *names: str) -> None:
        """Wait until those of them that were killed serve again."""
        await asyncio.gather(*(self._returning.pop(name) for name in names if name in self._returning))

    def check(self) -> None:
        """FleetError where something died that nobody had killed."""
        running = {RECORDER, *NODES, *VEHICLES} - self._returning.keys()
        self._fleet.check(sorted(running))

    async def kill_broker(self) -> None:
        os.kill(self.broker.pid, signal.SIGKILL)
        await self.broker.wait()
        await self.broker.stop()
        self.note("process.killed", target="broker")

    async def finish(self) -> None:
        """End everything in good order, vehicles first, so that the ledger hears it all."""
        await self.back(*self._returning)
        for names in (VEHICLES, NODES, (RECORDER,)):
            await self._fleet.stop(names)
        self.look()
        self.run.finish()

    def _process(self, name: str) -> psutil.Process:
        self.look()
        if name not in self._pids:
            raise FleetError(f"{name} has not said that it began; see {self.run.log_path(name)}")
        return psutil.Process(self._pids[name])


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _skewing_folder(folder: Path, skew_s: float) -> Path:
    """A folder for PYTHONPATH whose sitecustomize.py sets a process's wall clock wrong, and its monotonic one not."""
    skewing = folder / f"skew{skew_s:+.0f}"
    skewing.mkdir(exist_ok=True)
    (skewing / "sitecustomize.py").write_text(
        "import time\n"
        "_time, _time_ns = time.time, time.time_ns\n"
        f"time.time = lambda: _time() + {skew_s!r}\n"
        f"time.time_ns = lambda: _time_ns() + int({skew_s!r} * 1e9)\n"
    )
    return skewing
