"""The demo with its live page: there while the fleet drives, gone with it."""

from __future__ import annotations

import asyncio
import io
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console
from roadside.demo import DemoOptions, run_demo


def _status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.status


async def test_the_page_is_there_while_the_fleet_drives(tmp_path: Path) -> None:
    said = io.StringIO()
    options = DemoOptions(
        vehicles=1, edges=0, clouds=0, place="vehicle", rate_hz=5.0, duration_s=600.0, run=tmp_path / "run"
    )
    stop = asyncio.Event()
    driving = asyncio.create_task(run_demo(options, Console(file=said, width=200), stop, with_page=True))
    async with asyncio.timeout(120):
        # An answer is shown: everybody is there.
        while "vehicle-1" not in said.getvalue():
            assert not driving.done(), driving.result()
            await asyncio.sleep(0.05)
        address = re.search(r"live page: (http://127\.0\.0\.1:\d+/)", said.getvalue())
        assert address is not None
        assert await asyncio.to_thread(_status, address[1]) == 200
        stop.set()
        _, summary = await driving
    assert summary["tasks"]["result"] > 0
    assert summary["tasks"]["lost"] == 0
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(_status, address[1])
