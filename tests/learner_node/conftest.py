"""Outcomes as a fleet would tell them: a vehicle, an edge that promises most, and a cloud."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from roadside.bus.messages import Candidate, Decision, Outcome, Timing
from roadside.bus.places import PLACES, Place
from roadside.policy.features import FEATURES

from .. import plain_messages

NODES: tuple[tuple[str, Place], ...] = (("vehicle-1", "vehicle"), ("edge-1", "edge"), ("cloud-1", "cloud"))
_PROMISED = (0.2, 0.6, 0.4)
_DEADLINE_MS = 2000.0


def _features(row: int, rng: np.random.Generator) -> tuple[float, ...]:
    values = dict(zip(FEATURES, rng.uniform(0, 1, len(FEATURES)).tolist(), strict=True))
    values |= {f"is_{place}": float(place == NODES[row][1]) for place in PLACES}
    return tuple((values | {"utility": _PROMISED[row], "service_per_deadline": 0.05}).values())


@pytest.fixture(scope="session")
def outcome_of() -> Callable[..., Outcome]:
    """`outcome_of(7, chosen=2, right=True)`: task 7 went to the cloud, which was right, or late where it was not.

    A right answer comes to a utility of about 0.9, and none to about -0.25.
    """

    def make(number: int, *, chosen: int, right: bool, weights: str = "", **changes: object) -> Outcome:
        rng = np.random.default_rng(number)
        node, place = NODES[chosen]
        plain = msgspec.structs.replace(
            plain_messages.OUTCOME,
            task_id=f"task-{number:05d}",
            state="result" if right else "fallback",
            text="",
            created_at_s=1e9,
            deadline_ms=_DEADLINE_MS,
            requested=place,
            place=place if right else "vehicle",
            node=node if right else "vehicle-1",
            mode="",
            latency_ms=400.0 if right else _DEADLINE_MS - 25,
            first_answer_ms=400.0,
            network_ms=20.0,
            timing=Timing(inference_ms=100.0),
            clip="",
            moment_s=0.0,
            decision=Decision(
                policy="ddpg",
                chosen=chosen,
                propensity=1 / 3,
                reason="",
                candidates=tuple(
                    Candidate(name, where, 0.0, 100.0, 1.0, 0.95, "", _features(row, rng))
                    for row, (name, where) in enumerate(NODES)
                ),
                weights=weights,
            ),
        )
        return msgspec.structs.replace(plain, **changes)

    return make
