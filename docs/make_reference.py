"""Write the pages that are made of the program itself: topics.md, asyncapi.json and configuration.md.

`make reference` runs it; with --check it writes nothing and fails where a page is not what the program says now.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from msgspec import Struct
from roadside.bus import messages
from roadside.bus.asyncapi import asyncapi_document
from roadside.bus.configuration import MemberConfiguration
from roadside.bus.described_fields import DescribedField, described_fields, summary
from roadside.bus.kinds import KINDS
from roadside.bus.tensors import TensorPayload
from roadside.bus.topics import PREFIX, TOPICS
from roadside.cloud_node.configuration import CloudConfiguration
from roadside.edge_node.configuration import EdgeConfiguration
from roadside.learner_node.configuration import LearnerConfiguration
from roadside.models.serving import NodeConfiguration
from roadside.qos.recording import RecorderConfiguration
from roadside.vehicle_node.configuration import VehicleConfiguration

HERE = Path(__file__).parent
_MADE = "<!-- Made by `make reference` from the program itself; edit that instead. -->"

_TOPICS_HEAD = f"""{_MADE}

# Topics and messages

What runs over the broker, made of the one table that the program itself uses (`bus/topics.py`, `bus/messages.py`).
[asyncapi.json](asyncapi.json) says the same as an AsyncAPI 3.0 document, for generators and viewers. On a terminal:

    roadside topics
    roadside topics --asyncapi asyncapi.json

Every message is one MessagePack map, an `Envelope` around one of the messages below, so that any program with an MQTT
client and MessagePack takes part ([examples/subscribe.py](../examples/subscribe.py)). Unknown keys, keys that stand
twice, NaN, and whatever lies out of bounds are refused. The sender's name stands in the address; an envelope that names
another sender is refused, and a broker's access rules can hold it.

## Topics

All addresses begin with `{PREFIX}/{{fleet}}/`. A receiver whose queue is full drops the oldest message or refuses
the newest one, and then answers it (a task becomes a `Rejected`).
"""

_CONFIGURATION_HEAD = f"""{_MADE}

# Configuration

A process takes flags or a TOML file with these keys (`--config FILE`); flags and environment win over the file. In a
fleet's file they stand in the table of the member, and those of `[defaults]` hold for every member that knows the key
([running a fleet](running-a-fleet.md)). `roadside check FILE` finds what is wrong in either. Whatever is not named
here is refused. Where the default is empty ("none" in the type), the key is left out.

    roadside check edge-1.toml
    roadside edge --config edge-1.toml
"""


@dataclass(frozen=True)
class Section:
    """One table of configuration.md. own: leave out what the section's base has."""

    heading: str
    kind: type[Struct]
    base: type[Struct] | None
    lead: str


_SECTIONS = (
    Section("Every process", MemberConfiguration, None, "`name` has a default for each role."),
    Section("Edges and clouds", NodeConfiguration, MemberConfiguration, "Besides the keys of every process:"),
    Section("Vehicle", VehicleConfiguration, MemberConfiguration, "`[[vehicle]]`, besides the keys of every process:"),
    Section("Edge", EdgeConfiguration, NodeConfiguration, "`[[edge]]`, besides the keys of edges and clouds:"),
    Section("Cloud", CloudConfiguration, NodeConfiguration, "`[[cloud]]`, besides the keys of edges and clouds:"),
    Section("Learner", LearnerConfiguration, MemberConfiguration, "`[[learner]]`, besides the keys of every process:"),
    Section("Recorder", RecorderConfiguration, MemberConfiguration, "`[recorder]`, besides the keys of every process:"),
)


def topics_page() -> str:
    return "\n".join((_TOPICS_HEAD, *_topics_table(), "", "## Messages", "", *_messages()))


def configuration_page() -> str:
    lines = [_CONFIGURATION_HEAD]
    for section in _SECTIONS:
        inherited = {} if section.base is None else {field.name: field for field in described_fields(section.base)}
        own = [field for field in described_fields(section.kind) if inherited.get(field.name) != field]
        lines += [f"## {section.heading}", "", section.lead, "", *_fields_table("key", own), ""]
    lines += [
        "## Task kinds",
        "",
        "What a vehicle asks (`bus/kinds.py`); not configurable, since models learn them.",
        "",
    ]
    lines += ["| kind | prompt | deadline | quality floor |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {kind.prompt} | {kind.deadline_ms:,.0f} ms | {kind.qos_floor} |" for name, kind in KINDS.items()
    ]
    return "\n".join(lines) + "\n"


def _topics_table() -> Iterator[str]:
    yield "| topic | address | messages | QoS | queue full |"
    yield "|---|---|---|---|---|"
    for topic in TOPICS:
        address = topic.pattern.replace(f"{{{topic.sender}}}", f"{{{topic.sender}: sender}}")
        bodies = ", ".join(_link(body.__name__) for body in topic.bodies)
        qos = f"{topic.qos}, retained" if topic.retained else topic.qos
        yield f"| **{topic.name}**: {topic.about} | `{address}` | {bodies} | {qos} | {topic.overflow} |"


def _shown() -> dict[str, type[Struct]]:
    """The structs that the page explains, by name: the envelope, what travels in it, and what that is made of."""
    sent = dict.fromkeys(body for topic in TOPICS for body in topic.bodies)
    return {each.__name__: each for each in (messages.Envelope, *sent, *messages.Part.__subclasses__(), TensorPayload)}


def _messages() -> Iterator[str]:
    for struct in _shown().values():
        fields = described_fields(struct)
        yield f"### {struct.__name__}"
        yield ""
        yield summary(struct)
        yield ""
        if fields:
            yield from _fields_table("field", fields)
            yield ""


def _fields_table(first: str, fields: list[DescribedField] | tuple[DescribedField, ...]) -> Iterator[str]:
    yield f"| {first} | type | default | |"
    yield "|---|---|---|---|"
    for field in fields:
        default = "required" if field.default is None else "" if field.default == "none" else f"`{field.default}`"
        name = "".join(takewhile(lambda letter: letter != "[", field.type.split(" ")[0]))
        kind = field.type.replace(name, _link(name), 1) if name in _shown() else field.type
        unit = f", in {field.unit}" if field.unit else ""
        yield f"| `{field.name}` | {_cell(kind)}{unit} | {default} | {_cell(field.about)} |"


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("None", "none")


def main() -> int:
    pages = {
        "topics.md": topics_page(),
        "configuration.md": configuration_page(),
        "asyncapi.json": json.dumps(asyncapi_document(), indent=2) + "\n",
    }
    stale = [name for name, text in pages.items() if not _holds(HERE / name, text)]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/{name} is not what the program says now: `make reference` writes it anew")
        return 1 if stale else 0
    for name in stale:
        (HERE / name).write_text(pages[name], encoding="utf-8")
        print(f"docs/{name}")
    return 0


def _holds(file: Path, text: str) -> bool:
    return file.exists() and file.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
