"""The AsyncAPI document: whole, in step with the topic table, and accepted by AsyncAPI's own rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from roadside.bus.asyncapi import asyncapi_document
from roadside.bus.described_fields import described_fields, field_texts, summary
from roadside.bus.messages import ContextChunk, Message, Nack, Task
from roadside.bus.tensors import TensorPayload
from roadside.bus.topics import TOPICS, topic_of

DOCUMENT = asyncapi_document()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
    if isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from references(inner)


def test_it_is_a_valid_asyncapi_3_document():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from asyncapi3.models.asyncapi import AsyncAPI3
    # Forbids keys that the specification does not know.
    AsyncAPI3.model_validate(DOCUMENT)
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


@pytest.mark.slow
def test_it_satisfies_the_schema_that_asyncapi_publishes(tmp_path: Path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: AsyncAPI's own schema is not asked")
    packed = subprocess.run([npm, "pack", "@asyncapi/specs@6.11.1"], cwd=tmp_path, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("npm's registry cannot be reached: AsyncAPI's own schema is not asked")
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packages:
        member = packages.extractfile("package/schemas/3.0.0-without-$id.json")
        assert member is not None
        jsonschema.Draft7Validator(json.load(member)).validate(DOCUMENT)


def test_every_reference_leads_somewhere():
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_is_a_channel_with_its_messages_and_names(topic):
    channel = DOCUMENT["channels"][topic.name]
    assert set(channel["messages"]) == {body.__name__ for body in topic.bodies}
    names = re.findall(r"\{(\w+)\}", channel["address"])
    assert set(channel["parameters"]) == set(names)
    # An address with names filled in is one that the program itself reads as this topic.
    assert topic_of(re.sub(r"\{\w+\}", "x", channel["address"])) == (topic, dict.fromkeys(names, "x"))
    mqtt = DOCUMENT["operations"][f"send-{topic.name}"]["bindings"]["mqtt"]
    assert (mqtt["qos"], mqtt["retain"]) == (topic.qos, topic.retained)


def test_every_message_has_a_summary_and_no_pattern_of_python_alone():
    assert set(DOCUMENT["components"]["messages"]) == {body.__name__ for body in Message.__subclasses__()}
    assert all(message["summary"] for message in DOCUMENT["components"]["messages"].values())
    assert "\\Z" not in json.dumps(DOCUMENT)


def test_docstrings_are_read_by_field():
    texts = field_texts(Task)
    assert texts["deadline_ms"] == "the whole time the task has"
    assert texts["remaining_ms"] == "what was left of it when this attempt was sent."
    chunk = field_texts(ContextChunk)
    assert chunk["row_scales"] == chunk["channel_scales"]
    assert chunk["row_scales"].startswith("float32 [positions] and [hidden_size]")
    assert summary(Task) == "One question about one moment of a drive."
    # What is no field stays in the prose.
    assert "unknown-session: forgotten" in summary(Nack)


def test_types_are_said_in_words_with_bounds_and_units():
    fields = {field.name: field for field in described_fields(Task)}
    assert fields["frames"].type == "list (1 to 8 items) of: bytes (4 to 2^22 bytes)"
    assert fields["remaining_ms"].type == "number (above 0, at most 600,000)"
    assert (fields["remaining_ms"].unit, fields["remaining_ms"].default) == ("ms", None)
    assert fields["telemetry"].type == "table (at most 64 keys) by line of text (at most 96 characters) of: number"
    assert (fields["max_tokens"].type, fields["max_tokens"].default) == ("whole number (1 to 4,096)", "32")
    assert {field.name: field.default for field in described_fields(TensorPayload)} == dict.fromkeys(
        ("dtype", "shape", "data")
    )
