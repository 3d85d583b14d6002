"""Hostile inputs, each with what it must be refused for: messages, tensors, images, archives of weights.

An attack on the wire is made for any topic from a good message of it, so that every decoder meets all of them.
"""

from __future__ import annotations

import io
import itertools
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import numpy as np
from PIL import Image
from roadside.bus import codec, topics
from roadside.bus.messages import (
    SCHEMA_VERSION,
    Accepted,
    CloseContext,
    ContextChunk,
    ContextTokens,
    Envelope,
    Frame,
    InferRequest,
    Lease,
    LeaseRequest,
    Load,
    Message,
    Nack,
    NodeState,
    PolicyWeights,
    PromptContext,
    TokenReply,
)
from roadside.bus.tensors import TensorPayload
from roadside.bus.topics import Topic
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.samples import make_sample

from .. import plain_messages

STRANGER = "stranger-1"
SAMPLE = make_sample(4_200_000)
JPEG = encode_jpeg(SAMPLE.image, 85)
LOAD = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={"edge": {"explain": 20.0}})
TASK = msgspec.structs.replace(
    plain_messages.TASK,
    kind="explain",
    prompt="what is the car doing and why ?",
    frames=(JPEG,),
    telemetry=SAMPLE.telemetry,
    deadline_ms=60_000.0,
    remaining_ms=60_000.0,
    qos_floor=0.0,
    max_tokens=8,
)
RESULT = msgspec.structs.replace(plain_messages.RESULT, text="the car is stopped .", confidence=1.0, load=LOAD)
OUTCOME = msgspec.structs.replace(
    plain_messages.OUTCOME,
    text="the car is stopped .",
    created_at_s=1e9,
    latency_ms=30.0,
    first_answer_ms=30.0,
    network_ms=2.0,
    clip="c",
    moment_s=0.0,
)
HIDDEN = TensorPayload("float16", (2, 192), memoryview(bytes(2 * 192 * 2)))
CHUNK = ContextChunk(session="lease.1", rollback=0, position=0, hidden=HIDDEN)
REPLY = TokenReply(
    session="lease.1",
    rollback=0,
    up_to=50,
    tokens=(7,),
    n_accepted=0,
    confidences=(0.5,),
    queue_ms=0.0,
    compute_ms=9.0,
    energy_j=0.1,
)
# At least one good message of every topic; what is right for one is wrong for all others.
GOOD: dict[str, tuple[Message, ...]] = {
    "vehicle-state": (NodeState(node=STRANGER, role="vehicle", alive=True),),
    "node-state": (NodeState(node=STRANGER, role="edge", alive=True, load=LOAD),),
    "frame": (Frame(clip="c", moment_s=0.0, jpeg=JPEG, telemetry={}),),
    "ack": (Accepted(task_id="t-1", attempt=1, load=LOAD),),
    "result": (RESULT,),
    "outcome": (OUTCOME,),
    "task": (TASK,),
    "policy": (PolicyWeights(policy="ddpg", version=1, feature_schema="x", weights=b"PK..", trained_tasks=0),),
    "context": (
        CHUNK,
        LeaseRequest(model_hash="x", first_exit_layer=2, hidden_size=192),
        ContextTokens(session="lease.1", rollback=0, position=0, tokens=(1, 2)),
        PromptContext(session="lease.1", rollback=0, positions=40, prompt="what ?", frames=(JPEG,), telemetry={}),
        CloseContext(session="lease.1"),
    ),
    "infer": (InferRequest(session="lease.1", rollback=0, up_to=40, remaining_ms=500.0),),
    "token": (
        REPLY,
        Lease(lease="lease", session_ttl_ms=1000.0),
        Nack(session="lease.1", rollback=0, reason="missing", first=0, end=5),
    ),
}

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Attack:
    """Bytes on a topic, and the reason for which the bus of whoever listens refuses them."""

    name: str
    topic: Topic
    make: Callable[[], bytes]
    reason: str

    @property
    def id(self) -> str:
        return f"{self.topic.name}: {self.name}"


