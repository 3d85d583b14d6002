from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from roadside.bus import broker as broker_module
from roadside.bus.broker import Broker, BrokerKind, find_mosquitto
from roadside.bus.errors import BrokerError
from roadside.bus.transport import Bus

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 15.0


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
async def taken_port() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_it_starts_accepts_and_leaves_nothing_behind(broker_kind: BrokerKind, tmp_path: Path):
    async with Broker(prefer=broker_kind, directory=tmp_path) as broker:
        assert broker.kind == broker_kind
        assert psutil.pid_exists(broker.pid)
        async with Bus(url=broker.url, fleet="f", name="car-1") as bus:
            assert bus.connected.is_set()
        addresses = {each.laddr.ip for each in psutil.Process(broker.pid).net_connections() if each.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}
        pid, guard = broker.pid, broker._guard
        assert guard is not None
    await until_gone(pid)
    assert guard.returncode is not None


async def test_its_own_directory_goes_with_it(broker_kind: BrokerKind):
    async with Broker(prefer=broker_kind) as broker:
        directory = broker._directory
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not directory.exists()


async def test_the_password_is_neither_in_the_process_list_nor_readable_by_others(tmp_path: Path):
    async with Broker(prefer="amqtt", directory=tmp_path) as broker:
        password = broker.url.split(":")[2].split("@")[0]
        assert len(password) >= 16
        process = psutil.Process(broker.pid)
        assert not any(password in word for word in process.cmdline())
        assert stat.S_IMODE((tmp_path / "passwords").stat().st_mode) == 0o600
        assert password not in (tmp_path / "passwords").read_text()
        assert password not in repr(broker)


async def test_a_port_in_use(broker_kind: BrokerKind, taken_port: int):
    with pytest.raises(BrokerError, match=rf"port {taken_port} is in use: choose another with --port"):
        async with Broker(port=taken_port, prefer=broker_kind):
            pass


async def test_a_port_that_is_taken_while_it_starts(broker_kind: BrokerKind, taken_port: int, monkeypatch):
    monkeypatch.setattr(broker_module, "free_port", lambda port: port)
    broker = Broker(port=taken_port, prefer=broker_kind)
    with pytest.raises(BrokerError, match=r"ended while it was starting|did not answer") as raised:
        await broker.start()
    assert "in use" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert broker._guard is None
    assert broker._own_directory is None


async def test_mosquitto_that_dies_at_once_is_reported_with_its_last_words(monkeypatch, tmp_path: Path):
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho 'Error: cannot do it today' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match=r"mosquitto ended while it was starting.*cannot do it today"):
        async with Broker(prefer="mosquitto"):
            pass


def hide_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(broker_module, "_MORE_FOLDERS", ())


async def test_without_mosquitto_it_is_amqtt(monkeypatch):
    hide_mosquitto(monkeypatch)
    async with Broker() as broker:
        assert broker.kind == "amqtt"
        assert "broker_process" in " ".join(psutil.Process(broker.pid).cmdline())


async def test_without_mosquitto_asking_for_it_says_how_to_get_it(monkeypatch):
    hide_mosquitto(monkeypatch)
    with pytest.raises(BrokerError, match="apt-get install mosquitto"):
        async with Broker(prefer="mosquitto"):
            pass


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed (`apt-get install mosquitto`)")
async def test_with_mosquitto_it_is_mosquitto():
    async with Broker() as broker:
        assert broker.kind == "mosquitto"
        assert psutil.Process(broker.pid).name() == "mosquitto"


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed (`apt-get install mosquitto`)")
async def test_mosquitto_s_configuration_holds_what_cannot_be_seen_from_outside(tmp_path: Path):
    async with Broker(prefer="mosquitto", directory=tmp_path):
        lines = (tmp_path / "mosquitto.conf").read_text().splitlines()
    # Nagle's algorithm on the broker's side alone costs 44 ms per round trip.
    assert "set_tcp_nodelay true" in lines
    assert "persistence false" in lines


async def test_it_starts_again_on_the_same_port_with_the_same_credentials(broker_kind: BrokerKind):
    async with Broker(prefer=broker_kind) as broker:
        url, pid = broker.url, broker.pid
        os.kill(pid, signal.SIGKILL)
        await broker.wait()
        await broker.stop()
        await broker.start()
        assert broker.url == url
        assert broker.pid != pid
        async with Bus(url=url, fleet="f", name="car-1"):
            pass


async def test_stopping_twice_is_harmless(broker_kind: BrokerKind):
    broker = Broker(prefer=broker_kind)
    await broker.start()
    await broker.stop()
    await broker.stop()
    await broker.wait()


PARENT = """
import asyncio, sys
from roadside.bus.broker import Broker

async def main():
    async with Broker(prefer=sys.argv[1]) as broker:
        print(broker.pid, broker._guard.pid, broker.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_ends_when_its_parent_is_killed(broker_kind: BrokerKind):
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", PARENT, broker_kind), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid, guard_pid, port = map(int, (await parent.stdout.readline()).split())
    assert psutil.pid_exists(pid)
    parent.kill()
    await parent.wait()
    await until_gone(pid)
    await until_gone(guard_pid)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_it_ends_although_it_hangs(broker_kind: BrokerKind, monkeypatch):
    if broker_kind == "amqtt":
        # mosquitto's guard needs its time; amqtt is its own guard, which hangs with it.
        monkeypatch.setattr(broker_module, "_STOP_TIMEOUT_S", 0.5)
    broker = Broker(prefer=broker_kind)
    await broker.start()
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        await broker.stop()
    finally:
        await until_gone(broker.pid)


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a child with its parent")
@pytest.mark.skipif(os.geteuid() == 0, reason="started by root, mosquitto becomes another user, and Linux forgets it")
async def test_mosquitto_ends_when_its_guard_is_killed():
    broker = Broker(prefer="mosquitto")
    await broker.start()
    assert broker._guard is not None
    broker._guard.kill()
    await until_gone(broker.pid)
    await broker.stop()
