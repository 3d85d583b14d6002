"""The bus as an AsyncAPI 3.0 document, made of the topic table and of the messages' own types.

Other programs' tools read it: generators of clients, viewers, validators. Its payloads describe the MessagePack map as
JSON Schema; what is `contentEncoding: base64` there is MessagePack's `bin` on the wire.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from .. import __version__
from .codec import MAX_MESSAGE_BYTES
from .described_fields import field_texts, summary
from .messages import SCHEMA_VERSION, Envelope, Message
from .tensors import TensorPayload
from .topics import PREFIX, TOPICS, Topic

CONTENT_TYPE = "application/msgpack"
_NAMES = {
    "fleet": "The fleet; fleets on one broker do not meet.",
    "vehicle": "A vehicle's name.",
    "node": "The name of an edge or a cloud.",
    "edge": "An edge's name.",
    "learner": "A learner's name.",
}


def asyncapi_document() -> dict[str, Any]:
    """The whole document, plain JSON; the same for the same program."""
    bodies = tuple(dict.fromkeys(body for topic in TOPICS for body in topic.bodies))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "roadside",
            "version": __version__,
            "description": (
                f"A driving co-pilot over MQTT 3.1.1. Every message is one MessagePack map of at most"
                f" {MAX_MESSAGE_BYTES} bytes: an envelope of schema version {SCHEMA_VERSION} around a body that its"
                " `type` names. The sender stands in every address, and a receiver refuses an envelope that names"
                " another one."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "local": {
                "host": "127.0.0.1:1883",
                "protocol": "mqtt",
                "protocolVersion": "3.1.1",
                "description": "Any MQTT 3.1.1 broker; this is where `roadside broker` listens.",
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {name: operation for topic in TOPICS for name, operation in (_sending(topic), _receiving(topic))},
        "components": {
            "messages": {body.__name__: _message(body) for body in bodies},
            "parameters": {name: {"description": text} for name, text in _NAMES.items()},
            "schemas": _schemas(bodies),
        },
    }


def payload_schema(body: type[Message]) -> dict[str, Any]:
    """One message's schema, envelope included, with all that it refers to: for a validator of JSON Schema."""
    return {"$ref": f"#/components/schemas/{_envelope_name(body)}", "components": {"schemas": _schemas((body,))}}


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": f"{PREFIX}/{{fleet}}/{topic.pattern}",
        "description": topic.about,
        "messages": {body.__name__: {"$ref": f"#/components/messages/{body.__name__}"} for body in topic.bodies},
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in ("fleet", *topic.placeholders)},
    }


def _sending(topic: Topic) -> tuple[str, dict[str, Any]]:
    return f"send-{topic.name}", {
        "action": "send",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"By whom the address names as {{{topic.sender}}}.",
        "bindings": {"mqtt": {"qos": topic.qos, "retain": topic.retained, "bindingVersion": "0.2.0"}},
        "x-sender": topic.sender,
    }


def _receiving(topic: Topic) -> tuple[str, dict[str, Any]]:
    return f"receive-{topic.name}", {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "bindings": {"mqtt": {"qos": topic.qos, "bindingVersion": "0.2.0"}},
        "x-overflow": topic.overflow,
    }


def _message(body: type[Message]) -> dict[str, Any]:
    return {
        "name": body.__name__,
        "title": body.__name__,
        "summary": summary(body),
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{_envelope_name(body)}"},
    }


def _envelope_name(body: type[Message]) -> str:
    return f"{body.__name__}Envelope"


def _schemas(bodies: tuple[type[Message], ...]) -> dict[str, Any]:
    """By name: of each body's envelope, of the body, and of the structs inside it."""
    # The bodies are known at run time only, which a type checker cannot follow.
    envelopes = [Envelope[body] for body in bodies]  # pyright: ignore[reportInvalidTypeArguments]
    refs, generated = msgspec.json.schema_components(envelopes, ref_template="{name}")
    structs = {each.__name__: each for each in (*_parts(Message), *_parts(Struct)) if each.__name__ in generated}
    renamed = {ref["$ref"]: _envelope_name(body) for ref, body in zip(refs, bodies, strict=True)}
    schemas: dict[str, Any] = {}
    for name, schema in generated.items():
        fitted = _fitted(schema, renamed)
        struct = Envelope if name in renamed else structs[name]
        fitted["title"] = renamed.get(name, name)
        fitted["description"] = summary(struct)
        for field, text in field_texts(struct).items():
            # Beside a reference nothing else counts.
            if "$ref" not in fitted["properties"][field]:
                fitted["properties"][field]["description"] = text
        if struct is Envelope:
            fitted["properties"]["version"] = {"const": SCHEMA_VERSION}
        schemas[renamed.get(name, name)] = fitted
    return dict(sorted(schemas.items()))


def _parts(base: type[Struct]) -> list[type[Struct]]:
    """The structs that a message may be made of."""
    found = [each for each in base.__subclasses__() if each.__module__ == Message.__module__]
    return [TensorPayload, *found, *(inner for each in found for inner in _parts(each))]


def _fitted(schema: Any, renamed: dict[str, str]) -> Any:
    """msgspec's schema for any reader: references into this document, patterns as ECMA 262 has them."""
    if isinstance(schema, list | tuple):
        return [_fitted(each, renamed) for each in schema]
    if not isinstance(schema, dict):
        return schema
    fitted = {key: _fitted(value, renamed) for key, value in schema.items()}
    if "$ref" in fitted:
        fitted["$ref"] = f"#/components/schemas/{renamed.get(schema['$ref'], schema['$ref'])}"
    if isinstance(pattern := fitted.get("pattern"), str):
        # Python's \Z is what `$` is elsewhere: the end, and not before a last line break.
        fitted["pattern"] = re.sub(r"\\Z\Z", "$", pattern)
    return fitted
