"""The live page in a real browser: it lives, survives, believes nothing that it is told, and stays on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Route, async_playwright, expect
from roadside.bus import topics
from roadside.bus.broker import Broker, free_port
from roadside.bus.process import READY
from roadside.bus.transport import Bus

Build = Callable[..., Any]

_PATIENCE_S = 60
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"

needs_chromium = pytest.mark.skipif(
    _CHROMIUM is None, reason="chromium is not installed (`apt-get install chromium`): the live page is not looked at"
)


@dataclass
class Watched:
    """A browser's page, and what it did that it should not have."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def fail(self, error: Exception) -> None:
        self.complaints.append(f"page error: {error}")

    async def stay_here(self, route: Route, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1":
            await route.continue_()
        else:
            self.complaints.append(f"asked for {request.url}")
            await route.abort()


@asynccontextmanager
async def _served(broker: str, fleet: str) -> AsyncIterator[str]:
    """`roadside ui` as a user runs it, until the block ends; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "roadside.cli", "ui", "--broker", broker, "--fleet", fleet, "--port", "0"),
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROADSIDE_")},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            said = {}
            while said.get("event") != READY:
                line = await process.stderr.readline()
                assert line, "the page ended before it was served"
                said = json.loads(line)
        yield said["url"]
        process.terminate()
        async with asyncio.timeout(_PATIENCE_S):
            await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Whoever runs tests as root, as containers do, has no sandbox.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=flags)
        yield browser
        await browser.close()


async def _opened(browser: Browser, url: str) -> Watched:
    watched = Watched(await browser.new_page(viewport={"width": 1366, "height": 768}))
    watched.page.set_default_timeout(1000 * _PATIENCE_S)
    watched.page.on("console", watched.hear)
    watched.page.on("pageerror", watched.fail)
    await watched.page.route("**/*", watched.stay_here)
    await watched.page.goto(url)
    return watched


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1280, 720), (20, 90, 160)).save(file, "JPEG")
    return file.getvalue()


def _status(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@needs_chromium
@pytest.mark.timeout(300)
async def test_a_fleet_is_watched_through_a_restart_of_its_broker(
    fleet: str, an_ack: Build, a_result: Build, an_outcome: Build, a_frame: Build, a_state: Build
) -> None:
    expect.set_options(timeout=1000 * _PATIENCE_S)
    broker = Broker(port=free_port())
    url = broker.url
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(_served(url, fleet))
        browser = await stack.enter_async_context(_browser())
        first = await _opened(browser, address)
        page = first.page

        # There is no broker yet, and the page says so.
        banner = page.locator(".banner").first
        await expect(banner).to_contain_text("No broker")
        await expect(banner).to_contain_text("nothing listens")
        await expect(page.get_by_text("Waiting for the first vehicle")).to_be_visible()

        await broker.start()
        await expect(banner).to_be_hidden()
        edge = await stack.enter_async_context(Bus(url=url, fleet=fleet, name="edge-1"))
        vehicle = await stack.enter_async_context(Bus(url=url, fleet=fleet, name="vehicle-1"))
        await edge.publish(topics.NODE_STATE, a_state(model=_HOSTILE))
        await vehicle.publish(topics.FRAME, a_frame(jpeg=_jpeg()))
        await edge.publish(topics.ACK, an_ack(), vehicle="vehicle-1")
        await edge.publish(topics.RESULT, a_result(final=False, text=_HOSTILE), vehicle="vehicle-1")
        answer = page.locator(".card .answer").first
        await expect(answer).to_have_text(f"“{_HOSTILE}”")
        await expect(page.get_by_text("for now; the final answer is awaited")).to_be_visible()
        await edge.publish(topics.RESULT, a_result(), vehicle="vehicle-1")
        await vehicle.publish(topics.OUTCOME, an_outcome(reason=_HOSTILE))
        await expect(answer).to_have_text("“the car stops .”")
        await expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 480)

        # A second browser sees the same; so does the sheet of the task, down to the policy's scores.
        second = await _opened(browser, address)
        await expect(second.page.locator(".card .answer").first).to_have_text("“the car stops .”")
        await second.page.get_by_role("button", name="Pause").click()
        await second.page.locator(".tasks tbody tr").first.click()
        sheet = second.page.locator(".sheet")
        await expect(sheet).to_contain_text("explain of vehicle-1: answered in time")
        await expect(sheet).to_contain_text("below the quality floor")
        await expect(sheet).to_contain_text("+0.712")
        await expect(sheet.locator(".tokens").last.locator(".token")).to_have_text(["the", "car", "stops", ".", ""])

        # A picture that is none is said to be none, and the broker's restart is survived.
        await vehicle.publish(topics.FRAME, a_frame())
        await expect(page.get_by_text("The last picture cannot be read.")).to_be_visible()
        await broker.stop()
        await expect(banner).to_contain_text("No broker")
        await broker.start()
        await expect(banner).to_be_hidden()
        # What is told while a broker forgets everybody may be lost, as to any onlooker; the next is not.
        for number in range(2, _PATIENCE_S):
            await vehicle.publish(topics.OUTCOME, an_outcome(task_id=f"t-{number}", text="the car turns left ."))
            with contextlib.suppress(AssertionError):
                await expect(answer).to_have_text("“the car turns left .”", timeout=1000)
                break
        await expect(answer).to_have_text("“the car turns left .”")
        # A paused page stands still.
        await expect(second.page.locator(".card .answer").first).to_have_text("“the car stops .”")

        for watched in (first, second):
            assert watched.complaints == []
            assert await watched.page.evaluate("window.hacked") is None
        # Another site's page cannot reach this one under a name that it has made resolve to this machine.
        here = urlsplit(address).netloc
        assert await asyncio.to_thread(_status, address, here) == 200
        assert await asyncio.to_thread(_status, address, "evil.example") == 400
        assert await asyncio.to_thread(_status, f"{address}pictures/nobody/1", here) == 404
        await broker.stop()
