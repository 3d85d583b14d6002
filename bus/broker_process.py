"""The guard of a broker: keeps it while the parent lives, ends it when standard input ends.

Run by broker.py as `python -P -m roadside.bus.broker_process`. The first line on standard input is a JSON object with
the settings; the first line on standard output is the broker's process id. amqtt runs in this process, mosquitto as
its child.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from . import mosquitto_configuration
from .parent import end_with_parent, ends_with_this_process

_TERMINATE_TIMEOUT_S = 2.0
_SESSION_EXPIRY_S = 3600


async def main() -> int:
    settings = json.loads(_first_line())
    parent_gone = asyncio.Event()
    end_with_parent(parent_gone.set, grace_s=2 * _TERMINATE_TIMEOUT_S)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, parent_gone.set)
    keep = _keep_mosquitto if settings["kind"] == "mosquitto" else _keep_amqtt
    return await keep(settings, parent_gone)


def _first_line() -> bytes:
    """Read one line without a buffer that would swallow what follows."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            raise SystemExit("the parent ended before it said what to start")
        line += byte
    return line


async def _keep_mosquitto(settings: dict[str, Any], parent_gone: asyncio.Event) -> int:
    configuration = Path(settings["directory"]) / "mosquitto.conf"
    configuration.write_text(_mosquitto_configuration(settings))
    mosquitto = await asyncio.create_subprocess_exec(
        *(settings["executable"], "-c", str(configuration)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=ends_with_this_process(),
    )
    print(mosquitto.pid, flush=True)
    ended = asyncio.create_task(mosquitto.wait())
    gone = asyncio.create_task(parent_gone.wait())
    await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not ended.done():
        mosquitto.terminate()
        await asyncio.wait({ended}, timeout=_TERMINATE_TIMEOUT_S)
    if not ended.done():
        mosquitto.kill()
    return await ended


def _mosquitto_configuration(settings: dict[str, Any]) -> str:
    if settings["server_files"] is None:
        return mosquitto_configuration.open_on_loopback(settings["port"])
    files = Path(settings["server_files"])
    secured = mosquitto_configuration.secured(files, port=settings["port"], host=mosquitto_configuration.LOOPBACK)
    return secured + mosquitto_configuration.run_by_this_user()


async def _keep_amqtt(settings: dict[str, Any], parent_gone: asyncio.Event) -> int:
    # Imported here: whoever keeps mosquitto needs none of it.
    from amqtt.errors import AMQTTError
    from pwdlib.hashers.argon2 import Argon2Hasher

    from .amqtt_broker import OwnRetainedOnly

    # The password is random and long, so a slow hash would protect nothing, and it would stall the broker for
    # every client that logs in.
    hasher = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)
    passwords = Path(settings["directory"]) / "passwords"
    passwords.touch(mode=0o600)
    passwords.write_text(f"roadside:{hasher.hash(settings['password'])}\n")
    broker = OwnRetainedOnly(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{settings['port']}"}},
            "plugins": {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)}},
            "session_expiry_interval": _SESSION_EXPIRY_S,
        }
    )
    print(os.getpid(), flush=True)
    try:
        await broker.start()
    except AMQTTError as error:
        print(error, file=sys.stderr)
        return 1
    await parent_gone.wait()
    await asyncio.wait_for(broker.shutdown(), _TERMINATE_TIMEOUT_S)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
