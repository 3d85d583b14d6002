"""The lines that people follow a fleet by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from roadside.bus.messages import NodeState, Outcome, Result, Truth
from roadside.qos.watch import node_state_line, outcome_line, result_line, verdict


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
