"""When a vehicle asks what."""

import itertools
from collections import Counter

import pytest
from roadside.bus.kinds import KINDS
from roadside.vehicle_node.schedule import arrivals


def times(seed: int = 0, vehicle: str = "vehicle-1", rate_hz: float = 2.0, duration_s: float = 500.0):
    return list(arrivals(seed=seed, vehicle=vehicle, rate_hz=rate_hz, duration_s=duration_s))


def test_a_seed_repeats_the_schedule_and_vehicles_differ():
    assert times() == times()
    assert times() != times(seed=1)
    assert times() != times(vehicle="vehicle-2")


def test_rate_duration_and_shares_are_kept():
    schedule = times()
    assert len(schedule) == pytest.approx(1000, rel=0.1)
    assert all(0 < before.at_s < after.at_s < 500 for before, after in itertools.pairwise(schedule))
    kinds = Counter(arrival.kind.name for arrival in schedule)
    for name, kind in KINDS.items():
        assert kinds[name] / len(schedule) == pytest.approx(kind.share, abs=0.06)
