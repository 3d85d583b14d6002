"""Links on the command line: `roadside demo --link` and `roadside link`."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.connection import BrokerAddress
from roadside.bus.messages import NodeState
from roadside.bus.transport import Bus

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")


def test_the_demo_drives_behind_a_link(best_broker: Broker, tmp_path):
    link = "10Mbps,400ms"
    command = [*ROADSIDE, "demo", "--json", "--broker", best_broker.url, "--run", str(tmp_path / "run")]
    options = ["--link", link, "--place", "cloud", "--edges", "0", "--duration", "4", "--rate", "2"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, timeout=150)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["tasks"]["lost"] == 0
    assert summary["placements"]["cloud"] > 0
    assert summary["latency_ms"]["p50"] >= 400
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["configuration"]["link"] == link


@pytest.mark.parametrize("verb", [["demo"], ["link"]])
def test_a_link_that_is_none_is_refused_before_anything_starts(tmp_path, verb):
    done = subprocess.run(
        [*ROADSIDE, *verb, "--link", "quick"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 2
    assert "100Mbps,20ms" in done.stderr
    assert not list(tmp_path.iterdir())


async def test_a_link_by_hand_slows_whoever_uses_its_port_and_ends_with_ctrl_c(broker: Broker, fleet: str):
    there = BrokerAddress.parse(broker.url)
    command = [*ROADSIDE, "link", "--to", str(there), "--port", "0", "--link", "150ms"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        announced = (await process.stderr.readline()).decode().split()[0]
        here = BrokerAddress.parse(announced)
        url = BrokerAddress(here.host, here.port, there.username, there.password).url
        async with Bus(url=url, fleet=fleet, name="edge-1") as bus:
            began_s = time.monotonic()
            await bus.publish(topics.NODE_STATE, NodeState(node="edge-1", role="edge", alive=True))
            assert time.monotonic() - began_s >= 0.150
        process.send_signal(signal.SIGINT)
        _, last_words = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert b"bytes went up" in last_words


def test_a_link_on_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*ROADSIDE, "link", "--port", port, "--link", "20ms"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr
