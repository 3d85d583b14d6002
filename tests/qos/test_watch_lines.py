"""The lines that people follow a fleet by."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from roadside.bus.messages import NodeState, Outcome, PolicyWeights, Result, Truth
from roadside.qos.watch import node_state_line, outcome_line, result_line, verdict, weights_line


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
    assert candidates[0].strip().startswith("-> cloud-1")
    assert "+0.712" in candidates[0]
    assert "vehicle-1" in candidates[1]
    assert "not allowed: below the quality floor" in candidates[1]
    assert len(candidates) == 2


def test_the_explanation_of_many_shows_the_best_the_chosen_and_the_knobs(
    an_outcome: Callable[..., Outcome],
) -> None:
    decision = an_outcome().decision
    assert decision is not None
    first = decision.candidates[1]
    many = tuple(msgspec.structs.replace(first, node=f"edge-{number}", score=number / 10) for number in range(20))
    changed = msgspec.structs.replace(
        decision, candidates=many, chosen=3, weights="learner-1 v7", exit_threshold=0.7, frame_scale=0.5
    )
    _, why, *rest = outcome_line("vehicle-1", an_outcome(decision=changed), explain=True).splitlines()
    assert "greedy-utility (learner-1 v7) chose" in why
    assert [line.removeprefix(" " * 10)[3:].split()[0] for line in rest[:7]] == [
        *(f"edge-{number}" for number in range(19, 13, -1)),
        "edge-3",
    ]
    assert rest[6].strip().startswith("-> edge-3")
    assert rest[7].strip() == "and 13 more"
    assert "confidence of 0.70" in rest[8]
    assert "50% of its sides" in rest[8]


def test_new_weights_in_one_line() -> None:
    weights = PolicyWeights("ddpg", 3, "abc", b"1234", 812, "promoted: surely better")
    line = weights_line("learner-1", weights, 0.0)
    assert "learner-1 publishes ddpg v3, learnt from 812 tasks  promoted: surely better" in line


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
