"""What is asked of a model and what it says, the same for every place and mode. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..bus.places import Place


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one moment of a drive.

    frames: JPEG or PNG images, oldest first; the newest one is looked at.
    telemetry: COVESA VSS names to values; what is missing is told to the model as missing.
    exit_thresholds: confidence at which each early exit may speak, shallowest first; empty: the model's own.
    """

    prompt: str
    frames: tuple[bytes, ...]
    telemetry: dict[str, float] = field(default_factory=dict)
    max_tokens: int = 32
    exit_thresholds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    tokens: what the model said, the closing end-of-answer token included where it came.
    made_by: for each of those tokens who made it: "exit1", "exit2" or "full".
    confidence: mean over the tokens of the speaker's largest softmax probability.
    vision_ms: from the image file to the prompt's embeddings; decode_ms: from there to the last token.
    cancelled: whether it breaks off because the caller stopped waiting.
    """

    text: str
    tokens: tuple[int, ...]
    made_by: tuple[str, ...]
    confidence: float
    vision_ms: float
    decode_ms: float
    cancelled: bool = False


class Answerer(Protocol):
    """A loaded model that answers questions at one place. `answer` blocks and belongs on a worker thread.

    model_hash: digest of the model's files, so that runs can be told apart; empty for a hub model without a commit.
    quality: success rate by task kind on held-out scenes, from the model's card; empty where nobody measured it.
    """

    place: Place
    mode: str
    model: str
    model_hash: str
    quality: dict[str, float]

    def answer(self, question: Question, cancelled: Callable[[], bool] = ...) -> Answer:
        """Answer greedily, asking `cancelled()` before every token. Raises MessageRefused for an unusable image."""
        ...


def never() -> bool:
    """The `cancelled` of a caller who always waits."""
    return False
