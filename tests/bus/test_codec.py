"""What a hostile or broken sender may put on the wire, and the reason by which it is refused.

None of these is slow because nothing is built from a message before its type and bounds are checked; the largest
thing that a test here makes is its own input.
"""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus import codec, topics
from roadside.bus.duplicates import has_duplicate_key
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import SCHEMA_VERSION, Accepted, Envelope, Load, NodeState, Task

TASK = Task(
    task_id="t-1",
    attempt=1,
    kind="hazard",
    prompt="what must the driver react to ?",
    frames=(b"\xff\xd8" + bytes(2000),),
    telemetry={"Vehicle.Speed": 48.5},
    deadline_ms=700.0,
    remaining_ms=650.0,
    qos_floor=0.5,
    place="edge",
)


def packed(value: Any) -> bytes:
    """msgpack.packb, whose type is optional only for a packer that is told to collect."""
    payload = msgpack.packb(value)
    assert payload is not None
    return payload


def wrapped(body: Any) -> bytes:
    return codec.encode(Envelope(SCHEMA_VERSION, "car-1", "boot", 1, 1e9, body))


GOOD = wrapped(TASK)


def changed(**fields: Any) -> bytes:
    """The good task with some of its body's fields replaced."""
    plain = msgpack.unpackb(GOOD)
    plain["body"].update(fields)
    return packed(plain)


def reason_of(payload: bytes, topic: topics.Topic = topics.TASK) -> str:
    with pytest.raises(MessageRefused) as refused:
        codec.decode(topic, payload)
    return refused.value.reason


def array32(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


def with_telemetry(value: bytes) -> bytes:
    """The good task, the telemetry replaced by raw MessagePack."""
    marker = packed("TELEMETRY")
    return changed(telemetry="TELEMETRY").replace(marker, value)


def with_unknown_field(value: bytes) -> bytes:
    marker = packed("VALUE")
    return changed(unknown="VALUE").replace(marker, value)


def test_the_good_message_passes():
    assert codec.decode(topics.TASK, GOOD).body == TASK
    assert codec.decode(topics.TASK, changed()).body == TASK


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(share):
    assert reason_of(GOOD[: int(len(GOOD) * share)]) == "schema"


def test_every_truncation_of_a_small_message():
    state = wrapped(NodeState(node="car-1", role="vehicle", alive=True))
    for length in range(len(state)):
        assert reason_of(state[:length], topics.VEHICLE_STATE) == "schema"


@pytest.mark.parametrize("trailing", [b"\x00", b"\xc1", GOOD], ids=["zero", "reserved", "a second message"])
def test_trailing_bytes(trailing):
    assert reason_of(GOOD + trailing) == "schema"


@pytest.mark.parametrize("place", [with_telemetry, with_unknown_field])
@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 5000 + b"\x90",
        b"\x91" * 2_000_000 + b"\x90",
        b"\x81\xa1a" * 5000 + b"\x80",
        array32(2**32 - 1) * 1000,
        array32(4_000_000) + b"\x90" * 4_000_000,
        b"\xdf" + struct.pack(">I", 2**32 - 1),
        b"\xc6" + struct.pack(">I", 2**32 - 1) + b"x",
        b"\xdb" + struct.pack(">I", 2**32 - 1) + b"x",
        b"\xc7\x0c\xff" + bytes(12),
        b"\xd6\xff" + bytes(4),
    ],
    ids=[
        "depth 5000",
        "depth 2 million",
        "maps to depth 5000",
        "nested array32",
        "4 million arrays",
        "declared map32",
        "declared 4 GB bin",
        "declared 4 GB str",
        "ext",
        "timestamp",
    ],
)
def test_bombs_are_refused_before_anything_is_built_from_them(place, bomb):
    payload = place(bomb)
    tracemalloc.start()
    try:
        assert reason_of(payload) == "schema"
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_depth_without_an_envelope():
    assert reason_of(b"\x91" * 1_000_000) == "schema"


@pytest.mark.parametrize(
    "fields",
    [
        {"surprise": 1},
        {"attempt": 0},
        {"attempt": 2**64 - 1},
        {"attempt": "1"},
        {"attempt": 1.5},
        {"task_id": "../x"},
        {"task_id": "a/b"},
        {"task_id": "a\n"},
        {"task_id": "a\x00"},
        {"task_id": ""},
        {"task_id": "a" * 65},
        {"task_id": b"t-1"},
        {"place": "moon"},
        {"prompt": "x" * 2001},
        {"frames": []},
        {"frames": [b"\xff\xd8xx"] * 9},
        {"frames": ["text"]},
        {"frames": [b"abc"]},
        {"telemetry": {str(number): 1.0 for number in range(65)}},
        {"telemetry": {"x" * 97: 1.0}},
        {"telemetry": {1: 1.0}},
        {"telemetry": {b"speed": 1.0}},
        {"deadline_ms": 0},
        {"deadline_ms": -1.0},
        {"deadline_ms": 1e12},
        {"deadline_ms": None},
        {"remaining_ms": 0.0},
        {"qos_floor": 1.1},
        {"type": "Result"},
        {"type": "os.system"},
        {"type": 5},
    ],
    ids=lambda fields: f"{next(iter(fields))}={str(next(iter(fields.values())))[:20]!r}",
)
def test_values_out_of_bounds(fields):
    assert reason_of(changed(**fields)) == "schema"


