from __future__ import annotations

import asyncio
import time

import pytest
from roadside.replay.virtual_time import run_in_virtual_time


def test_an_hour_passes_at_once_and_everybody_sees_it_pass():
    async def main() -> list[tuple[str, float, float]]:
        seen = []

        async def look(name: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            seen.append((name, asyncio.get_running_loop().time(), time.monotonic()))

        await asyncio.gather(look("late", 3600.0), look("early", 0.5), look("next", 0.75))
        return seen

    began_s = time.process_time()
    seen = run_in_virtual_time(main(), now_s=100.0)
    assert time.process_time() - began_s < 5
    assert [name for name, _, _ in seen] == ["early", "next", "late"]
    assert [loop_s for _, loop_s, _ in seen] == pytest.approx([100.5, 100.75, 3700.0])
    assert all(loop_s == clock_s for _, loop_s, clock_s in seen)


def test_the_clock_is_real_again_afterwards_also_after_a_failure():
    async def main() -> None:
        await asyncio.sleep(10.0)
        raise ValueError("after ten seconds")

    before_s = time.monotonic()
    with pytest.raises(ValueError, match="ten seconds"):
        run_in_virtual_time(main(), now_s=1e9)
    assert 0 <= time.monotonic() - before_s < 60


def test_a_limit_of_time_that_is_passed_ends_the_wait():
    async def main() -> str:
        try:
            async with asyncio.timeout(5.0):
                await asyncio.Event().wait()
        except TimeoutError:
            return f"after {asyncio.get_running_loop().time():.0f}"
        return "never"

    assert run_in_virtual_time(main(), now_s=0.0) == "after 5"
