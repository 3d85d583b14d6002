"""Processes that end with the process that started them, however that one ended.

The parent keeps the write end of a pipe that is the child's standard input, and never needs to write. The operating
system closes it when the parent dies, by SIGKILL too, and the child reads the end of the file.

A child that is no program of ours reads no such thing. On Linux the kernel itself can end it with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_CHUNK_BYTES = 4096
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(on_parent_gone: Callable[[], None], *, grace_s: float = 10.0) -> None:
    """Call `on_parent_gone` in the running event loop once standard input has ended.

    A process that is still there `grace_s` seconds later is ended the hard way: nobody is left who would do it.
    """
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), _CHUNK_BYTES):
            pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(on_parent_gone)
        time.sleep(grace_s)
        os._exit(1)

    # A daemon thread, so that a process which ends by itself does not wait for its parent.
    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def ends_with_this_process() -> Callable[[], None] | None:
    """For `preexec_fn`: the child gets SIGTERM when this process dies, by SIGKILL too. None where no kernel does that.

    Linux forgets it for a child that becomes another user, as mosquitto does where root starts it.

    Call it from the thread that lives as long as the process: the kernel watches the thread that starts the child.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Loaded before the fork, behind which little is safe to do.
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before it could be watched

    return ask_the_kernel
