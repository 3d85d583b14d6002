"""What a view hears: messages as the bus hands them on, sensible in whatever a test does not care about."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from roadside.bus.messages import (
    SCHEMA_VERSION,
    Accepted,
    Candidate,
    Decision,
    Envelope,
    Frame,
    Message,
    NodeState,
    Timing,
    Truth,
)
from roadside.bus.subscription import Received
from roadside.bus.topics import Topic
from roadside.policy.features import FEATURES

from .. import plain_messages

PLAIN_STATE = NodeState(
    node="edge-1", role="edge", alive=True, places=("edge",), model="small", load=plain_messages.IDLE
)
PLAIN_ACK = Accepted(task_id="t-1", attempt=1, load=plain_messages.IDLE)
PLAIN_RESULT = msgspec.structs.replace(
    plain_messages.RESULT,
    mode="early-exit",
    model="small",
    made_by=("exit1", "exit1", "full", "full", "exit2"),
    timing=Timing(queue_ms=5.0, inference_ms=25.0),
    energy_j=0.4,
)
PLAIN_OUTCOME = msgspec.structs.replace(
    plain_messages.OUTCOME,
    mode="early-exit",
    latency_ms=80.0,
    first_answer_ms=40.0,
    timing=Timing(queue_ms=10.0, inference_ms=30.0),
    energy_j=1.5,
    decision=Decision(
        policy="greedy-utility",
        chosen=1,
        propensity=1.0,
        reason="highest utility",
        candidates=(
            Candidate("vehicle-1", "vehicle", -0.1, 1.0, 0.0, 0.0, "below the quality floor", (0.5,) * len(FEATURES)),
            Candidate("edge-1", "edge", 0.712, 90.0, 1.5, 0.9, "", (0.25,) * len(FEATURES)),
        ),
    ),
    made_by=("exit1", "exit1", "full", "full", "exit2"),
    truth=Truth("the car stops", "because the light is red .", True, False),
)
PLAIN_FRAME = Frame(clip="clip-1", moment_s=3.0, jpeg=b"\xff\xd8\xff\xe0", telemetry={"Vehicle.Speed": 42.0})


@pytest.fixture(scope="session")
def received() -> Callable[..., Received]:
    """As the bus hands a message on: received(topics.ACK, body, vehicle=..., node=...)."""
    counted = itertools.count(1)

    def build(
        topic: Topic, body: Message, *, boot_id: str = "boot-1", sequence: int | None = None, **names: str
    ) -> Received:
        number = next(counted) if sequence is None else sequence
        envelope = Envelope(SCHEMA_VERSION, names[topic.sender], boot_id, number, 0.0, body)
        return Received(topic, {"fleet": "test", **names}, envelope)

    return build


def _changed(plain: Message) -> Callable[..., Message]:
    return lambda **changes: msgspec.structs.replace(plain, **changes)


@pytest.fixture(scope="session")
def an_outcome() -> Callable[..., Message]:
    return _changed(PLAIN_OUTCOME)


@pytest.fixture(scope="session")
def a_result() -> Callable[..., Message]:
    return _changed(PLAIN_RESULT)


@pytest.fixture(scope="session")
def an_ack() -> Callable[..., Message]:
    return _changed(PLAIN_ACK)


@pytest.fixture(scope="session")
def a_state() -> Callable[..., Message]:
    return _changed(PLAIN_STATE)


@pytest.fixture(scope="session")
def a_frame() -> Callable[..., Message]:
    return _changed(PLAIN_FRAME)
