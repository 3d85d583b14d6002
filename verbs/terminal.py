"""`roadside top` at work: it listens to a fleet, and draws a screen now and then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live

from ..bus import topics
from ..bus.messages import Outcome
from ..bus.subscription import Subscription
from ..bus.topics import Topic
from ..bus.transport import Bus
from ..qos.last_minute import LastMinute
from ..ui.fleet_view import FleetView
from .top_figures import figures
from .top_screen import Frame, screen

# Neither pictures nor what edge and cloud say to each other.
_HEARD: tuple[Topic, ...] = (topics.NODE_STATE, topics.VEHICLE_STATE, topics.OUTCOME)
_WAITING_LIMIT = 4096
_KEYS = "p pause   q quit"
_PLAIN_WIDTH = 100


async def show_fleet(
    broker: str,
    fleet: str,
    *,
    interval_s: float,
    once_after_s: float | None,
    as_json: bool = False,
    stop: asyncio.Event,
    tls: Path | None = None,
    name: str = "top",
) -> None:
    """Draw until `stop` is set; a lost connection is waited for, and the screen says so.

    broker: URL. once_after_s: print one screen after so many seconds of listening instead. as_json: print figures, not
    screens. tls: the folder with the certificate of `name`. Raises BrokerError where the broker cannot be reached at
    the beginning.
    """
    async with Bus(url=broker, fleet=fleet, name=name, tls=tls) as bus:
        top = _Top(bus, f"roadside top  {fleet} at {bus.address}", as_json)
        tasks = [asyncio.create_task(top.read(bus.subscribe(topic, limit=_WAITING_LIMIT))) for topic in _HEARD]
        tasks.append(asyncio.create_task(top.watch_connection()))
        drawing = top.print_once(once_after_s) if once_after_s is not None else top.draw(interval_s, stop)
        tasks.append(asyncio.create_task(drawing))
        stopping = asyncio.create_task(stop.wait())
        try:
            ended, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            stopping.cancel()
            for task in tasks:
                task.cancel()
            # The terminal is given back before anything else is said on it.
            await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Keys:
    """What was pressed, and the event that tells of it."""

    pressed: asyncio.Event
    paused: bool = False
    quit: bool = False

    def take(self, letters: str) -> None:
        for letter in letters.lower():
            self.paused ^= letter == "p"
            self.quit |= letter == "q"
        self.pressed.set()


class _Top:
    def __init__(self, bus: Bus, title: str, as_json: bool) -> None:
        now_s = time.monotonic()
        self._bus = bus
        self._title = title
        self._as_json = as_json
        self._view, self._minute = FleetView(now_s), LastMinute(now_s)
        self._view.connected(now_s)

    async def read(self, subscription: Subscription) -> None:
        async for received in subscription:
            now_s = time.monotonic()
            self._view.hear(received, now_s)
            if isinstance(received.body, Outcome):
                self._minute.add(received.names["vehicle"], received.body, now_s)

    async def watch_connection(self) -> None:
        while True:
            await self._bus.disconnected.wait()
            self._view.disconnected("no connection to the broker", time.monotonic())
            await self._bus.connected.wait()
            self._view.connected(time.monotonic())

    async def print_once(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._print(_console())

    async def draw(self, interval_s: float, stop: asyncio.Event) -> None:
        console = _console()
        if self._as_json or not console.is_terminal:
            while not stop.is_set():
                await asyncio.sleep(interval_s)
                self._print(console)
            return
        keys = _Keys(asyncio.Event())
        with _reading_keys(keys.take) as readable, Live(console=console, screen=True, auto_refresh=False) as live:
            while not keys.quit:
                if not keys.paused or keys.pressed.is_set():
                    frame = self._frame(_KEYS if readable else "", console.height, keys.paused)
                    live.update(screen(self._view, self._minute, time.monotonic(), frame), refresh=True)
                keys.pressed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(keys.pressed.wait(), interval_s)

    def _print(self, console: Console) -> None:
        if self._as_json:
            typer.echo(json.dumps(figures(self._view, self._minute, time.monotonic())))
            return
        console.print(screen(self._view, self._minute, time.monotonic(), self._frame("", None, False)))
        console.print()

    def _frame(self, keys: str, height: int | None, paused: bool) -> Frame:
        return Frame(self._title, f"{datetime.now():%H:%M:%S}", keys=keys, height=height, paused=paused)


def _console() -> Console:
    # Where nobody looks, nobody's width counts.
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)


@contextlib.contextmanager
def _reading_keys(take: Callable[[str], None]) -> Iterator[bool]:
    """Hand every key to `take` as it is pressed, without Enter; False where standard input is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: take(os.read(descriptor, 64).decode("ascii", "ignore")))
    try:
        yield True
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
