"""When an attempt is sent again and when it is left, without clock or network."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from roadside.vehicle_node.attempts import MAX_RESENDS, Attempt, Elsewhere, Placement, Step

SOMEBODY = Elsewhere(expected_ms=1000.0, until_s=math.inf)


def attempt(*, expected_ms: float = 60.0, round_trip_ms: float = 10.0, jitter: float = 0.0) -> Attempt:
    return Attempt(1, Placement("edge-1", "edge", expected_ms, round_trip_ms), begun_s=0.0, random=lambda: jitter)


def run(subject: Attempt, elsewhere: Elsewhere | None, *, until_s: float = 1000.0) -> list[tuple[float, Step]]:
    """Step it whenever it is due and return what it wanted done, and when."""
    done: list[tuple[float, Step]] = []
    while subject.due_s <= until_s:
        now_s = subject.due_s
        step = subject.step(now_s, elsewhere)
        if step is not Step.WAIT:
            done.append((now_s, step))
    return done


def test_it_is_sent_again_with_growing_pauses():
    times = [now_s for now_s, step in run(attempt(), None) if step is Step.SEND]
    assert times == pytest.approx([0.0, 0.15, 0.45, 1.05])
    assert len(times) == 1 + MAX_RESENDS


def test_a_long_road_takes_longer_pauses():
    subject = attempt(round_trip_ms=400.0)
    assert subject.step(0.0, None) is Step.SEND
    assert subject.due_s == pytest.approx(1.2)


def test_jitter_only_prolongs_a_pause():
    subject = attempt(jitter=0.999)
    subject.step(0.0, None)
    assert 0.15 < subject.due_s <= 0.225


def test_an_ack_stops_the_resending():
    subject = attempt()
    subject.step(0.0, SOMEBODY)
    subject.acknowledged(0.02, wait_ms=0.0)
    assert subject.step(0.2, SOMEBODY) is Step.WAIT
    assert subject.due_s > 0.02 + 2 * 0.06


def test_a_long_queue_is_waited_for():
    subject = attempt()
    subject.step(0.0, SOMEBODY)
    subject.acknowledged(0.0, wait_ms=1000.0)
    assert subject.due_s > 2.0


@pytest.mark.parametrize(("elsewhere_ms", "sendings"), [(200.0, 2), (400.0, 3), (2000.0, 1 + MAX_RESENDS)])
def test_the_better_the_others_are_the_sooner_a_silent_node_is_left(elsewhere_ms, sendings):
    *sent, (_, last) = run(attempt(expected_ms=60.0), Elsewhere(elsewhere_ms, math.inf))
    assert len(sent) == sendings
    assert last is Step.LEAVE


def test_an_overdue_answer_is_left_for_somebody_else():
    subject = attempt()
    subject.step(0.0, SOMEBODY)
    subject.acknowledged(0.0, wait_ms=0.0)
    assert run(subject, SOMEBODY)[0][1] is Step.LEAVE


def test_an_overdue_answer_is_asked_for_again_where_there_is_nobody_else():
    subject = attempt()
    subject.step(0.0, None)
    subject.acknowledged(0.0, wait_ms=0.0)
    steps = [step for _, step in run(subject, None)]
    assert steps == [Step.SEND] * MAX_RESENDS


def test_a_new_connection_begins_anew():
    subject = attempt()
    run(subject, None)
    assert subject.due_s == math.inf
    subject.acknowledged(50.0, wait_ms=0.0)
    subject.connection_made_anew(60.0)
    assert subject.step(60.0, SOMEBODY) is Step.SEND
    assert (subject.sent_s, subject.last_sent_s) == (0.0, 60.0)


@given(
    until_s=st.floats(0.3, 20.0),
    expected_ms=st.floats(0.0, 5000.0),
    round_trip_ms=st.floats(0.0, 60.0),
    jitter=st.floats(0, 0.999),
)
def test_a_silent_node_is_left_while_another_can_still_answer(until_s, expected_ms, round_trip_ms, jitter):
    *sent, (left_s, last) = run(attempt(round_trip_ms=round_trip_ms, jitter=jitter), Elsewhere(expected_ms, until_s))
    assert last is Step.LEAVE
    assert left_s <= until_s
    assert 1 <= len(sent) <= 1 + MAX_RESENDS


class AttemptMachine(RuleBasedStateMachine):
    """Whatever is heard and whenever it is looked at, an attempt repeats itself rarely and is left only for someone."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.attempt = attempt()
        self.sendings_in_a_row = 0
        self.last_sending_s = -math.inf
        self.trusted_until_s = -math.inf
        self.left = False

    @rule(passed_s=st.floats(0.0, 2.0))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s

    @rule()
    def it_is_due(self) -> None:
        if self.attempt.due_s < math.inf:
            self.now_s = max(self.now_s, self.attempt.due_s)

    @rule(left_s=st.none() | st.floats(-1.0, 5.0), expected_ms=st.floats(0.0, 5000.0))
    def step(self, left_s: float | None, expected_ms: float) -> None:
        if self.left:
            return
        elsewhere = None if left_s is None else Elsewhere(expected_ms, self.now_s + left_s)
        due = self.now_s >= self.attempt.due_s
        step = self.attempt.step(self.now_s, elsewhere)
        if step is Step.SEND:
            assert due
            assert self.now_s >= self.last_sending_s + 0.15
            assert self.now_s >= self.trusted_until_s
            self.sendings_in_a_row += 1
            self.last_sending_s = self.now_s
            assert self.sendings_in_a_row <= 1 + MAX_RESENDS
        elif step is Step.LEAVE:
            assert due
            assert elsewhere is not None
            assert self.now_s <= elsewhere.until_s
            assert self.attempt.sent_s is not None
            self.left = True

    @rule(wait_ms=st.floats(0.0, 500.0))
    def ack(self, wait_ms: float) -> None:
        if self.attempt.sent_s is not None and not self.left:
            if not self.attempt.accepted:
                self.trusted_until_s = self.now_s + max(60.0, wait_ms) / 1000
            self.attempt.acknowledged(self.now_s, wait_ms)

    @rule()
    def new_connection(self) -> None:
        if not self.left:
            self.attempt.connection_made_anew(self.now_s)
            self.sendings_in_a_row = 0
            self.last_sending_s = self.trusted_until_s = -math.inf

    @invariant()
    def sending_is_remembered(self) -> None:
        assert (self.attempt.sent_s is None) == (self.attempt.last_sent_s is None)
        if self.left:
            assert self.attempt.due_s == math.inf


AttemptMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_an_attempt_against_its_rules = AttemptMachine.TestCase
