"""Every message type, as whole envelopes: what we write msgpack reads, and what msgpack writes we read."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roadside.bus import codec
from roadside.bus.asyncapi import payload_schema
from roadside.bus.messages import SCHEMA_VERSION, Envelope, Message
from roadside.bus.topics import TOPICS, Topic

CARRIED = [(topic, body) for topic in TOPICS for body in topic.bodies]
FEW = 3


def packed(value: Any) -> bytes:
    """msgpack.packb, whose type is optional only for a packer that is told to collect."""
    payload = msgpack.packb(value)
    assert payload is not None
    return payload


def values(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """All values that a type allows, containers kept short; follows msgspec's own description of the type."""
    inspect = msgspec.inspect
    match kind:
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            lowest = kind.ge if kind.ge is not None else kind.gt
            return st.floats(lowest, kind.le, exclude_min=kind.gt is not None, allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            return st.from_regex(kind.pattern) if kind.pattern else st.text(max_size=min(kind.max_length or FEW, 12))
        case inspect.BytesType():
            return st.binary(min_size=kind.min_length or 0, max_size=64)
        case inspect.MemoryViewType():
            return st.binary(max_size=64).map(memoryview)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.VarTupleType():
            longest = min(kind.max_length or FEW, FEW)
            return st.lists(values(kind.item_type), min_size=kind.min_length or 0, max_size=longest).map(tuple)
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=FEW)
        case inspect.UnionType():
            return st.one_of([values(member) for member in kind.types])
        case inspect.StructType():
            return st.builds(kind.cls, **{field.name: values(field.type) for field in kind.fields})
    raise TypeError(f"no strategy for {kind}")


def envelopes(body: type[Message]) -> st.SearchStrategy[Envelope[Any]]:
    whole = msgspec.inspect.type_info(Envelope[body])
    assert isinstance(whole, msgspec.inspect.StructType)
    fields = {field.name: values(field.type) for field in whole.fields}
    return st.builds(Envelope, **{**fields, "version": st.just(SCHEMA_VERSION)})


def as_plain(envelope: Envelope[Any]) -> dict[str, Any]:
    """The same message as dicts, lists and scalars, as a program without our types sees it."""

    def plain(value: Any) -> Any:
        if isinstance(value, msgspec.Struct):
            tag = {"type": type(value).__struct_config__.tag} if isinstance(value, Message) else {}
            return tag | {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return plain(envelope)


@pytest.mark.parametrize(("topic", "body"), CARRIED, ids=[f"{topic.name}-{body.__name__}" for topic, body in CARRIED])
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_every_message_round_trips_and_msgpack_agrees(topic: Topic, body: type[Message], data: st.DataObject):
    envelope = data.draw(envelopes(body))
    written = codec.encode(envelope)
    assert codec.decode(topic, written) == envelope
    assert msgpack.unpackb(written) == as_plain(envelope)
    assert codec.decode(topic, packed(as_plain(envelope))) == envelope


def test_every_message_type_travels_on_some_topic():
    assert {body for _, body in CARRIED} == set(Message.__subclasses__())


def test_messages_cannot_be_changed_after_they_were_checked():
    for _, body in CARRIED:
        assert body.__struct_config__.frozen
        assert body.__struct_config__.forbid_unknown_fields


def unbounded(kind: msgspec.inspect.Type, where: str) -> list[str]:
    """Places in a type where a sender could put as much as it likes."""
    inspect = msgspec.inspect
    match kind:
        case inspect.AnyType():
            return [where]
        case inspect.StrType():
            return [] if kind.pattern or kind.max_length else [where]
        case inspect.BytesType() | inspect.MemoryViewType():
            return [] if kind.max_length else [where]
        case inspect.VarTupleType():
            return ([] if kind.max_length else [where]) + unbounded(kind.item_type, f"{where}[]")
        case inspect.DictType():
            inner = unbounded(kind.key_type, f"{where} keys") + unbounded(kind.value_type, f"{where} values")
            return ([] if kind.max_length else [where]) + inner
        case inspect.UnionType():
            return [found for member in kind.types for found in unbounded(member, where)]
        case inspect.StructType():
            return [found for field in kind.fields for found in unbounded(field.type, f"{where}.{field.name}")]
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType():
            return [where]
    return []


@pytest.mark.parametrize("body", sorted(Message.__subclasses__(), key=str))
def test_no_field_is_untyped_or_unbounded(body: type[Message]):
    assert unbounded(msgspec.inspect.type_info(Envelope[body]), body.__name__) == []


@pytest.mark.parametrize("body", sorted(Message.__subclasses__(), key=str))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_every_message_is_what_its_published_schema_says(body: type[Message], data: st.DataObject):
    published = jsonschema.Draft7Validator(payload_schema(body))
    # As a program reads it that has MessagePack and JSON Schema, and none of our types.
    plain = msgspec.to_builtins(msgspec.msgpack.decode(codec.encode(data.draw(envelopes(body)))))
    published.validate(plain)
    assert not published.is_valid({**plain, "unknown": 1})
    assert not published.is_valid({**plain, "body": {**plain["body"], "type": "Other"}})
    for required in plain:
        assert not published.is_valid({key: value for key, value in plain.items() if key != required})
