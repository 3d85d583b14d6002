"""The far end of `roadside bench bus`, run by bus.py as a process of its own: answers for both contenders."""

from __future__ import annotations

import asyncio
import os
import sys

from ..bus.defaults import BROKER_VARIABLE
from ..bus.parent import end_with_parent
from .bus_contenders import bare_far, roadside_far

READY = "ready"


async def main(url: str, fleet: str) -> None:
    """Print one line when both can be sent to; end with the parent."""
    parent_gone, roadside_ready, bare_ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    end_with_parent(parent_gone.set)
    async with asyncio.TaskGroup() as ends:
        serving = [
            ends.create_task(roadside_far(url, fleet, roadside_ready.set)),
            ends.create_task(bare_far(url, bare_ready.set)),
        ]
        await roadside_ready.wait()
        await bare_ready.wait()
        print(READY, flush=True)
        await parent_gone.wait()
        for task in serving:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(os.environ[BROKER_VARIABLE], sys.argv[1]))
