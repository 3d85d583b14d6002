"""Answerers: a loaded, checked model, and how it decodes at each of its places."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from ..bus.errors import SplitError
from ..bus.places import Place
from . import checkpoints
from .circumstances import UNKNOWN, Circumstances
from .collaboration import Collaboration
from .decoding import Chose, Generation, Limits, Steps
from .exits import thresholds_for
from .loading import EdgeParts, check_question, checked_split, load_edge, load_part, named_failures
from .mode_planner import Cut, ModePlanner
from .modes import full
from .modes.registry import MODES
from .modes.sharing import BY_DEFAULT
from .partitions import EdgePartition, EncodedPrompt, WholeModel
from .prompt_encoder import PromptEncoder, PromptReader
from .questions import Answer, Question, answer_at_once, own_place
from .stages import SplitDecoder, decoder_of
from .unsplit import ProcessedPrompt, UnsplitModel

BY_CE = Collaboration()
ALONE = Collaboration(mode="standalone")


def edge_answerer(model: str | None = None, *, collaboration: Collaboration = BY_CE) -> EdgeAnswerer:
    """The edge partition: vision, and the layers up to the second exit. Raises ModelError or SplitError.

    collaboration: how it answers at `edge+cloud`; in mode "standalone" it does not.
    """
    return edge_answerer_of(load_edge(model), collaboration)


def edge_answerer_of(parts: EdgeParts, collaboration: Collaboration) -> EdgeAnswerer:
    """From parts that are loaded and proven."""
    checkpoint = parts.checkpoint
    modes: dict[Place, str] = {"edge": "standalone"}
    if collaboration.mode != "standalone":
        modes["edge+cloud"] = collaboration.mode
    cut = Cut(
        first_exit=parts.first.end_layer,
        second_exit=parts.second.end_layer,
        layers=decoder_of(checkpoint.model).config.num_hidden_layers,
        hidden_size=parts.first.hidden_size,
    )
    return EdgeAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality=_quality(checkpoint, tuple(modes)),
        reader=parts.reader,
        encoder=parts.encoder,
        partition=EdgePartition(parts.encoder, parts.first, parts.second, checkpoint.exits),
        modes=modes,
        planner=ModePlanner(collaboration, cut),
    )


def cloud_answerer(model: str | None = None) -> CloudAnswerer:
    """The whole model, cut as edges need it. Raises ModelError or SplitError."""
    checkpoint, reader = load_part(model, "cloud")
    return cloud_answerer_of(checkpoint, reader, *checked_split(checkpoint, reader))


def any_cloud_answerer(model: str | None = None) -> CloudAnswerer | UnsplitAnswerer:
    """The whole model; one that cannot be split is left in one piece. Raises ModelError."""
    checkpoint, reader = load_part(model, "cloud")
    try:
        return cloud_answerer_of(checkpoint, reader, *checked_split(checkpoint, reader))
    except SplitError as refusal:
        answerer = UnsplitAnswerer(
            model=checkpoint.name,
            model_hash=checkpoint.digest,
            quality=_quality(checkpoint, ("cloud",)),
            reader=reader,
            whole=UnsplitModel(checkpoint.model),
            refusal=str(refusal),
        )
    with named_failures(checkpoint):
        answer_at_once(answerer, replace(check_question(), max_tokens=1))
    return answerer


def vehicle_answerer(model: str | None = None) -> EdgeAnswerer | CloudAnswerer | UnsplitAnswerer:
    """A vehicle's own model: with its early exits, or whole where it cannot be split. Raises ModelError."""
    try:
        answerer = edge_answerer(model, collaboration=ALONE)
    except SplitError:
        answerer = any_cloud_answerer(model)
    place = own_place(answerer)
    return replace(answerer, modes={"vehicle": answerer.modes[place]}, quality={"vehicle": answerer.quality[place]})


def cloud_answerer_of(
    checkpoint: checkpoints.Checkpoint, reader: PromptReader, encoder: PromptEncoder, split: SplitDecoder
) -> CloudAnswerer:
    """From parts that are loaded and proven."""
    return CloudAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality=_quality(checkpoint, ("cloud",)),
        reader=reader,
        encoder=encoder,
        whole=WholeModel(encoder, split.first, split.rest, split.head),
    )


