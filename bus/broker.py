"""A broker for one machine: mosquitto where it is installed, else amqtt, each in a process of its own.

    async with Broker() as broker:
        async with Bus(url=broker.url, ...) as bus:
            ...

The broker is kept by a small guard process (broker_process.py), which ends it when this process ends, however that
happens. It listens on the loopback interface only; for a fleet on several machines, run a broker of your own and
give its URL.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import aiomqtt

from .connection import BrokerAddress, Endpoint, connected, new_client
from .errors import BrokerError, ConfigurationError
from .mosquitto_configuration import LOOPBACK, SERVER_FILES
from .tls import new_context

BrokerKind = Literal["mosquitto", "amqtt"]

# Debian and its relatives keep it where an ordinary user's PATH does not look.
_MORE_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_START_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 2.0
# Longer than the guard gives a mosquitto that does not end when it is asked to.
_STOP_TIMEOUT_S = 4.0
_RETRY_S = 0.05


def find_mosquitto() -> str | None:
    """The path of the mosquitto program, or None where it is not installed."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_MORE_FOLDERS]
    return shutil.which("mosquitto", path=os.pathsep.join(folders))


class Broker:
    """One broker process; an asynchronous context manager, which may also be stopped and started again by hand.

    port: where it listens on 127.0.0.1; 0 takes a free one. It keeps its port and its credentials over a restart.
    prefer: "mosquitto" or "amqtt"; None takes mosquitto where it is installed.
    directory: where its configuration and its log (broker.log) stand; None: a temporary one, removed at the end.
    tls: a folder of `roadside secure`: only its fleet's identities are let in, each to do what its role may. It needs
        mosquitto.

    kind, port, url: what it is and where; pid: of the process that carries the messages.

    Starting raises BrokerError where mosquitto is preferred but missing, the port is taken, or the broker dies.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        prefer: BrokerKind | None = None,
        directory: Path | None = None,
        tls: Path | None = None,
    ) -> None:
        self.port = port
        self._server_files = None if tls is None else tls.absolute() / "broker"
        self.kind: BrokerKind = prefer or ("mosquitto" if find_mosquitto() else "amqtt")
        self.pid = 0
        self._password = secrets.token_urlsafe(16)
        self._given_directory = directory
        self._own_directory: tempfile.TemporaryDirectory[str] | None = None
        self._guard: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """What clients connect to. amqtt keeps messages for absent clients only where they log in."""
        credentials = f"roadside:{self._password}@" if self.kind == "amqtt" else ""
        scheme = "mqtt" if self._server_files is None else "mqtts"
        return f"{scheme}://{credentials}{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, and return when it accepts MQTT connections."""
        executable = find_mosquitto() if self.kind == "mosquitto" else sys.executable
        if executable is None:
            raise BrokerError("mosquitto is not installed: install it (`apt-get install mosquitto`) or choose amqtt")
        self._check_server_files()
        self.port = free_port(self.port)
        if self._given_directory is None:
            self._own_directory = tempfile.TemporaryDirectory(prefix="roadside-broker-", ignore_cleanup_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            await self._start_guard(executable)
            await self._until_it_accepts()
        except BaseException:
            await self.stop()
            raise

    def _check_server_files(self) -> None:
        if self._server_files is None:
            return
        if self.kind != "mosquitto":
            raise BrokerError(
                "a secured fleet needs mosquitto, as amqtt has no access rules: install it (`apt-get install"
                " mosquitto`)"
            )
        for name in SERVER_FILES.values():
            if not (self._server_files / name).is_file():
                raise ConfigurationError(
                    f"no {name} in {self._server_files}: give a folder that `roadside secure` made, or copy all of its"
                    " folder broker"
                )

    async def stop(self) -> None:
        """End it. Does nothing where it has ended already."""
        if self._guard is not None:
            await _end(self._guard)
            self._guard = None
        if self._own_directory is not None:
            self._own_directory.cleanup()
            self._own_directory = None

    async def wait(self) -> None:
        """Return when the broker has ended, for whatever reason."""
        if self._guard is not None:
            await self._guard.wait()

    async def _start_guard(self, executable: str) -> None:
        settings = {
            "kind": self.kind,
            "executable": executable,
            "port": self.port,
            "directory": str(self._directory),
            "password": self._password,
            "server_files": None if self._server_files is None else str(self._server_files),
        }
        with self._log_path.open("ab") as log:
            self._guard = await asyncio.create_subprocess_exec(
                # -P keeps the folder that the user stands in off the module path.
                *(sys.executable, "-P", "-m", "roadside.bus.broker_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # In a session of its own Ctrl-C does not reach it: clients say goodbye before their broker goes.
                start_new_session=True,
            )
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        # By pipe, not as an argument, which every user of the machine could read.
        self._guard.stdin.write(json.dumps(settings).encode() + b"\n")
        line = await self._guard.stdout.readline()
        if not line:
            raise self._died()
        self.pid = int(line)

    async def _until_it_accepts(self) -> None:
        """Try to connect until it works: an open port alone does not mean that it speaks MQTT yet."""
        assert self._guard is not None
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._guard.returncode is not None:
                raise self._died()
            # If ours has ended meanwhile, it was somebody else's that answered.
            if await self._accepts() and self._guard.returncode is None:
                return
            await asyncio.sleep(_RETRY_S)
        raise BrokerError(f"{self.kind} did not answer within {_START_TIMEOUT_S:.0f} s: {self._last_words()}")

    async def _accepts(self) -> bool:
        try:
            if self._server_files is not None:
                # To show the right certificate is proof enough; who starts a broker need not be one of its fleet.
                context = new_context(self._server_files / SERVER_FILES["cafile"])
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    _, writer = await asyncio.open_connection(LOOPBACK, self.port, ssl=context)
                writer.close()
                return True
            async with connected(self._probe()):
                return True
        except (aiomqtt.MqttError, OSError):
            # A TimeoutError is an OSError, too, and so is every error of TLS.
            return False

    def _probe(self) -> aiomqtt.Client:
        return new_client(
            Endpoint(BrokerAddress.parse(self.url)),
            identifier=f"start-{secrets.token_hex(4)}",
            clean_session=True,
            on_message=lambda message: None,
            keepalive_s=10,
            timeout_s=_PROBE_TIMEOUT_S,
            in_flight_limit=1,
        )

    @property
    def _directory(self) -> Path:
        if self._own_directory is not None:
            return Path(self._own_directory.name)
        assert self._given_directory is not None
        return self._given_directory

    @property
    def _log_path(self) -> Path:
        return self._directory / "broker.log"

    def _died(self) -> BrokerError:
        return BrokerError(f"{self.kind} ended while it was starting on port {self.port}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


async def _end(guard: asyncio.subprocess.Process) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        await asyncio.wait_for(guard.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        guard.kill()
        await guard.wait()


def free_port(port: int = 0) -> int:
    """The port itself if it can be listened on, a free one for 0; BrokerError otherwise."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the brokers do: connections that are still being taken down do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            raise BrokerError(f"port {port} needs an administrator: choose one from 1024 up with --port") from None
        except OSError:
            raise BrokerError(
                f"port {port} is in use: choose another with --port, or stop what listens there"
            ) from None
        return probe.getsockname()[1]
