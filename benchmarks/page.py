"""What the live page costs under a large fleet, and whether it grows.

`roadside bench ui` starts a broker, `roadside ui` and a synthetic fleet (synthetic_fleet.py: a hundred vehicles of two
tasks a second, whose messages have the shape and size of real ones), and looks at the page with a headless Chromium
where there is one. Every few seconds it reads the page's processor time and memory, and the memory that the browser's
scripts hold after a collection. On a busy machine the synthetic fleet may fall behind: `messages_heard_per_s` says what
the page really heard, its start included.

The first three minutes fill the page's rings and are not read. From then on memory should be level: the last third of
the time should hold what the first third did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from ..bus.broker import Broker
from ..bus.errors import FleetError
from ..bus.process import READY
from ..qos.report import mean
from ..qos.run import this_machine
from ..ui.activity import BIN_S, BINS
from ..ui.listening import CLOSED

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

_FLEET = "page"
_START_TIMEOUT_S = 120.0
_READ_EVERY_S = 5.0
_WINDOW_S = BIN_S * BINS
_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class PageSettings:
    """rate_hz: tasks per second of each vehicle. watch_s: how long is read after the rings are full."""

    vehicles: int = 100
    rate_hz: float = 2.0
    settle_s: float = _WINDOW_S
    watch_s: float = 600.0


QUICK = PageSettings(settle_s=15.0, watch_s=45.0)


@dataclass(slots=True)
class _Readings:
    rss_mb: list[float] = field(default_factory=list)
    heap_mb: list[float] = field(default_factory=list)


def measure_page(settings: PageSettings, advance: Callable[[int], None] = lambda seconds: None) -> dict[str, Any]:
    """The bench's JSON object; takes settle_s + watch_s, of which `advance` is told in seconds.

    Raises FleetError where the page does not come up.
    """
    load_before = os.getloadavg()[0]
    row = asyncio.run(_measure(settings, advance))
    return {
        "bench": "ui",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {**asdict(settings), "read_every_s": _READ_EVERY_S, "load_average_1m": load_before},
        "rows": [row],
        "ratios": {},
    }


async def _measure(settings: PageSettings, advance: Callable[[int], None]) -> dict[str, Any]:
    readings = _Readings()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "page.log"
        async with Broker() as broker:
            with _running(log, "roadside.cli", "ui", "--broker", broker.url, "--fleet", _FLEET, "--port", "0") as page:
                url = await _address(log, page)
                talkers = ("roadside.benchmarks.synthetic_fleet", broker.url, _FLEET)
                fleet_log = Path(folder) / "fleet.log"
                began_talking_s = time.monotonic()
                with _running(fleet_log, *talkers, str(settings.vehicles), str(settings.rate_hz)) as fleet:
                    async with _looked_at(url) as heap:
                        await _pass(settings.settle_s, advance)
                        process = psutil.Process(page.pid)
                        before_s, began_s = _processor_s(process), time.monotonic()
                        while time.monotonic() - began_s < settings.watch_s:
                            await _pass(_READ_EVERY_S, advance)
                            readings.rss_mb.append(process.memory_info().rss / _MEGABYTE)
                            if heap is not None:
                                readings.heap_mb.append(await _heap_mb(heap))
                        if fleet.poll() is not None:
                            raise FleetError(f"the synthetic fleet has ended and said: {_last_words(fleet_log)}")
                        used_s, passed_s = _processor_s(process) - before_s, time.monotonic() - began_s
                talked_s = time.monotonic() - began_talking_s
        # It says what it has heard when it is told to stop.
        closed = next((line for line in _said(log) if line.get("event") == CLOSED), {})
    return {
        "vehicles": settings.vehicles,
        "tasks_per_s": settings.vehicles * settings.rate_hz,
        "cpu_share_of_a_core": used_s / passed_s,
        "messages_heard": closed.get("heard"),
        "messages_heard_per_s": closed["heard"] / talked_s if closed else None,
        "messages_missed": closed.get("missed"),
        **_level("rss", readings.rss_mb),
        **_level("browser_heap", readings.heap_mb),
    }


@contextlib.contextmanager
def _running(log: Path, module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this package, until the block ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments], stdin=subprocess.PIPE, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _address(log: Path, page: subprocess.Popen[bytes]) -> str:
    until_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until_s and page.poll() is None:
        for line in _said(log):
            if line.get("event") == READY:
                return line["url"]
        await asyncio.sleep(0.1)
    raise FleetError(f"the page did not come up and said: {_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:] or "nothing"


def _said(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


@contextlib.asynccontextmanager
async def _looked_at(url: str) -> AsyncIterator[CDPSession | None]:
    """A headless Chromium that shows the page; None where there is no Chromium, or nothing to drive it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or find_spec("playwright") is None:
        yield None
        return
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
        page = await browser.new_page(viewport={"width": 1366, "height": 768})
        await page.goto(url, timeout=1000 * _START_TIMEOUT_S)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        yield session
        await browser.close()


async def _heap_mb(session: CDPSession) -> float:
    await session.send("HeapProfiler.collectGarbage")
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize") / _MEGABYTE


async def _pass(seconds: float, advance: Callable[[int], None]) -> None:
    await asyncio.sleep(seconds)
    advance(round(seconds))


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _level(name: str, megabytes: Sequence[float]) -> dict[str, float | None]:
    """Means of the first and of the last third, and the highest reading; None where nothing was read."""
    third = len(megabytes) // 3
    if not third:
        return dict.fromkeys((f"{name}_mb_first_third", f"{name}_mb_last_third", f"{name}_mb_max"))
    return {
        f"{name}_mb_first_third": mean(megabytes[:third]),
        f"{name}_mb_last_third": mean(megabytes[-third:]),
        f"{name}_mb_max": max(megabytes),
    }