@dataclass(kw_only=True)
class ModelAnswerer:
    """What every place has; see `Answerer`."""

    model: str
    model_hash: str
    quality: dict[Place, dict[str, float]]
    modes: dict[Place, str]
    reader: PromptReader

    def begin(self, question: Question, place: Place, circumstances: Circumstances = UNKNOWN) -> Steps[Answer]:
        started_s = time.perf_counter()
        prompt = self.encode(question)
        read_s = time.perf_counter()
        generation = yield from self.decode(question, place, prompt, circumstances)
        decoded_s = time.perf_counter()
        encode_ms = prompt.encode_ms or 0.0
        return Answer(
            text=self.words(tuple(generation.tokens)),
            tokens=tuple(generation.tokens),
            made_by=tuple(generation.made_by),
            confidence=generation.mean_confidence,
            vision_ms=(read_s - started_s) * 1000 + encode_ms,
            decode_ms=(decoded_s - read_s) * 1000 - encode_ms,
        )

    def words(self, tokens: tuple[int, ...]) -> str:
        return self.reader.words(list(tokens))

    def encode(self, question: Question) -> Any:
        """What the modes begin with: a `Prompt`."""
        raise NotImplementedError

    def decode(
        self, question: Question, place: Place, prompt: Any, circumstances: Circumstances = UNKNOWN
    ) -> Steps[Generation]:
        """The mode of a place, from the prompt on."""
        raise NotImplementedError

    def _limits(self, question: Question, thresholds: tuple[float, ...] = ()) -> Limits:
        return Limits(question.max_tokens, self.reader.end_token, thresholds, question.sampling)


@dataclass(kw_only=True)
class SplitAnswerer(ModelAnswerer):
    """Encodes prompts apart from the decoder."""

    encoder: PromptEncoder

    def encode(self, question: Question) -> EncodedPrompt:
        return EncodedPrompt(self.encoder, self.reader.read(question))


@dataclass(kw_only=True)
class EdgeAnswerer(SplitAnswerer):
    """Answers with the early exits, and at `edge+cloud` together with a cloud. planner: how, there."""

    partition: EdgePartition
    planner: ModePlanner

    def decode(
        self, question: Question, place: Place, prompt: EncodedPrompt, circumstances: Circumstances = UNKNOWN
    ) -> Steps[Generation]:
        limits = self._limits(question, thresholds_for(question.exit_thresholds, self.partition.exits))
        name, sharing = "standalone", BY_DEFAULT
        if place == "edge+cloud":
            name, sharing = self.planner.plan(question, prompt.positions, circumstances)
            yield Chose(name)
        decode = MODES[name].decode
        return (
            yield from self.planner.measurements.watch(
                self.partition, prompt, lambda edge: decode(edge, prompt, limits, sharing)
            )
        )


@dataclass(kw_only=True)
class CloudAnswerer(SplitAnswerer):
    """Answers with every layer."""

    whole: WholeModel
    modes: dict[Place, str] = field(default_factory=lambda: {"cloud": "full"})

    def decode(
        self, question: Question, place: Place, prompt: EncodedPrompt, circumstances: Circumstances = UNKNOWN
    ) -> Steps[Generation]:
        del place, circumstances  # there is only one way
        return full.decode(self.whole, prompt, self._limits(question))


@dataclass(kw_only=True)
class UnsplitAnswerer(ModelAnswerer):
    """Answers with every layer of a model in one piece. refusal: why it is not split."""

    whole: UnsplitModel
    refusal: str
    modes: dict[Place, str] = field(default_factory=lambda: {"cloud": "full"})

    def encode(self, question: Question) -> ProcessedPrompt:
        return ProcessedPrompt(self.reader.read(question))

    def decode(
        self, question: Question, place: Place, prompt: ProcessedPrompt, circumstances: Circumstances = UNKNOWN
    ) -> Steps[Generation]:
        del place, circumstances  # there is only one way
        return full.decode(self.whole, prompt, self._limits(question))


def _quality(checkpoint: checkpoints.Checkpoint, places: tuple[Place, ...]) -> dict[Place, dict[str, float]]:
    """By place. Together edge and cloud are at least as good as the edge, for a card that says no more."""
    known: dict[Place, dict[str, float]] = {place: checkpoint.quality(place) for place in places}
    if "edge+cloud" in known:
        known["edge+cloud"] = known["edge+cloud"] or known["edge"]
    return known
