"""One question about one image file, without a broker: what `roadside ask` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bus.errors import ConfigurationError, MessageRefused
from ..bus.kinds import EXPLAIN
from .answering import any_cloud_answerer, edge_answerer
from .questions import Question, answer_at_once, own_place

# Whatever is asked, an answer is a sentence or two.
_MAX_TOKENS = 64
_ANSWERERS = {"edge": edge_answerer, "cloud": any_cloud_answerer}


def ask_once(
    image: Path, prompt: str | None, *, place: str, model: str | None, telemetry: Sequence[str]
) -> dict[str, Any]:
    """Answer as plain values, ready for JSON. telemetry: "NAME=VALUE" each.

    Raises ConfigurationError for an unusable place, signal or image, ModelError for an unusable model.
    """
    if place not in _ANSWERERS:
        raise ConfigurationError(f"no model answers at {place!r}; give --place {' or '.join(_ANSWERERS)}")
    signals = dict(_signal(words) for words in telemetry)
    try:
        frame = image.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {image} ({error.strerror}); give a JPEG or PNG file") from None
    answerer = _ANSWERERS[place](model)
    try:
        answer = answer_at_once(answerer, Question(prompt or EXPLAIN.prompt, (frame,), signals, max_tokens=_MAX_TOKENS))
    except MessageRefused as refusal:
        raise ConfigurationError(f"{image} is not an image that can be asked about ({refusal})") from None
    return {
        "text": answer.text,
        "place": place,
        "mode": answerer.modes[own_place(answerer)],
        "model": answerer.model,
        "model_hash": answerer.model_hash,
        "tokens": len(answer.tokens),
        "made_by": dict(Counter(answer.made_by)),
        "confidence": answer.confidence,
        "vision_ms": answer.vision_ms,
        "decode_ms": answer.decode_ms,
    }


def _signal(words: str) -> tuple[str, float]:
    name, separator, value = words.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        missing = "" if separator else " (there is no '=')"
        raise ConfigurationError(
            f"cannot read the signal {words!r}{missing}; write NAME=NUMBER, e.g. Vehicle.Speed=36"
        ) from None
