"""Answerers: a loaded, checked model, and how it decodes at each of its places."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..bus.errors import ModelError, SplitError
from ..bus.kinds import EXPLAIN
from ..bus.places import Place
from . import checkpoints
from .decoding import Generation, Limits, Steps
from .exits import thresholds_for
from .images import colour_card_jpeg
from .modes import ce, full, standalone
from .modes.sharing import Sharing
from .partitions import EdgePartition, EncodedPrompt, WholeModel
from .prompt_encoder import PromptEncoder, PromptReader
from .questions import Answer, Question, answer_at_once, own_place
from .self_check import self_check
from .stages import SplitDecoder, split_decoder
from .unsplit import ProcessedPrompt, UnsplitModel


def edge_answerer(model: str | None = None, *, collaborate: bool = True, draft: bool = True) -> EdgeAnswerer:
    """The edge partition: vision, and the layers up to the second exit. Raises ModelError or SplitError.

    collaborate: offer `edge+cloud` besides `edge`; draft: tell there what the edge would say alone.
    """
    checkpoint, reader, encoder, split = _load_and_check(model)
    places: tuple[Place, ...] = ("edge", "edge+cloud") if collaborate else ("edge",)
    return EdgeAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality=_quality(checkpoint, places),
        reader=reader,
        encoder=encoder,
        partition=EdgePartition(encoder, split.first, split.second, checkpoint.exits),
        modes={place: _EDGE_MODES[place] for place in places},
        draft=draft,
    )


def cloud_answerer(model: str | None = None) -> CloudAnswerer:
    """The whole model, cut as edges need it. Raises ModelError or SplitError."""
    return _cloud_answerer(*_load_and_check(model))


def any_cloud_answerer(model: str | None = None) -> CloudAnswerer | UnsplitAnswerer:
    """The whole model; one that cannot be split is left in one piece. Raises ModelError."""
    checkpoint, reader = _load(model)
    try:
        return _cloud_answerer(checkpoint, reader, *checked_split(checkpoint, reader))
    except SplitError as refusal:
        answerer = UnsplitAnswerer(
            model=checkpoint.name,
            model_hash=checkpoint.digest,
            quality=_quality(checkpoint, ("cloud",)),
            reader=reader,
            whole=UnsplitModel(checkpoint.model),
            refusal=str(refusal),
        )
    with _named_failures(checkpoint):
        answer_at_once(answerer, replace(_check_question(), max_tokens=1))
    return answerer


def vehicle_answerer(model: str | None = None) -> EdgeAnswerer | CloudAnswerer | UnsplitAnswerer:
    """A vehicle's own model: with its early exits, or whole where it cannot be split. Raises ModelError."""
    try:
        answerer = edge_answerer(model, collaborate=False)
    except SplitError:
        answerer = any_cloud_answerer(model)
    place = own_place(answerer)
    return replace(answerer, modes={"vehicle": answerer.modes[place]}, quality={"vehicle": answerer.quality[place]})


def _cloud_answerer(
    checkpoint: checkpoints.Checkpoint, reader: PromptReader, encoder: PromptEncoder, split: SplitDecoder
) -> CloudAnswerer:
    return CloudAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality=_quality(checkpoint, ("cloud",)),
        reader=reader,
        encoder=encoder,
        whole=WholeModel(encoder, split.first, split.rest, split.head),
    )


_EDGE_MODES: dict[Place, str] = {"edge": "standalone", "edge+cloud": "ce"}


@dataclass(kw_only=True)
class ModelAnswerer:
    """What every place has; see `Answerer`."""

    model: str
    model_hash: str
    quality: dict[Place, dict[str, float]]
    modes: dict[Place, str]
    reader: PromptReader

    def begin(self, question: Question, place: Place) -> Steps[Answer]:
        started_s = time.perf_counter()
        prompt = self.encode(question)
        prompt.inputs()
        encoded_s = time.perf_counter()
        generation = yield from self.decode(question, place, prompt)
        return Answer(
            text=self.words(tuple(generation.tokens)),
            tokens=tuple(generation.tokens),
            made_by=tuple(generation.made_by),
            confidence=generation.mean_confidence,
            vision_ms=(encoded_s - started_s) * 1000,
            decode_ms=(time.perf_counter() - encoded_s) * 1000,
        )

    def words(self, tokens: tuple[int, ...]) -> str:
        return self.reader.words(list(tokens))

    def encode(self, question: Question) -> Any:
        """What the modes begin with: a `Prompt`."""
        raise NotImplementedError

    def decode(self, question: Question, place: Place, prompt: Any) -> Steps[Generation]:
        """The mode of a place, from the encoded prompt on."""
        raise NotImplementedError

    def _limits(self, question: Question, thresholds: tuple[float, ...] = ()) -> Limits:
        return Limits(question.max_tokens, self.reader.end_token, thresholds)


