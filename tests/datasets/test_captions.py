"""Captions in two parts, the row of scores, and that a run's verdicts and evaluation's are the same."""

from __future__ import annotations

import random

import pytest
from roadside.bus.kinds import EXPLAIN
from roadside.datasets.bddx import Segment
from roadside.datasets.caption_table import PARTS, columns_of, score_row
from roadside.datasets.captions import Caption, split_explanation
from roadside.datasets.evaluation_scenes import rendered_scenes, rendered_training_references
from roadside.datasets.samples import make_sample
from roadside.datasets.scoring import judge

RED = Segment(0.0, 5.0, "The car is stopped.", "because the light is red.")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "the car slows down because the light ahead is red .",
            ("the car slows down", "because the light ahead is red ."),
        ),
        ("The car stops at the light since it's red.", ("The car stops at the light", "since it's red.")),
        ("It is day. The car waits due to traffic. A bus is ahead.", ("The car waits", "due to traffic.")),
        ("The car stops. The light is red.", ("The car stops.", "The light is red.")),
        ("the car stops .", ("the car stops .", "")),
        ("", ("", "")),
    ],
)
def test_explanations_come_apart(text, parts):
    assert split_explanation(text) == parts


@pytest.mark.parametrize(
    "answer",
    [
        "the car waits because the signal has turned red .",
        "the car slows down because the light ahead is red .",
        "the car is stopped because there is a stop sign .",
        "The vehicle stands still since the traffic signal shows red",
        "the car is stopped .",
        "",
    ],
)
def test_a_run_judges_the_same_answer_alike(answer):
    row = score_row("one", [Caption.of_answer(answer)], [Caption.of_segment(RED)])
    judgement = judge(EXPLAIN, answer, RED)
    assert row["action_accuracy"] == judgement.action_correct
    assert row["justification_accuracy"] == judgement.justification_correct


def test_the_words_of_rendered_scenes_name_their_facts():
    rng = random.Random(1)
    for scene in rendered_scenes(8):
        sample = make_sample(int(scene.reference.id.split()[-1]))
        true, again = scene.reference.caption, Caption.of_answer(sample.answer(EXPLAIN, rng))
        for caption in (true, again):
            assert (caption.classes.action, caption.classes.justification) == (
                sample.facts.action,
                sample.facts.justification,
            )
        assert scene.reference.telemetry == sample.telemetry
        assert judge(EXPLAIN, sample.answer(EXPLAIN, rng), scene.reference.segment).justification_correct


def test_training_words_are_of_other_scenes():
    test_ids = {scene.reference.id for scene in rendered_scenes(2)}
    assert not test_ids & {reference.id for reference in rendered_training_references(2)}


def test_a_row_by_hand():
    true = [
        Caption.of_parts("The car is stopped", "because the light is red"),
        Caption.of_parts("The car is stopped", "because the truck ahead is braking"),
        Caption.of_parts("The car slows down", "because a pedestrian is crossing"),
        Caption.of_parts("The car does a thing", "for reasons"),
    ]
    said = [
        Caption.of_parts("The car waits", "because the light is red"),
        Caption.of_parts("The car slows down", "because the bus ahead is braking"),
        Caption.of_parts("The car slows down", ""),
        Caption.of_parts("The car slows down", "because the light is red"),
    ]
    row = score_row("x", said, true, cloud_token_share=1 / 3)
    assert (row["name"], row["n"], row["cloud_token_share"]) == ("x", 4, 0.3333)
    assert row["action_accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["justification_accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert (row["action_judged"], row["justification_judged"]) == (0.75, 0.75)
    assert (row["details_accuracy"], row["vehicle_accuracy"]) == (0.0, 0.0)
    assert row["action_by_class"] == {
        "slows": {"n": 1, "accuracy": 1.0},
        "stopped": {"n": 2, "accuracy": 0.5},
    }
    assert set(row["justification_by_class"]) == {"lead-brakes", "pedestrian", "red-light"}
    for part in PARTS:
        assert set(columns_of(part)) - {f"meteor_{part}"} <= row.keys()


def test_references_without_any_class_are_not_judged():
    nothing = [Caption.of_parts("hm", "hm")]
    row = score_row("x", nothing, nothing)
    assert row["action_accuracy"] is None
    assert row["action_judged"] == 0.0
    assert "details_accuracy" not in row
    assert row["rouge_l_action"] == 100.0
