"""An event loop whose time passes only when nothing is left to do, and then at once.

What took half a minute on the road is replayed in as long as it computes, and twice the same on any machine.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """now_s: what its clock, and for as long as it runs every monotonic clock of the process, begins with.

    For code that waits for timers and for itself. What waits for a thread, a socket or another process would find that
    time has jumped meanwhile.
    """

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now_s

    def jump(self, by_s: float) -> None:
        # To just behind a timer: far from 0 a float cannot tell it from the clock's own resolution, and a loop that has
        # come to its very moment would wait for it for ever.
        self._now_s = math.nextafter(self._now_s + by_s, math.inf)


class _JumpingSelector(selectors.SelectSelector):
    """Where a loop would sleep, its clock goes on instead."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.jump(timeout)
        return ready


def run_in_virtual_time(main: Coroutine[Any, Any, T], *, now_s: float) -> T:
    """Run to the end. Whatever asks `time.monotonic` meanwhile is told the loop's time."""
    loop = VirtualTimeLoop(now_s)
    real = time.monotonic
    time.monotonic = loop.time
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main)
    finally:
        time.monotonic = real