def test_integer_keys():
    assert reason_of(packed({0: 1, 1: "car-1"})) == "schema"
    assert reason_of(packed({**msgpack.unpackb(GOOD), 7: 7})) == "schema"


def test_a_missing_field():
    plain = msgpack.unpackb(GOOD)
    del plain["body"]["deadline_ms"]
    assert reason_of(packed(plain)) == "schema"


def test_text_that_is_not_utf8():
    marker = packed("PROMPT")
    assert reason_of(changed(prompt="PROMPT").replace(marker, b"\xa2\xff\xfe")) == "schema"


@pytest.mark.parametrize("level", ["envelope", "body"])
def test_duplicate_keys(level):
    """Two parsers that disagree on which of two values counts would disagree on what was said."""
    plain = msgpack.unpackb(GOOD)
    target = plain if level == "envelope" else plain["body"]
    key, value = ("sender", "car-2") if level == "envelope" else ("task_id", "t-2")
    target["DUPLICATE"] = value
    assert reason_of(packed(plain).replace(packed("DUPLICATE"), packed(key))) == "duplicate-key"


def test_duplicate_keys_inside_a_dictionary():
    twice = b"\x82" + (packed("Vehicle.Speed") + packed(1.0)) * 2
    assert reason_of(with_telemetry(twice)) == "duplicate-key"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "payload_with",
    [
        lambda value: changed(telemetry={"Vehicle.Speed": value}),
        lambda value: changed(exit_thresholds=[0.5, value]),
        lambda value: changed(qos_floor=value),
        lambda value: changed(deadline_ms=value),
        lambda value: packed({**msgpack.unpackb(GOOD), "sent_at_s": value}),
    ],
    ids=["in a dictionary", "in a list", "bounded on both sides", "bounded below", "in the envelope"],
)
def test_no_nan_or_infinity_gets_through(value, payload_with):
    assert reason_of(payload_with(value)) in {"not-finite", "schema"}


def test_nan_inside_a_nested_part():
    load = Load(queued=0, running=0, slots=1, wait_ms=math.nan, service_ms={})
    assert reason_of(wrapped(Accepted(task_id="t-1", attempt=1, load=load)), topics.ACK) in {"not-finite", "schema"}


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, -1, 2**63])
def test_another_schema_version(version):
    plain = {**msgpack.unpackb(GOOD), "version": version}
    assert reason_of(packed(plain)) == "version"


def test_a_newer_version_is_told_apart_even_where_its_fields_differ():
    plain = msgpack.unpackb(GOOD)
    plain["version"] = SCHEMA_VERSION + 1
    plain["body"]["new_field"] = 1
    assert reason_of(packed(plain)) in {"version", "schema"}


def test_the_right_message_on_the_wrong_topic():
    assert reason_of(GOOD, topics.RESULT) == "schema"
    assert reason_of(GOOD, topics.NODE_STATE) == "schema"


def test_too_large():
    assert reason_of(GOOD + bytes(codec.MAX_MESSAGE_BYTES)) == "size"


@given(st.binary(max_size=200))
def test_noise_is_refused_and_never_crashes(noise):
    assert reason_of(noise) in {"schema", "version"}


@given(st.data())
def test_a_flipped_byte_is_refused_or_read_as_another_valid_task(data):
    position = data.draw(st.integers(0, 400))
    damaged = bytearray(GOOD)
    damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        envelope = codec.decode(topics.TASK, bytes(damaged))
    except MessageRefused:
        return
    assert codec.decode(topics.TASK, codec.encode(envelope)) == envelope


@pytest.mark.parametrize(
    "filler",
    [
        None,
        True,
        0,
        -1,
        -33,
        200,
        70_000,
        2**40,
        -200,
        -70_000,
        -(2**40),
        1.5,
        "",
        "x" * 40,
        "x" * 300,
        b"",
        bytes(300),
    ],
    ids=repr,
)
@pytest.mark.parametrize("count", [1, 20])
def test_duplicates_are_found_behind_values_of_every_format(filler, count):
    keys = {f"key {number}": [filler] for number in range(count)}
    behind = packed([filler] * count)
    unique = packed({"before": keys, "behind": 1})
    assert not has_duplicate_key(unique)
    assert has_duplicate_key(unique.replace(packed("behind"), packed("before")))
    assert has_duplicate_key(b"\x92" + behind + b"\x82\xa1a\x01\xd9\x01a\x02")
