"""The lines that people follow a fleet by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.messages import NodeState, Outcome, Result, Truth
from roadside.bus.transport import Bus
from roadside.qos.watch import node_state_line, outcome_line, result_line, verdict, watch


def test_a_result_in_one_line(an_outcome: Callable[..., Outcome]) -> None:
    line = outcome_line("vehicle-1", an_outcome())
    assert "\n" not in line
    for part in ("vehicle-1", "explain", "cloud-1", "84 ms of 2000", '"the car slows down because the light', "right"):
        assert part in line


def test_a_fallback_tells_its_reason(an_outcome: Callable[..., Outcome]) -> None:
    line = outcome_line("vehicle-1", an_outcome(state="fallback", reason="no answer in time", node="vehicle-1"))
    assert "fallback (no answer in time)" in line


def test_the_explanation_shows_every_candidate(an_outcome: Callable[..., Outcome]) -> None:
    first, why, *candidates = outcome_line("vehicle-1", an_outcome(), explain=True).splitlines()
    assert first == outcome_line("vehicle-1", an_outcome())
    assert "greedy-utility" in why
    assert "highest utility" in why
    assert "vehicle-1" in candidates[0]
    assert "not allowed: below the quality floor" in candidates[0]
    assert candidates[1].strip().startswith("-> cloud-1")
    assert "+0.712" in candidates[1]
    assert len(candidates) == 2


@pytest.mark.parametrize(
    ("action", "reason", "expected"),
    [
        (True, True, "right"),
        (False, False, "wrong"),
        (None, True, "right"),
        (None, False, "wrong"),
        (True, False, "action right, reason wrong"),
        (False, True, "action wrong, reason right"),
        (None, None, ""),
    ],
)
def test_verdicts_in_words(
    action: bool | None, reason: bool | None, expected: str, an_outcome: Callable[..., Outcome]
) -> None:
    assert verdict(an_outcome(truth=Truth("a", "j", action, reason))) == expected


def test_no_ground_truth_no_verdict(an_outcome: Callable[..., Outcome]) -> None:
    assert verdict(an_outcome(truth=None)) == ""


def test_answers_of_nodes(a_result: Callable[..., Result]) -> None:
    assert "edge-1 answers " in result_line("vehicle-1", "edge-1", a_result(), 0.0)
    assert "edge-1 answers for now" in result_line("vehicle-1", "edge-1", a_result(final=False), 0.0)


def test_states_of_nodes(a_state: Callable[..., NodeState]) -> None:
    line = node_state_line(a_state(), 0.0)
    for part in ("edge-1", "edge with small", "1 running on 1, 1 waiting (40 ms)", "400 MB", "late by 2 ms"):
        assert part in line
    assert node_state_line(a_state(alive=False), 0.0).endswith("edge-1  has left")


async def test_watching_a_fleet(
    best_broker: Broker,
    fleet: str,
    an_outcome: Callable[..., Outcome],
    a_state: Callable[..., NodeState],
    a_result: Callable[..., Result],
) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()
    async with asyncio.timeout(30), Bus(url=best_broker.url, fleet=fleet, name="edge-1") as edge:
        # Retained: it greets the watcher once the subscription stands.
        await edge.publish(topics.VEHICLE_STATE, a_state(node="edge-1"), vehicle="edge-1")
        watching = asyncio.create_task(watch(best_broker.url, fleet, explain=False, show=lines.put_nowait, stop=stop))
        assert "edge-1" in await lines.get()
        await edge.publish(topics.VEHICLE_STATE, a_state(node="edge-1", uptime_s=9.0), vehicle="edge-1")
        await edge.publish(topics.RESULT, a_result(), vehicle="vehicle-1")
        await edge.publish(topics.RESULT, a_result(final=False), vehicle="vehicle-1")
        assert "answers for now" in await lines.get()
        await edge.publish(topics.OUTCOME, an_outcome(), vehicle="edge-1")
        assert "84 ms of 2000" in await lines.get()
        await edge.publish(topics.VEHICLE_STATE, a_state(node="edge-1", alive=False), vehicle="edge-1")
        assert "has left" in await lines.get()
        stop.set()
        await watching
    assert lines.empty()
