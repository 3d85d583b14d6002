"""Three seeds of `roadside bench faults`: a killed broker, a black hole between edge and cloud, a killed vehicle.

`make faults-ci` goes through all the faults, `make faults` through a thousand seeds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from roadside.benchmarks.faults import FaultOptions, measure_faults, violations_in
from roadside.benchmarks.faults_matrix import FAULTS, fault_of
from roadside.bus.broker import find_mosquitto
from roadside.bus.errors import ConfigurationError
from roadside.qos.history import read_history

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: nothing to break")

THREE = ("broker-killed", "edge-cloud-black-hole", "vehicle-killed")


@contextlib.contextmanager
def without_a_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def first_seed_of(*faults: str) -> int:
    every = tuple(FAULTS)
    return next(seed for seed in range(10_000) if tuple(fault_of(seed + i, every) for i in range(3)) == faults)


@needs_mosquitto
@pytest.mark.timeout(400)
def test_three_seeds_keep_the_contract(tmp_path: Path):
    said: list[str] = []
    options = FaultOptions(seeds=3, first_seed=first_seed_of(*THREE), keep=tmp_path / "run")
    result = measure_faults(options, without_a_bar, said.append)
    rows: dict[str, dict[str, Any]] = {row["fault"]: row for row in result["rows"]}
    if result["settings"]["left_out"]:
        pytest.skip("no small file system here, so seeds draw other faults: run as somebody who may mount a tmpfs")
    assert tuple(rows) == THREE
    assert violations_in(result) == 0, "\n".join(said)
    assert all(row["created"] > 0 for row in rows.values())
    assert rows["broker-killed"]["recovery_ms"] is not None
    assert rows["vehicle-killed"]["recovery_ms"] is not None
    events, torn = read_history(tmp_path / "run" / "history")
    assert torn == 0
    assert {event.process for event in events} >= {"vehicle-1", "vehicle-2", "edge-1", "edge-2", "cloud-1", "harness"}
    lives = [event for event in events if event.name == "process.began" and event.process.startswith("vehicle")]
    assert len(lives) == 3, "one of the vehicles has had two"
    assert any(event.name == "token.said" for event in events), "edge and cloud had answered together"


def test_every_stretch_of_seeds_goes_through_all_faults():
    every = tuple(FAULTS)
    for begin in (0, len(every), 7 * len(every)):
        assert {fault_of(begin + index, every) for index in range(len(every))} == set(every)
    assert [fault_of(seed, every) for seed in range(50)] == [fault_of(seed, every) for seed in range(50)]
    rounds = [[fault_of(number * len(every) + index, every) for index in range(len(every))] for number in range(3)]
    assert rounds[0] != rounds[1] != rounds[2]


def test_a_fault_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigurationError, match="broker-killed"):
        measure_faults(FaultOptions(seeds=1, fault="earthquake"), without_a_bar)
