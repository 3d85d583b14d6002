"""What every process of a fleet has in common: how it stops, how it logs, and how well it feels."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable

import psutil
import structlog

from .configuration import LogLevel
from .errors import RoadsideError
from .parent import end_with_parent

# What a process logs, as its event, once it serves; whoever started it waits for this.
READY = "ready to serve"

_LAG_INTERVAL_S = 0.05
_LAG_WINDOW = 200  # 10 s of samples


class Health:
    """Self-observation of a process: uptime, memory, and how late its event loop runs.

    A loop that something blocks answers nobody, so the lag is part of every node's published state.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lags_ms: deque[float] = deque(maxlen=_LAG_WINDOW)
        self._process = psutil.Process()

    async def watch_event_loop(self) -> None:
        """Runs until cancelled."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(_LAG_INTERVAL_S)
            self._lags_ms.append(max(0.0, (time.monotonic() - asked - _LAG_INTERVAL_S) * 1000))

    @property
    def event_loop_lag_ms(self) -> float:
        """99th percentile over the last ten seconds, in milliseconds."""
        if not self._lags_ms:
            return 0.0
        ordered = sorted(self._lags_ms)
        return ordered[int(0.99 * (len(ordered) - 1))]

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def memory_bytes(self) -> int:
        """Resident set size."""
        return self._process.memory_info().rss


def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[None]], *, exit_with_parent: bool = False) -> None:
    """Run a process's main coroutine; SIGTERM and Ctrl-C set the event, upon which it drains and returns.

    A second signal cancels it, for a drain that hangs. exit_with_parent: the end of standard input is such a signal.
    """

    async def guarded() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(main(stop))

        def asked_to_stop() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked_to_stop)
        if exit_with_parent:
            end_with_parent(asked_to_stop)
        try:
            await task
        except ExceptionGroup as group:
            # Of several tasks that failed together, the first one that says what to do speaks for all.
            if (known := group.subgroup(RoadsideError)) is not None:
                raise _first_leaf(known) from None
            raise

    try:
        asyncio.run(guarded())
    except asyncio.CancelledError:
        sys.exit(130)


def _first_leaf(group: ExceptionGroup[RoadsideError]) -> RoadsideError:
    first = group.exceptions[0]
    return _first_leaf(first) if isinstance(first, ExceptionGroup) else first


def configure_logging(process: str, *, level: LogLevel = "info", terminal: bool | None = None) -> None:
    """Logs go to stderr: coloured lines on a terminal, one JSON object a line elsewhere; each names its process.

    What libraries log through Python's own logging, from warnings up, takes the same way.
    """
    if terminal is None:
        terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    structlog.contextvars.bind_contextvars(process=process)
