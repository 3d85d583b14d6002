"""The cloud dies, or hangs, while an edge and it are in the middle of an answer: the edge ends it alone, in time."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from roadside.bus import topics

pytestmark = pytest.mark.asyncio(loop_scope="session")

# No exit is ever sure, so every token is asked for: whenever the cloud dies, answers are under way.
TOGETHER = ("--place", "edge+cloud", "--theta", "1.1")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_answers_under_way_come_from_the_edge_within_their_deadlines(faults, how):
    await faults.nodes.need("edge-1", "cloud-1")
    requests = faults.bus.subscribe(topics.INFER, limit=10_000, node="cloud-1")
    await requests.active.wait()
    await faults.drive("vehicle-1", *TOGETHER, rate_hz=8.0, duration_s=5.0)
    await faults.until(lambda: by_both(faults))
    while len(requests):
        await anext(requests)
    await asyncio.wait_for(anext(requests), 20)  # one token is being asked for right now
    if how == signal.SIGKILL:
        await faults.nodes.kill("cloud-1")
    else:
        faults.nodes.fleet.signal("cloud-1", how)
    assert await faults.fleet.wait("vehicle-1") == 0
    if how == signal.SIGSTOP:
        faults.nodes.fleet.signal("cloud-1", signal.SIGCONT)
        await faults.nodes.kill("cloud-1")  # it held its breath for too long to be of use to the next test
    tasks = await faults.finish()
    assert tasks["unrecorded"] == tasks["expired"] == 0
    outcomes = [one.outcome for one in faults.recorded()]
    cut_off = [outcome for outcome in outcomes if outcome.context is not None and outcome.context.ended_alone]
    assert cut_off, "an answer was under way"
    for outcome in cut_off:
        assert (outcome.state, outcome.place) == ("result", "edge+cloud")
        assert outcome.latency_ms <= outcome.deadline_ms
        assert outcome.made_by[-1] == "exit2"
    afterwards = outcomes[outcomes.index(cut_off[-1]) + 1 :]
    assert {outcome.place for outcome in afterwards} <= {"edge", "vehicle", "edge+cloud"}
    assert tasks["result"] > 0.8 * tasks["created"], "the edge goes on without the cloud"


def by_both(faults: Any) -> list[Any]:
    return [result for _, result in faults.results if result.final and "full" in result.made_by]
