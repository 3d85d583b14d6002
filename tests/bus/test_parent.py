from __future__ import annotations

import asyncio
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.timeout(60)

CHILD = """
import asyncio, sys, time
from roadside.bus.parent import end_with_parent

async def main():
    parent_gone = asyncio.Event()
    end_with_parent(parent_gone.set, grace_s=0.5)
    print("ready", flush=True)
    {then}

asyncio.run(main())
"""


async def start(then: str) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", CHILD.format(then=then)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    return child


async def test_the_callback_runs_when_standard_input_ends_and_not_before():
    child = await start("await parent_gone.wait(); print('gone', flush=True)")
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"what is written is ignored\n" * 1000)
    await child.stdin.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.wait(), 0.3)
    child.stdin.close()
    assert await child.stdout.readline() == b"gone\n"
    assert await child.wait() == 0


@pytest.mark.parametrize(
    "then", ["await asyncio.Event().wait()", "time.sleep(50)"], ids=["ignores it", "loop is stuck"]
)
async def test_who_does_not_end_is_ended(then: str):
    child = await start(then)
    assert child.stdin is not None
    child.stdin.close()
    assert await child.wait() == 1


async def test_a_process_that_ends_by_itself_does_not_wait_for_its_parent():
    child = await start("pass")
    assert await child.wait() == 0


FOREIGN_CHILD = """
import subprocess, sys, time
from roadside.bus.parent import ends_with_this_process
child = subprocess.Popen(["sleep", "600"], preexec_fn=ends_with_this_process())
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a child with its parent")
def test_a_child_that_reads_no_pipe_ends_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-P", "-c", FOREIGN_CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=15.0)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
