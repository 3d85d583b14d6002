"""Processes that end with the process that started them, however that one ended.

The parent keeps the write end of a pipe that is the child's standard input, and never needs to write. The operating
system closes it when the parent dies, by SIGKILL too, and the child reads the end of the file.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable

_CHUNK_BYTES = 4096


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