def written(body: Message, sender: str = STRANGER) -> bytes:
    # Each with a number of its own, or the second would be refused as a repetition of the first.
    return codec.encode(Envelope(SCHEMA_VERSION, sender, "boot", next(_NUMBERS), 1e9, body))


def packed(value: Any) -> bytes:
    """msgpack.packb, whose type is optional only for a packer that is told to collect."""
    payload = msgpack.packb(value)
    assert payload is not None
    return payload


def changed(body: Message, sender: str = STRANGER, **fields: Any) -> bytes:
    """A good message with some of its body's fields replaced, or added, by whatever MessagePack can say."""
    plain = msgpack.unpackb(written(body, sender))
    plain["body"].update(fields)
    return packed(plain)


def with_raw(plain: dict[Any, Any], raw: bytes) -> bytes:
    """A message in which the text "RAW" is replaced by raw MessagePack."""
    return packed(plain).replace(packed("RAW"), raw)


def array32(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


# Values of an unknown field: a decoder that builds before it checks would pay for them.
BOMBS: dict[str, Callable[[], bytes]] = {
    "depth 5000": lambda: b"\x91" * 5000 + b"\x90",
    "depth 2 million": lambda: b"\x91" * 2_000_000 + b"\x90",
    "maps to depth 5000": lambda: b"\x81\xa1a" * 5000 + b"\x80",
    "nested array32": lambda: array32(2**32 - 1) * 1000,
    "4 million empty arrays": lambda: array32(4_000_000) + b"\x90" * 4_000_000,
    "declared map32": lambda: b"\xdf" + struct.pack(">I", 2**32 - 1),
    "declared 4 GB bin": lambda: b"\xc6" + struct.pack(">I", 2**32 - 1) + b"x",
    "declared 4 GB str": lambda: b"\xdb" + struct.pack(">I", 2**32 - 1) + b"x",
    "ext": lambda: b"\xc7\x0c\x05" + bytes(12),
    "timestamp": lambda: b"\xd6\xff" + bytes(4),
    "reserved byte": lambda: b"\xc1",
}
EVIL_NAMES = ("+", "#", "a/b", "../../etc", "a\0", "", "\N{RIGHT-TO-LEFT OVERRIDE}a", "a" * 65, "a\n")


def attacks_on(topic: Topic, sender: str = STRANGER) -> Iterator[Attack]:
    """Everything that is refused before a node sees it. sender: who stands in the address that it is sent to."""
    body = GOOD[topic.name][0]
    good = written(body, sender)

    def plain(**changes: Any) -> dict[Any, Any]:
        return {**msgpack.unpackb(good), **changes}

    def attack(name: str, make: Callable[[], bytes], reason: str = "schema") -> Attack:
        return Attack(name, topic, make, reason)

    for name, bomb in BOMBS.items():
        yield attack(
            f"{name} in the body",
            lambda bomb=bomb: with_raw(plain(body={**plain()["body"], "unknown": "RAW"}), bomb()),
        )
    yield attack("depth 5000 instead of a message", lambda: b"\x91" * 5000)
    yield attack("timestamp instead of a number", lambda: with_raw(plain(sequence="RAW"), BOMBS["timestamp"]()))
    yield attack("empty", lambda: b"")
    yield attack("noise", lambda: b"\xc1hello")
    yield attack("truncated", lambda: good[: len(good) // 2])
    yield attack("cut by one byte", lambda: good[:-1])
    yield attack("trailing zero", lambda: good + b"\0")
    yield attack("a second message behind", lambda: good + good)
    yield attack("larger than allowed", lambda: good + bytes(codec.MAX_MESSAGE_BYTES), "size")
    yield attack("integer keys", lambda: packed({**plain(), 7: 7}))
    yield attack("bytes keys", lambda: packed({**plain(), b"sender": "x"}))
    yield attack("a key twice in the envelope", lambda: _twice(plain(), "sender"), "duplicate-key")
    yield attack("the body twice", lambda: _twice(plain(), "body"), "duplicate-key")
    yield attack("NaN", lambda: packed(plain(sent_at_s=math.nan)))
    yield attack("infinity", lambda: packed(plain(sent_at_s=math.inf)))
    yield attack("sent in the year 9999", lambda: packed(plain(sent_at_s=253_402_300_000.0)))
    yield attack("sent before 1970", lambda: packed(plain(sent_at_s=-1.0)))
    yield attack("another version", lambda: packed(plain(version=SCHEMA_VERSION + 1)), "version")
    yield attack("negative sequence", lambda: packed(plain(sequence=-1)))
    yield attack("sequence beyond 64 bits", lambda: packed(plain(sequence=2**64 - 1)))
    for number, evil in enumerate(EVIL_NAMES):
        yield attack(f"sender {number} of no name", lambda evil=evil: packed(plain(sender=evil)))
    yield attack("another's name", lambda: packed(plain(sender="somebody-else")), "sender")
    for other in topics.TOPICS:
        for wrong in GOOD[other.name]:
            if type(wrong) not in topic.bodies:
                yield attack(
                    f"{type(wrong).__name__}, which belongs elsewhere", lambda wrong=wrong: written(wrong, sender)
                )
    yield attack("no such type", lambda: packed(plain(body={**plain()["body"], "type": "os.system"})))
    for name, fields in _FIELDS.get(topic.name, {}).items():
        # Numbers without bounds pass the typed decoder, and are looked at once more.
        reason = "not-finite" if name == "telemetry NaN" else "schema"
        yield attack(name, lambda fields=fields: changed(body, sender, **fields), reason)


def _twice(plain: dict[Any, Any], key: str) -> bytes:
    return packed({**plain, "DUPLICATE": plain[key]}).replace(packed("DUPLICATE"), packed(key))


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"hidden": {"dtype": "float16", "shape": [2, 192], "data": bytes(768), **changes}}


_IDS = {f"task id {number} of no name": {"task_id": evil} for number, evil in enumerate(EVIL_NAMES)}


def _load(**changes: Any) -> dict[str, Any]:
    return {"load": {**msgpack.unpackb(written(GOOD["ack"][0]))["body"]["load"], **changes}}


_LOADS: dict[str, dict[str, Any]] = {
    "a queue of -1": _load(queued=-1),
    "a wait of 1e300 ms": _load(wait_ms=1e300),
    "a wait of NaN": _load(wait_ms=math.nan),
    "a negative service time": _load(service_ms={"edge": {"explain": -1.0}}),
    "33 kinds": _load(service_ms={"edge": {str(number): 1.0 for number in range(33)}}),
}
# By topic: what is wrong with the fields of its first good message.
_FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "task": {
        **_IDS,
        "deadline in the past": {"deadline_ms": -1.0},
        "nothing left of the time": {"remaining_ms": 0.0},
        "deadline in the year 9999": {"deadline_ms": 253_402_300_000_000.0},
        "deadline NaN": {"deadline_ms": math.nan},
        "prompt of 1 MB": {"prompt": "x" * 1_000_000},
        "no picture": {"frames": []},
        "nine pictures": {"frames": [b"\xff\xd8xx"] * 9},
        "picture of 5 MB": {"frames": [bytes(5_000_000)]},
        "telemetry with a thousand signals": {"telemetry": {str(number): 1.0 for number in range(1000)}},
        "telemetry NaN": {"telemetry": {"Vehicle.Speed": math.nan}},
        "attempt 2**31": {"attempt": 2**31},
        "a million tokens": {"max_tokens": 1_000_000},
        "place unknown": {"place": "moon"},
    },
    "node-state": {
        **_LOADS,
        "quality above 1": {"quality": {"edge": {"explain": 7.0}}},
        "negative power": {"slot_power_w": -50.0},
        "model on two lines": {"model": "a\nb"},
        "model that steers a terminal": {"model": "\x1b[2J"},
        "a thousand counters": {"counters": {str(number): 1 for number in range(1000)}},
    },
    "ack": {**_IDS, **_LOADS},
    "result": {
        **_IDS,
        **_LOADS,
        "text of 1 MB": {"text": "x" * 1_000_000},
        "NaN joules": {"energy_j": math.nan},
        "1e300 joules": {"energy_j": 1e300},
        "sure beyond 1": {"confidence": 1e9},
    },
    "context": {
        "chunk 2**63": {"position": 2**63},
        "dtype object": _tensor(dtype="object"),
        "dtype big-endian": _tensor(dtype=">f2"),
        "dtype float64": _tensor(dtype="float64"),
        "no dimension": _tensor(shape=[]),
        "five dimensions": _tensor(shape=[1, 1, 1, 2, 192]),
        "zero rows": _tensor(shape=[0, 192], data=b""),
        "negative rows": _tensor(shape=[-2, 192]),
        "2**31 rows": _tensor(shape=[2**31, 192]),
        "tensor of 5 MB": _tensor(data=bytes(5_000_000)),
        "session of no name": {"session": "a/b"},
    },
    "infer": {
        "up to 2**31": {"up_to": 2**31},
        "up to 0": {"up_to": 0},
        "no time left": {"remaining_ms": 0.0},
        "NaN left": {"remaining_ms": math.nan},
        "token 2**31": {"claimed": [2**31]},
        "5000 claims": {"claimed": [1] * 5000},
        "NaN degrees": {"temperature": math.nan},
    },
    "token": {
        "no token": {"tokens": []},
        "token -1": {"tokens": [-1]},
        "1e300 joules": {"energy_j": 1e300},
        "negative time": {"compute_ms": -5.0},
    },
    "outcome": {
        "made in the year 9999": {"created_at_s": 253_402_300_000.0},
        "late by 1e300 ms": {"latency_ms": 1e300},
    },
    "policy": {"archive of 1 MB": {"weights": bytes(1_000_000)}},
}  # fmt: skip


# Tensors that a typed decoder passes, and `unpack` must not.


def _payload(dtype: str, shape: tuple[int, ...], data: bytes) -> TensorPayload:
    return TensorPayload(dtype, shape, memoryview(data))  # pyright: ignore[reportArgumentType]


TENSORS: dict[str, tuple[TensorPayload, str]] = {
    "shape that overflows 64 bits": (_payload("float16", (2**24,) * 4, bytes(768)), "shape"),
    "more rows than bytes": (_payload("float16", (3, 192), bytes(768)), "shape"),
    "fewer rows than bytes": (_payload("float16", (1, 192), bytes(768)), "shape"),
    "odd bytes": (_payload("float16", (1, 192), bytes(383)), "shape"),
    "NaN": (_payload("float16", (1, 2), np.array([0, np.nan], "<f2").tobytes()), "not-finite"),
    "infinity": (_payload("float32", (1, 2), np.array([0, -np.inf], "<f4").tobytes()), "not-finite"),
    "infinity in bfloat16": (_payload("bfloat16", (1,), b"\x80\x7f"), "not-finite"),
    "dtype object": (_payload("object", (1,), bytes(8)), "dtype"),
}


# Images


def image_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _many_scans() -> bytes:
    """A progressive JPEG that refines the same blocks two thousand times."""
    good = image_file(SAMPLE.image.resize((64, 64)), "JPEG", progressive=True)
    last = good.rindex(b"\xff\xda")
    return good[:last] + good[last:-2] * 2000 + good[-2:]


def _photo() -> Image.Image:
    return SAMPLE.image.convert("RGB")


IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "81 million pixels in a PNG": (lambda: image_file(Image.new("1", (9000, 9000)), "PNG"), "image-size"),
    "300 million pixels in a PNG": (lambda: _claims_to_be(20_000, 15_000), "image-size"),
    "a PNG of 2**31 by 2**31": (lambda: _claims_to_be(2**31 - 1, 2**31 - 1), "image-size"),
    "a JPEG with 2000 scans": (_many_scans, "image-size"),
    "truncated JPEG": (lambda: JPEG[: len(JPEG) // 2], "image-damaged"),
    "JPEG without pixels": (lambda: JPEG[:60], "image-format"),
    "TIFF called .jpg": (lambda: image_file(_photo(), "TIFF"), "image-format"),
    "EPS called .jpg": (lambda: image_file(_photo(), "EPS"), "image-format"),
    "GIF called .jpg": (lambda: image_file(_photo(), "GIF"), "image-format"),
    "BMP called .jpg": (lambda: image_file(_photo(), "BMP"), "image-format"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file", "image-format"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>', "image-format"),
    "a pickle": (lambda: pickle.dumps({"a": 1}), "image-format"),
    "four bytes of JPEG": (lambda: b"\xff\xd8\xff\xd9", "image-format"),
}  # fmt: skip
# Unusual, and understood: a colour space or a shape of its own is no attack.
UNUSUAL_IMAGES: dict[str, Callable[[], bytes]] = {
    "CMYK JPEG": lambda: image_file(_photo().convert("CMYK"), "JPEG"),
    "grey JPEG": lambda: image_file(_photo().convert("L"), "JPEG"),
    "progressive JPEG": lambda: image_file(_photo(), "JPEG", progressive=True),
    "4 million by 1": lambda: image_file(Image.new("L", (4_000_000, 1)), "PNG"),
    "1 by 1": lambda: image_file(Image.new("RGB", (1, 1)), "PNG"),
    "16 bit PNG": lambda: image_file(Image.new("I;16", (40, 30)), "PNG"),
    "palette with transparency": lambda: image_file(_photo().convert("P"), "PNG", transparency=0),
}


def _claims_to_be(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header names a size."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# Prompts, and what is left of them.
PROMPTS: dict[str, str] = {
    "a control token": "what <image> is the car doing and why ?",
    "a control token in capitals": "what <IMAGE> is the car doing and why ?",
    "a control token inside another": "what <ima<image>ge> is the car doing and why ?",
    "the end of the turn": "what </s> is the car doing and why ?",
    "control characters": "what\0 is\x1b the car\x07 doing and why ?",
    "direction turned round": "what \N{RIGHT-TO-LEFT OVERRIDE}is the car doing and why ?",
    "zero-width spaces": "what is\N{ZERO WIDTH SPACE} the car doing and why ?",
    "line breaks": "what is\nthe car\r\ndoing and\twhy ?",
}


# Archives of weights


class _Bomb:
    """Unpickled, it would make a file of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("/tmp/roadside-was-unpickled", "w"))


def _archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _array_file(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=allow_pickle)
    return file.getvalue()


def _claimed_shape(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(16)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a pickle": lambda: pickle.dumps(_Bomb()),
    "a pickled checkpoint in a zip": lambda: _archive("archive/data.pkl", pickle.dumps(_Bomb())),
    "an array of objects": lambda: _archive("a.npy", _array_file(np.array([{}], object), allow_pickle=True)),
    "an array of doubles": lambda: _archive("a.npy", _array_file(np.zeros(3))),
    "a big-endian array": lambda: _archive("a.npy", _array_file(np.zeros(3, ">f4"))),
    "a shape of 2**60": lambda: _archive("a.npy", _claimed_shape(f"({2**60},)")),
    "a shape that overflows": lambda: _archive("a.npy", _claimed_shape(f"({2**32}, {2**32})")),
    "a negative shape": lambda: _archive("a.npy", _claimed_shape("(-4,)")),
    "100 MB of zeros in 100 kB": lambda: _archive("a.npy", _array_file(np.zeros(25_000_000, np.float32))),
    "noise": lambda: b"PK\x03\x04" + bytes(100),
}
