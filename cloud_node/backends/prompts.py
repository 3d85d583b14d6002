"""What a large model is told and asked, as chat messages.

The user's turn is a picture and then "speed 12 accel -1.0 course 3 what is the car doing and why ?", which is word for
word what this project's own models are trained on (models/prompt_encoder.py): a model that `roadside fine-tune` made
and another server serves meets what it knows. What the line means stands in the instructions, for all other models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...bus.kinds import TaskKind
from ...datasets.bddx import Segment
from ...datasets.keywords import without_connective
from ...datasets.phrases import telemetry_text
from .examples import Example
from .pictures import data_url

INSTRUCTIONS = """\
You are the co-pilot of a car. Each message shows what the car's front camera sees, then gives the car's speed in m/s, \
its acceleration (accel) in m/s2 and its turn (course) in degrees per second, positive to the right, a question mark \
for what is not known, and then asks one question.
Answer in one short sentence of plain text that says only what picture and numbers show.
Asked what the driver must react to, name that alone: "a pedestrian is crossing from the left ."
Asked what the car is doing and why, say both: "the car slows down because the light ahead is red ."
Asked to describe the scene, say first the time of day and the weather, then what the car is doing and why."""

Message = dict[str, Any]

_CONNECTED = re.compile(r"(because|since|as|due|so|for|to|in order)\b")


def chat(
    instructions: str,
    examples: Sequence[Example],
    kind: TaskKind,
    prompt: str,
    picture: bytes,
    telemetry: Mapping[str, float],
) -> list[Message]:
    """The messages of one question. instructions: may be empty. picture: a JPEG or PNG file."""
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for example in examples:
        messages.append(_asked(example.picture_url, example.telemetry, kind.prompt))
        messages.append({"role": "assistant", "content": example_answer(kind, example.segment)})
    messages.append(_asked(data_url(picture), telemetry, prompt))
    return messages


def without_pictures(messages: Sequence[Message]) -> list[Message]:
    """The same messages with their words alone."""

    def words(content: Any) -> Any:
        return content if isinstance(content, str) else [part for part in content if part["type"] == "text"]

    return [{**message, "content": words(message["content"])} for message in messages]


def example_answer(kind: TaskKind, segment: Segment) -> str:
    """How an annotation would answer a question of this kind; what it does not know of the scene stays unsaid."""
    action, reason = _clause(segment.action), _clause(segment.justification)
    if "action" not in kind.asks_for:
        return f"{without_connective(reason)} ."
    return f"{action} {reason} ." if _CONNECTED.match(reason) else f"{action} because {reason} ."


def _clause(text: str) -> str:
    return " ".join(text.split()).rstrip(" .").lower()


def _asked(picture_url: str, telemetry: Mapping[str, float], prompt: str) -> Message:
    return {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": picture_url}},
            {"type": "text", "text": f"{telemetry_text(telemetry)} {prompt}"},
        ],
    }
