"""A fleet of processes on this machine: started together, watched, and stopped without leaving one behind.

Every process is a verb of the command line with a log file of its own. It says "ready" in that log when it serves,
ends when its parent does (bus/parent.py), and finishes what it has accepted when it gets SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from .bus.defaults import BROKER_VARIABLE, LOG_LEVEL_VARIABLE, TLS_VARIABLE
from .bus.errors import FleetError
from .bus.process import READY
from .qos.run import RunDirectory

_POLL_S = 0.1
_DRAIN_S = 10.0


class Fleet:
    """run: where the processes' log files go; broker_url: the broker that they all use.

    tls: the folder with their certificates; None leaves it to them, where a file of theirs may say it.

    Use as an async context manager: leaving it stops them all.
    """

    def __init__(self, run: RunDirectory, broker_url: str, tls: Path | None = None) -> None:
        self._run = run
        self._broker_url = broker_url
        self._tls = tls
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(list(self._processes))

    async def start(
        self,
        name: str,
        *arguments: str,
        broker_url: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Run `roadside ARGUMENTS` as a process called `name`.

        broker_url: where it differs from the others'. variables: of its environment, for what is nobody else's
        business: arguments are there for every user of the machine to see, and a URL may hold a password.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **(variables or {})}
        environment[BROKER_VARIABLE] = broker_url or self._broker_url
        # What this process was told of another broker's certificates is not meant for them.
        environment.pop(TLS_VARIABLE, None)
        if self._tls is not None:
            environment[TLS_VARIABLE] = str(self._tls)
        if environment.get(LOG_LEVEL_VARIABLE) in ("warning", "error"):
            # A process says at level info that it is ready, and it says so into its log file alone.
            environment[LOG_LEVEL_VARIABLE] = "info"
        with self._run.log_path(name).open("wb") as log:
            # -P keeps the working directory off sys.path: a folder called `datasets` there would shadow a library.
            # A session of its own keeps Ctrl-C from reaching it twice: this process passes the stop on.
            self._processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "roadside.cli", *arguments, "--exit-with-parent"),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def ready(self, names: Iterable[str], *, timeout_s: float) -> None:
        """Wait until each of the processes has said that it serves; FleetError when one dies or takes too long."""
        waiting = list(names)
        for _ in range(int(timeout_s / _POLL_S)):
            waiting = [name for name in waiting if READY not in self._run.log_path(name).read_text(errors="replace")]
            if not waiting:
                return
            self.check(waiting)
            await asyncio.sleep(_POLL_S)
        logs = self._run.path / "logs"
        raise FleetError(f"{', '.join(waiting)} did not come up within {timeout_s:.0f} s; see {logs}")

    def check(self, names: Iterable[str]) -> None:
        """FleetError, with the last line of its log, where one of the processes is no more."""
        for name in names:
            if self.exit_status(name) is not None:
                raise FleetError(self.last_words(name))

    def exit_status(self, name: str) -> int | None:
        """None while it runs; negative where a signal killed it."""
        return self._processes[name].returncode

    def last_words(self, name: str) -> str:
        """How a process that is no more has ended, with the last line of its log."""
        path = self._run.log_path(name)
        lines = path.read_text(errors="replace").strip().splitlines()
        said = lines[-1] if lines else "nothing"
        return f"{name} ended with exit status {self.exit_status(name)} and said: {said} (log: {path})"

    def ended(self, names: Iterable[str]) -> list[str]:
        """Those of the processes that are no more."""
        return [name for name in names if self._processes[name].returncode is not None]

    async def finished(self, names: Iterable[str]) -> None:
        """Wait until the processes have ended by themselves; FleetError where one did so with a failure."""
        names = list(names)
        await asyncio.gather(*(self._processes[name].wait() for name in names))
        self.check(name for name in names if self._processes[name].returncode)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process, for instance to see what its death costs the others."""
        self._processes[name].send_signal(number)

    def pid(self, name: str) -> int:
        """The process's id, also after its end."""
        return self._processes[name].pid

    async def wait(self, name: str) -> int:
        """Wait until a process has ended, however that came, and return its exit status; negative: its signal."""
        return await self._processes[name].wait()

    async def stop(self, names: Iterable[str]) -> None:
        """SIGTERM, time to finish what was accepted, then SIGKILL."""
        await asyncio.gather(*(self._stop(self._processes[name]) for name in names))

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _DRAIN_S)
        except TimeoutError:
            process.kill()
            await process.wait()
