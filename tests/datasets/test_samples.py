"""Training samples: deterministic, balanced, consistent, and apart from each other's sets."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter

import pytest
from roadside.bus.kinds import EXPLAIN
from roadside.datasets import samples
from roadside.datasets.boxes import ObjectBox
from roadside.datasets.drives import make_drive
from roadside.datasets.making import LOG_SEED_BITS
from roadside.datasets.phrases import ACTIONS, COMBINATIONS, JUSTIFICATIONS, SIDES, TOLD_VEHICLES, parse
from roadside.datasets.samples import TRAINING_FIRST_SEED, make_sample, make_samples


def test_a_seed_makes_one_sample():
    one, same, other = make_sample(5), make_sample(5), make_sample(6)
    assert one.image.size == (320, 192)
    assert one.image.tobytes() == same.image.tobytes() != other.image.tobytes()
    assert (one.telemetry, one.facts, one.labels) == (same.telemetry, same.facts, same.labels)


def test_worker_processes_make_the_same_samples_in_order():
    alone = list(make_samples(100, 40))
    shared = list(make_samples(100, 40, processes=2))
    assert [sample.seed for sample in shared] == list(range(100, 140))
    assert [sample.facts for sample in shared] == [sample.facts for sample in alone]
    assert [sample.image.tobytes() for sample in shared] == [sample.image.tobytes() for sample in alone]


def test_labels_answers_and_classes_agree_and_classes_are_balanced():
    counts: Counter[tuple[str, str]] = Counter()
    rng = random.Random(1)
    for sample in make_samples(TRAINING_FIRST_SEED, 480):
        facts, labels = sample.facts, sample.labels
        counts[facts.action, facts.justification] += 1
        assert COMBINATIONS[labels.combination] == (facts.action, facts.justification)
        assert list(ACTIONS)[labels.action] == facts.action
        assert list(JUSTIFICATIONS)[labels.justification] == facts.justification
        assert (None, *TOLD_VEHICLES)[labels.vehicle] == facts.vehicle
        assert (None, *SIDES)[labels.side] == facts.side
        said = parse(sample.answer(EXPLAIN, rng))
        assert (said.action, said.justification) == (facts.action, facts.justification)
        assert "Vehicle.Speed" in sample.telemetry
    assert len(counts) == len(COMBINATIONS)
    assert max(counts.values()) < 3 * 480 / len(COMBINATIONS)


def test_the_sets_are_held_apart():
    bounds = sorted([samples.VALIDATION_FIRST_SEED, samples.TEST_FIRST_SEED, samples.TRAINING_FIRST_SEED])
    assert bounds[0] >= 2**LOG_SEED_BITS
    assert all(later - earlier >= 1_000_000 for earlier, later in itertools.pairwise(bounds))


def test_a_vehicles_kind_is_told_where_the_picture_shows_it():
    told = Counter[str]()
    for sample in make_samples(TRAINING_FIRST_SEED, 480):
        kind = sample.facts.vehicle
        if kind is None:
            continue
        told[kind] += 1
        heights = [box.height_px for box in sample.labels.boxes if kind in box.names]
        assert kind == "vehicle" or max(heights) >= 20
    assert set(told) == set(TOLD_VEHICLES)
    assert told["vehicle"] < told.total() / 3


@pytest.mark.parametrize(
    ("height_px", "conditions", "told"),
    [(19, "day", "vehicle"), (21, "day", "truck"), (21, "foggy", "vehicle"), (27, "foggy", "truck")],
)
def test_fog_hides_a_kind_from_nearer_by(height_px, conditions, told):
    drive = dataclasses.replace(make_drive(5), conditions=conditions)
    stretch = next(s for seed in range(200) for s in make_drive(seed).stretches if s.justification == "oncoming")
    stretch = dataclasses.replace(stretch, vehicle="truck")
    facts = samples.facts_of(drive, stretch, (ObjectBox(("oncoming", "truck"), 0, 0, 9, height_px),))
    assert facts.vehicle == told
    assert samples.facts_of(drive, stretch, ()).vehicle == "vehicle"
