"""Answers are scored by class against the log's own words."""

from __future__ import annotations

import random

import pytest
from roadside.bus.kinds import DESCRIBE, EXPLAIN, HAZARD, KINDS
from roadside.datasets.bddx import Segment
from roadside.datasets.making import plan_log, segments_of
from roadside.datasets.phrases import ExtraFact, SceneFacts, sentence
from roadside.datasets.scoring import Judgement, judge

RED = Segment(0.0, 5.0, "The car is stopped.", "because the light is red.")


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        (EXPLAIN, "the car waits because the signal has turned red .", Judgement(True, True)),
        (EXPLAIN, "the car slows down because the light ahead is red .", Judgement(False, True)),
        (EXPLAIN, "the car is stopped because there is a stop sign .", Judgement(True, False)),
        (EXPLAIN, "the car is stopped .", Judgement(True, False)),
        (EXPLAIN, "", Judgement(False, False)),
        (HAZARD, "the light ahead is red .", Judgement(None, True)),
        (HAZARD, "the car is stopped .", Judgement(None, False)),
        (
            DESCRIBE,
            "it is day . the car is stopped as the light ahead is red . a bus is ahead .",
            Judgement(True, True),
        ),
        (EXPLAIN, "The vehicle stands still since the traffic signal shows red", Judgement(True, True)),
    ],
)
def test_verdicts(kind, answer, expected):
    assert judge(kind, answer, RED) == expected


def test_words_without_a_class_are_not_judged():
    unknown = Segment(0.0, 5.0, "The car honks", "because of the weather.")
    assert judge(EXPLAIN, "the car is stopped because the light ahead is red .", unknown) == Judgement(None, None)


def test_the_right_answer_to_every_rendered_moment_is_judged_right():
    rng = random.Random(2)
    for _, drive in plan_log(5, 6):
        for segment in segments_of(drive):
            stretch = drive.stretch_at(segment.start_s)
            facts = SceneFacts(
                stretch.action, stretch.justification, stretch.vehicle, stretch.side, "day", ExtraFact("none")
            )
            for kind in KINDS.values():
                verdict = judge(kind, sentence(kind, facts, rng), segment)
                assert verdict.justification_correct is True
                assert verdict.action_correct is (True if "action" in kind.asks_for else None)