@dataclass(kw_only=True)
class SplitAnswerer(ModelAnswerer):
    """Encodes prompts apart from the decoder."""

    encoder: PromptEncoder

    def encode(self, question: Question) -> EncodedPrompt:
        return EncodedPrompt(self.encoder, self.reader.read(question))


@dataclass(kw_only=True)
class EdgeAnswerer(SplitAnswerer):
    """Answers with the early exits, and at `edge+cloud` asks a cloud for what neither of them is sure of."""

    partition: EdgePartition
    draft: bool = True

    def decode(self, question: Question, place: Place, prompt: EncodedPrompt) -> Steps[Generation]:
        limits = self._limits(question, thresholds_for(question.exit_thresholds, self.partition.exits))
        if place == "edge+cloud":
            return ce.decode(self.partition, prompt, limits, Sharing(draft=self.draft))
        return standalone.decode(self.partition, prompt, limits)


@dataclass(kw_only=True)
class CloudAnswerer(SplitAnswerer):
    """Answers with every layer."""

    whole: WholeModel
    modes: dict[Place, str] = field(default_factory=lambda: {"cloud": "full"})

    def decode(self, question: Question, place: Place, prompt: EncodedPrompt) -> Steps[Generation]:
        del place  # there is only one
        return full.decode(self.whole, prompt, self._limits(question))


@dataclass(kw_only=True)
class UnsplitAnswerer(ModelAnswerer):
    """Answers with every layer of a model in one piece. refusal: why it is not split."""

    whole: UnsplitModel
    refusal: str
    modes: dict[Place, str] = field(default_factory=lambda: {"cloud": "full"})

    def encode(self, question: Question) -> ProcessedPrompt:
        return ProcessedPrompt(self.reader.read(question))

    def decode(self, question: Question, place: Place, prompt: ProcessedPrompt) -> Steps[Generation]:
        del place  # there is only one
        return full.decode(self.whole, prompt, self._limits(question))


def _quality(checkpoint: checkpoints.Checkpoint, places: tuple[Place, ...]) -> dict[Place, dict[str, float]]:
    """By place. Together edge and cloud are at least as good as the edge, for a card that says no more."""
    known: dict[Place, dict[str, float]] = {place: checkpoint.quality(place) for place in places}
    if "edge+cloud" in known:
        known["edge+cloud"] = known["edge+cloud"] or known["edge"]
    return known


def _load_and_check(model: str | None) -> tuple[checkpoints.Checkpoint, PromptReader, PromptEncoder, SplitDecoder]:
    checkpoint, reader = _load(model)
    return checkpoint, reader, *checked_split(checkpoint, reader)


def _load(model: str | None) -> tuple[checkpoints.Checkpoint, PromptReader]:
    # A second thread makes each token of so small a model dearer, and on a busy machine several times so.
    torch.set_num_threads(1)
    checkpoint = checkpoints.load(model)
    with _named_failures(checkpoint):
        return checkpoint, PromptReader(checkpoint.processor)


def checked_split(checkpoint: checkpoints.Checkpoint, reader: PromptReader) -> tuple[PromptEncoder, SplitDecoder]:
    """A model's parts, proven to do what the whole does. Raises ModelError or SplitError."""
    with _named_failures(checkpoint):
        encoder = PromptEncoder(checkpoint.model)
        split = split_decoder(checkpoint.model, checkpoint.exits.layers)
        self_check(checkpoint.model, encoder, split, reader.read(_check_question()))
    return encoder, split


def _check_question() -> Question:
    return Question(EXPLAIN.prompt, (colour_card_jpeg(),))


@contextmanager
def _named_failures(checkpoint: checkpoints.Checkpoint) -> Iterator[None]:
    """Models of other makes, and folders with parts missing, fail in the library in ways of their own."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model {checkpoint.name} cannot answer a question with an image ({checkpoints.reason(error)}); "
            "restore its files or use the bundled model"
        ) from error
