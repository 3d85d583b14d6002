"""The words: every sentence is in the vocabulary and leads back to the classes it was made from."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.kinds import DESCRIBE, EXPLAIN, HAZARD, KINDS
from roadside.datasets import phrases
from roadside.datasets.phrases import (
    COMBINATIONS,
    ExtraFact,
    Parsed,
    SceneFacts,
    parse,
    sentence,
    telemetry_text,
    words,
)
from roadside.datasets.signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S


@st.composite
def scene_facts(draw: st.DrawFn) -> SceneFacts:
    action, justification = draw(st.sampled_from(COMBINATIONS))
    slots = "".join(phrases.JUSTIFICATIONS[justification])
    vehicle = draw(st.sampled_from(phrases.VEHICLES))
    side = draw(st.sampled_from(phrases.SIDES))
    extra = ExtraFact(
        draw(st.sampled_from(list(phrases.EXTRA_FACTS))),
        draw(st.sampled_from(phrases.VEHICLES)),
        draw(st.sampled_from(phrases.SIDES)),
    )
    return SceneFacts(
        action,
        justification,
        vehicle if "{vehicle}" in slots else None,
        side if "{side}" in slots else None,
        draw(st.sampled_from(phrases.CONDITIONS)),
        extra,
    )


@given(scene_facts(), st.sampled_from(list(KINDS.values())), st.integers(0, 2**32))
def test_every_sentence_leads_back_to_its_classes_and_stays_in_the_vocabulary(facts, kind, seed):
    text = sentence(kind, facts, random.Random(seed))
    action = facts.action if "action" in kind.asks_for else None
    assert parse(text) == Parsed(action, facts.justification, facts.vehicle, facts.side)
    assert set(text.split()) <= set(words())
    assert text == text.lower()
    assert text.endswith(" .")


@given(
    st.dictionaries(
        st.sampled_from([SPEED_KMH, ACCELERATION_MPS2, YAW_RATE_DEG_S]),
        st.floats(-1e9, 1e9),
    )
)
def test_every_telemetry_line_stays_in_the_vocabulary(telemetry):
    line = telemetry_text(telemetry)
    assert set(line.split()) <= set(words())
    assert line.count("?") == 3 - len(telemetry)


def test_telemetry_line_in_the_models_units():
    telemetry = {SPEED_KMH: 43.2, ACCELERATION_MPS2: -1.1, YAW_RATE_DEG_S: 3.4}
    assert telemetry_text(telemetry) == "speed 12 accel -1.0 course 3"
    assert telemetry_text({}) == "speed ? accel ? course ?"
    assert telemetry_text({SPEED_KMH: 900.0, ACCELERATION_MPS2: -40.0}) == "speed 40 accel -6.0 course ?"


def test_the_three_kinds_say_what_they_ask_for():
    facts = SceneFacts("slows", "red-light", None, None, "night", ExtraFact("ahead", "truck"))
    rng = random.Random(3)
    told = {kind.name: sentence(kind, facts, rng) for kind in (HAZARD, EXPLAIN, DESCRIBE)}
    assert "the car" not in told["hazard"]
    assert told["explain"].startswith("the car ")
    assert told["describe"].startswith("it is night . the car ")
    assert told["describe"].endswith(" . a truck is ahead .")


def test_one_phrasing_dominates():
    facts = SceneFacts("stopped", "red-light", None, None, "day", ExtraFact("none"))
    rng = random.Random(5)
    said = [sentence(HAZARD, facts, rng) for _ in range(2000)]
    dominant = said.count("the light ahead is red .") / len(said)
    assert dominant == pytest.approx(phrases.DOMINANT_SHARE, abs=0.03)
    assert set(said) == {f"{phrase} ." for phrase in phrases.JUSTIFICATIONS["red-light"]}


def test_every_class_occurs_in_a_combination():
    assert {action for action, _ in COMBINATIONS} == set(phrases.ACTIONS)
    assert {justification for _, justification in COMBINATIONS} == set(phrases.JUSTIFICATIONS)


def test_prompts_are_in_the_vocabulary():
    for kind in KINDS.values():
        assert set(kind.prompt.split()) <= set(words())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The car is stopped", "stopped"),
        ("The car isn't moving.", "stopped"),
        ("The car slows to a stop", "slows"),
        ("The car moves forward then comes to a stop", "slows"),
        ("The car is accelerating", "accelerates"),
        ("The car is driving down the street", "keeps"),
        ("The car maintains speed", "keeps"),
        ("The car makes a left turn", "turns-left"),
        ("The car is turning right onto a side street", "turns-right"),
        ("The car follows the left bend", "steers-left"),
        ("The car merges into the left lane", "changes-left"),
        ("The car changes lanes to the right", "changes-right"),
        ("", None),
    ],
)
def test_actions_in_free_words(text, expected):
    assert phrases.parse_action(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("because the light has turned green.", ("green-light", None, None)),
        ("as the light is red", ("red-light", None, None)),
        ("because there's a stop sign", ("stop-sign", None, None)),
        ("because no traffic is blocking the way and the car can safely move forward.", ("clear-road", None, None)),
        ("since the car in front has stopped.", ("lead-brakes", "car", None)),
        ("because the trucks ahead start moving", ("lead-moves", "truck", None)),
        ("because traffic is moving at a steady speed.", ("following", None, None)),
        ("to let people cross from the left", ("pedestrian", None, "left")),
        ("because the road bends sharply to the right", ("curve", None, "right")),
        ("because a cyclist is crossing from the right", ("cyclist", None, "right")),
        ("to pass a bicycle", ("cyclist-ahead", None, None)),
        ("because a van cuts in from the left lane", ("cut-in", "van", "left")),
        ("because its lane is ending", ("lane-ends", None, None)),
        ("due to construction in the right lane", ("construction", None, None)),
        ("because the road is closed", ("road-closed", None, None)),
        ("since there is a traffic jam", ("jam", None, None)),
        ("to go around a double parked truck", ("parked", "truck", None)),
        ("because the bus in front is slow", ("slow-vehicle", "bus", None)),
        ("since it is in a turning lane", ("turn-lane", None, None)),
        ("because of the weather.", (None, None, None)),
        ("for an unknown reason.", (None, None, None)),
    ],
)
def test_justifications_in_free_words(text, expected):
    assert phrases.parse_justification(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The car is stopped because the light is red.", Parsed("stopped", "red-light", None, None)),
        ("The vehicle slows down. There is a stop sign.", Parsed("slows", "stop-sign", None, None)),
        ("A person is crossing the road.", Parsed(None, "pedestrian", None, None)),
        ("The car in front is braking.", Parsed(None, "lead-brakes", "car", None)),
        ("I like turtles.", Parsed(None, None, None, None)),
    ],
)
def test_whole_answers_in_free_words(text, expected):
    assert parse(text) == expected
