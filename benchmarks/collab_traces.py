"""Decoding traces: for each scene, what the model's exits and its last layer say after whatever was said before.

A trace is a table by the tokens said so far. What is not in it yet is asked of the model, once: a bench that replays
the same scenes on many links and in many modes computes hardly more than one answer for each of them. Traces are kept
in the user's cache folder, by the digest of the model, so that the next bench computes nothing at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from ..bus.kinds import EXPLAIN
from ..bus.tensors import TensorType
from ..datasets.captions import Caption
from ..datasets.evaluation_scenes import EvaluationScene
from ..datasets.phrases import telemetry_text
from ..datasets.references import Reference
from ..models.partitions import EncodedPrompt
from ..models.questions import Question
from .collab_edge import Tokens, Vote
from .collab_model import TracingModel, Walk

# Changes whenever the file or what is meant by it does.
_FORMAT = 1


class SceneTrace(Struct):
    """question: digest of all that was asked. positions: of the prompt; prompt_bytes: of its image and its words."""

    question: bytes
    positions: int
    prompt_bytes: int
    exits: dict[Tokens, tuple[Vote, Vote]] = msgspec.field(default_factory=dict)
    ends: dict[TensorType, dict[Tokens, Vote]] = msgspec.field(default_factory=dict)


class _File(Struct):
    format: int
    model: str
    scenes: dict[str, SceneTrace]


@dataclass(eq=False)
class TracedScene:
    """One question and its trace; a `Recording`.

    reference: what is true of the scene. grown: whether the model had to be asked since the trace was loaded.
    """

    reference: Reference
    question: Question
    trace: SceneTrace
    model: TracingModel
    grown: bool = False
    _prompt: EncodedPrompt | None = None
    _walk: Walk | None = None

    @property
    def positions(self) -> int:
        return self.trace.positions

    @property
    def prompt_bytes(self) -> int:
        return self.trace.prompt_bytes

    @property
    def end_token(self) -> int:
        return self.model.end_token

    def at_exits(self, tokens: Tokens, /) -> tuple[Vote, Vote]:
        if (votes := self.trace.exits.get(tokens)) is None:
            votes = self.trace.exits[tokens] = self._walking().at_exits(tokens)
        return votes

    def at_end(self, tokens: Tokens, context: TensorType = "float32", /) -> Vote:
        of_context = self.trace.ends.setdefault(context, {})
        if (vote := of_context.get(tokens)) is None:
            vote = of_context[tokens] = self._walking().at_end(tokens, context)
        return vote

    def caption(self, tokens: Tokens) -> Caption:
        return Caption.of_answer(self.model.words(tokens))

    def rest(self) -> None:
        """Give back the memory that walking takes; the next question of the model takes it again."""
        self._walk = None

    def _walking(self) -> Walk:
        self.grown = True
        if self._prompt is None:
            self._prompt = self.model.prompt(self.question)
        if self._walk is None:
            self._walk = self.model.walk(self._prompt)
        return self._walk


class TraceLibrary:
    """The traces of one model, on disk between benches. path: the file; by default in the user's cache folder."""

    def __init__(self, model: TracingModel, path: Path | None = None) -> None:
        self.model = model
        self.path = path or cache_folder() / f"decoding-traces-{model.digest[:16]}.msgpack"
        self._traces = self._read()

    def scenes(self, scenes: Iterable[EvaluationScene]) -> Iterator[TracedScene]:
        """Scenes with what is known of them; what was traced of another question under the same name is forgotten."""
        for scene in scenes:
            reference = scene.reference
            telemetry = dict(reference.telemetry)
            question = Question(EXPLAIN.prompt, (scene.jpeg,), telemetry, max_tokens=EXPLAIN.max_tokens)
            digest = _digest(question)
            trace, prompt = self._traces.get(reference.id), None
            if trace is None or trace.question != digest:
                prompt = self.model.prompt(question)
                trace = SceneTrace(digest, prompt.positions, prompt_bytes(question))
                self._traces[reference.id] = trace
            yield TracedScene(reference, question, trace, self.model, _prompt=prompt)

    def save(self) -> None:
        """Keep everything for the next bench; a disk that is full or read-only costs that one some minutes more."""
        content = msgspec.msgpack.encode(_File(_FORMAT, self.model.digest, self._traces))
        draft = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            draft.replace(self.path)
        except OSError:
            draft.unlink(missing_ok=True)

    def _read(self) -> dict[str, SceneTrace]:
        try:
            file = msgspec.msgpack.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError):
            # It was never written, or half; or another version did.
            return {}
        return file.scenes if (file.format, file.model) == (_FORMAT, self.model.digest) else {}


def cache_folder() -> Path:
    """Where this user keeps what can be made again: XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadside"


def prompt_bytes(question: Question) -> int:
    """What a question takes on the wire, without framing: its images and its words."""
    telemetry = telemetry_text(question.telemetry)
    return sum(map(len, question.frames)) + len(question.prompt.encode()) + len(telemetry.encode())


def _digest(question: Question) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (*question.frames, question.prompt.encode(), telemetry_text(question.telemetry).encode()):
        digest.update(len(part).to_bytes(8) + part)
    return digest.digest()
