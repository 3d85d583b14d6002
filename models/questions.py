"""What is asked of a model and what it says, the same for every place and mode. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..bus.places import Place
from .circumstances import UNKNOWN, Circumstances
from .decoding import Steps, to_the_end
from .sampling import Sampling

# The newest, and the one that may settle what it leaves open.
MOST_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one moment of a drive.

    frames: JPEG or PNG images, oldest first, about a second apart; the newest `MOST_FRAMES` are looked at.
    telemetry: COVESA VSS names to values; what is missing is told to the model as missing.
    exit_thresholds: confidence at which each early exit may speak, shallowest first; empty: the model's own.
    sampling: None: each token is the most likely one.
    """

    prompt: str
    frames: tuple[bytes, ...]
    telemetry: dict[str, float] = field(default_factory=dict)
    max_tokens: int = 32
    exit_thresholds: tuple[float, ...] = ()
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    tokens: what the model said, the closing end-of-answer token included where it came.
    made_by: for each of those tokens who made it: "exit1", "exit2" or "full".
    confidence: mean over the tokens of the speaker's largest softmax probability.
    vision_ms: from the image file to the prompt's embeddings; decode_ms: from there to the last token;
        both with the pauses that a node made in between.
    """

    text: str
    tokens: tuple[int, ...]
    made_by: tuple[str, ...]
    confidence: float
    vision_ms: float
    decode_ms: float


class Answerer(Protocol):
    """A loaded model with a way to decode at each of its places.

    model_hash: digest of the model's files, so that runs can be told apart; empty for a hub model without a commit.
    modes: the decoding mode by place, the place that needs nobody else first; "auto": one is chosen for each question.
    quality: success rate by place and task kind on held-out scenes, from the model's card; empty where nobody
        measured it.
    """

    model: str
    model_hash: str
    modes: dict[Place, str]
    quality: dict[Place, dict[str, float]]

    def begin(self, question: Question, place: Place, circumstances: Circumstances = UNKNOWN) -> Steps[Answer]:
        """The steps to an answer, from decoding the image on; they block and belong on a worker thread.

        They raise MessageRefused for an image, a prompt or thresholds that cannot be used.
        """
        ...

    def words(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, without control tokens."""
        ...


def answer_at_once(answerer: Answerer, question: Question, place: Place | None = None) -> Answer:
    """Answer at once, by default at the answerer's own place. Blocking."""
    return to_the_end(answerer.begin(question, place or own_place(answerer)))


def own_place(answerer: Answerer) -> Place:
    """Where the answerer needs nobody else."""
    return next(iter(answerer.modes))
