"""How processes stop, fail and feel."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest
from roadside.bus.errors import BrokerError
from roadside.bus.process import Health, run_until_stopped

# Says when it runs, drains for a moment once it is asked to stop, and says that it has.
DRAINING = """
import asyncio
from roadside.bus.process import run_until_stopped

async def main(stop):
    print("running", flush=True)
    await stop.wait()
    await asyncio.sleep({drain_s})
    print("drained", flush=True)

run_until_stopped(main, exit_with_parent={exit_with_parent})
"""


def start(*, drain_s: float = 0.1, exit_with_parent: bool = False) -> subprocess.Popen[str]:
    code = DRAINING.format(drain_s=drain_s, exit_with_parent=exit_with_parent)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_drain(number):
    process = start()
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert (said, process.returncode) == ("drained\n", 0)


def test_a_second_signal_ends_a_drain_that_hangs():
    process = start(drain_s=600)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert (said, process.returncode) == ("", 130)


def test_the_end_of_its_parents_pipe_lets_it_drain():
    process = start(exit_with_parent=True)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "drained\n"


def test_of_tasks_that_fail_together_the_one_that_knows_what_to_do_speaks():
    async def fails() -> None:
        raise BrokerError("start the broker")

    async def main(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(nested())

    async def nested() -> None:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fails())

    with pytest.raises(BrokerError, match="start the broker"):
        run_until_stopped(main)


def test_a_programming_error_is_not_dressed_up():
    async def main(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(broken())

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        run_until_stopped(main)


async def test_a_blocked_event_loop_is_noticed():
    health = Health()
    assert health.event_loop_lag_ms == 0.0
    watching = asyncio.create_task(health.watch_event_loop())
    for _ in range(20):
        await asyncio.sleep(0.01)
        time.sleep(0.1)  # noqa: ASYNC251 (blocking is the point)
    watching.cancel()
    assert health.event_loop_lag_ms > 20
    assert health.memory_bytes > 1e6
    assert health.uptime_s > 2


LOGS = """
import logging, sys, warnings
import structlog
from roadside.bus.process import configure_logging
configure_logging("edge-1", level=sys.argv[1], terminal=False)
log = structlog.get_logger()
log.debug("placed", task_id="t-1")
log.info("ready")
logging.getLogger("some.library").warning("careful with %s", "this")
logging.getLogger("some.library").info("chatter")
warnings.warn("old")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("some.library").exception("failed")
"""


@pytest.mark.parametrize(("level", "own"), [("debug", ["placed", "ready"]), ("info", ["ready"]), ("warning", [])])
def test_logs_are_json_lines_of_the_level_that_was_asked_for_whoever_wrote_them(level, own):
    done = subprocess.run([sys.executable, "-P", "-c", LOGS, level], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(line["process"] == "edge-1" and line["level"] and line["timestamp"] for line in lines)
    assert [line["event"] for line in lines[: len(own)]] == own
    library, warned, failed = lines[len(own) :]
    assert (library["event"], library["logger"]) == ("careful with this", "some.library")
    assert "UserWarning: old" in warned["event"]
    assert "ZeroDivisionError" in failed["exception"]
    if level == "debug":
        assert lines[0]["task_id"] == "t-1"
