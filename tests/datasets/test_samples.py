"""Training samples: deterministic, balanced, consistent, and apart from each other's sets."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from roadside.bus.kinds import EXPLAIN
from roadside.datasets import samples
from roadside.datasets.making import LOG_SEED_BITS
from roadside.datasets.phrases import ACTIONS, COMBINATIONS, JUSTIFICATIONS, SIDES, VEHICLES, parse
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
        assert (None, *VEHICLES)[labels.vehicle] == facts.vehicle
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
