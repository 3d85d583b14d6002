"""A message that was here before is refused, and no other one is."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus import topics
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import SCHEMA_VERSION, CloseContext, Envelope, NodeState
from roadside.bus.replays import ReplayGuard
from roadside.bus.topics import Topic

# As many as a sender has on its way at once (transport.py): what may come again when a connection breaks.
ON_THEIR_WAY = 20


def envelope(number: int, *, sender: str = "edge-1", boot: str = "life-1") -> Envelope:
    return Envelope(SCHEMA_VERSION, sender, boot, number, 0.0, CloseContext(session="s.1"))


def admitted(guard: ReplayGuard, topic: Topic, message: Envelope) -> bool:
    try:
        guard.admit(topic, message)
    except MessageRefused as refusal:
        return refusal.reason != "replayed"
    return True


@given(
    connections=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    unacknowledged=st.lists(st.integers(0, ON_THEIR_WAY), min_size=12, max_size=12),
)
def test_every_message_counts_once_however_often_connections_break(connections: list[int], unacknowledged: list[int]):
    """Each connection begins with what the last one had on its way, in its old order, arrived or not."""
    guard, counted, number, again = ReplayGuard(), [], 0, []
    for length, left in zip(connections, unacknowledged, strict=False):
        arriving = again + list(range(number + 1, number + length + 1))
        number += length
        again = arriving[max(0, len(arriving) - left) :]
        counted += [each for each in arriving if admitted(guard, topics.CONTEXT, envelope(each))]
    assert counted == list(range(1, number + 1))


@given(st.lists(st.integers(1, 400), max_size=300), st.randoms(use_true_random=False))
def test_what_was_counted_is_never_counted_again(numbers: list[int], random):
    guard = ReplayGuard()
    counted = [each for each in numbers if admitted(guard, topics.TASK, envelope(each))]
    assert len(counted) == len(set(counted))
    captured = list(numbers)
    random.shuffle(captured)
    # What came far too late was not counted the first time either, and is not now.
    assert not any(admitted(guard, topics.TASK, envelope(each)) for each in captured)


def test_topics_senders_and_lives_are_counted_apart():
    guard = ReplayGuard()
    for topic in (topics.CONTEXT, topics.INFER):
        for sender in ("edge-1", "edge-2"):
            for boot in ("life-1", "life-2"):
                assert admitted(guard, topic, envelope(1, sender=sender, boot=boot))
                assert not admitted(guard, topic, envelope(1, sender=sender, boot=boot))


def state(number: int) -> Envelope:
    return Envelope(SCHEMA_VERSION, "edge-1", "life-1", number, 0.0, NodeState(node="edge-1", role="edge", alive=True))


def test_the_newest_state_may_come_again_but_time_does_not_turn_back():
    guard = ReplayGuard()
    assert [admitted(guard, topics.NODE_STATE, state(number)) for number in (3, 3, 7, 3, 6, 7, 8)] == [
        *(True, True, True, False, False, True, True)
    ]
    # Its last will is of any time: the connection may be lost and come back.
    assert [admitted(guard, topics.NODE_STATE, state(number)) for number in (0, 8, 0, 7)] == [True, True, True, False]


def test_a_flood_of_lives_and_senders_is_bounded_and_pushes_out_only_its_own():
    guard = ReplayGuard()
    guard.admit(topics.TASK, envelope(1, sender="vehicle-1"))
    tracemalloc.start()
    for number in range(5_000):
        guard.admit(topics.TASK, envelope(number + 1, sender="flood", boot=f"life-{number}"))
    used_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used_bytes < 1_000_000
    with pytest.raises(MessageRefused):
        guard.admit(topics.TASK, envelope(1, sender="vehicle-1"))
