"""Envelopes to bytes and back. Whatever is not exactly what a topic carries is refused by reason."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Union

import msgspec

from .duplicates import has_duplicate_key
from .errors import MessageRefused
from .messages import SCHEMA_VERSION, Envelope, Message
from .topics import Topic

MAX_MESSAGE_BYTES = 8 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
# Written to by _as_we_write_it alone. A fresh 150 kB for each message would cost 30 times what writing it does, as
# the allocator returns blocks of that size to the operating system.
_scratch = bytearray()


def encode(envelope: Envelope[Any]) -> bytes:
    """One MessagePack map; structs are maps with their field names as keys."""
    return _encoder.encode(envelope)


def decode(topic: Topic, payload: bytes) -> Envelope[Any]:
    """Read and validate what arrived on a topic.

    Raises MessageRefused with reason "size", "schema" (not MessagePack, another shape, a value out of bounds),
    "version", "not-finite" or "duplicate-key".
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageRefused("size", f"{len(payload)} bytes on {topic.name}")
    try:
        envelope = _decoder(topic.bodies).decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageRefused("schema", f"{topic.name}: {error}") from None
    if envelope.version != SCHEMA_VERSION:
        raise MessageRefused("version", f"{topic.name}: schema {envelope.version}, this is {SCHEMA_VERSION}")
    if not _finite(envelope):
        raise MessageRefused("not-finite", f"{topic.name}: NaN or infinity")
    if not _as_we_write_it(envelope, payload) and has_duplicate_key(payload):
        raise MessageRefused("duplicate-key", f"{topic.name}: a key stands twice in one map")
    return envelope


def _as_we_write_it(envelope: Envelope[Any], payload: bytes) -> bool:
    """Whether a message is byte for byte what `encode` makes of it, and so names no key twice.

    Much quicker than walking through its keys, and true of all that roadside itself sends.
    """
    _encoder.encode_into(envelope, _scratch)
    return _scratch == payload


@cache
def _decoder(bodies: tuple[type[Message], ...]) -> msgspec.msgpack.Decoder[Envelope[Any]]:
    # The union is built at run time, which a type checker cannot follow.
    return msgspec.msgpack.Decoder(Envelope[Union[bodies]])  # noqa: UP007 # pyright: ignore[reportInvalidTypeArguments]


def _finite(value: object) -> bool:
    """Whether no float in a decoded message is NaN or infinite; msgspec's bounds let NaN pass."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, msgspec.Struct):
        return all(_finite(getattr(value, field)) for field in value.__struct_fields__)
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    if isinstance(value, tuple):
        return all(_finite(item) for item in value)
    return True
