"""Moments whose reason the newest frame hides and the one before it shows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from roadside.datasets.moments import AGE_S
from roadside.datasets.samples import Sample, make_sample

SHOWN_BY = {
    "red-light": {"red-light", "yellow-light"},
    "green-light": {"green-light"},
    "stop-sign": {"stop-sign"},
    "pedestrian": {"pedestrian"},
    "cyclist": {"crossing-cyclist"},
    "cyclist-ahead": {"riding-cyclist"},
    "lead-brakes": {"lead"},
    "parked": {"parked"},
    "oncoming": {"oncoming"},
    "turn-lane": {"left-arrow", "right-arrow"},
}


@pytest.fixture(scope="module")
def hidden() -> list[Sample]:
    return [make_sample(seed, "obscured", 2) for seed in range(80)]


def names_in(boxes) -> set[str]:
    return {name for box in boxes for name in box.names}


def test_the_earlier_frame_shows_what_the_newest_hides(hidden):
    judged = Counter[str]()
    for sample in hidden:
        wanted = SHOWN_BY.get(sample.facts.justification)
        if wanted is None:
            continue
        earlier, newest = sample.frames
        assert names_in(earlier.boxes) & wanted, sample.seed
        assert not names_in(newest.boxes) & wanted, sample.seed
        judged[sample.facts.justification] += 1
    assert len(judged) > 6
    assert sum(judged.values()) > 25


def test_the_two_frames_show_different_pictures(hidden):
    for sample in hidden:
        earlier, newest = (np.asarray(frame.image, float) for frame in sample.frames)
        assert np.abs(earlier - newest).mean() > 1.0


def test_a_second_frame_changes_nothing_else():
    for draw in ("pairs", "time", "obscured"):
        for seed in range(3):
            one, two = make_sample(seed, draw), make_sample(seed, draw, 2)
            assert one.earlier is None
            assert two.earlier is not None
            assert one.image.tobytes() == two.image.tobytes()
            assert (one.telemetry, one.facts, one.labels) == (two.telemetry, two.facts, two.labels)


def test_most_pairs_occur_although_the_reason_is_hidden(hidden):
    assert len({(sample.facts.action, sample.facts.justification) for sample in hidden}) > 25


def test_the_older_frame_is_about_a_second_old():
    low_s, high_s = AGE_S
    assert 0.5 <= low_s < 1.0 < high_s <= 1.6
