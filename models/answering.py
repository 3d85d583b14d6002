"""Answerers: a loaded, checked model at one place, with one decoding mode."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..bus.errors import ModelError
from ..bus.kinds import EXPLAIN
from ..bus.places import Place
from . import checkpoints
from .exits import Exits, thresholds_for
from .images import colour_card_jpeg
from .modes import full, standalone
from .modes.generation import Generation
from .prompt_encoder import PromptEncoder, PromptReader
from .questions import Answer, Answerer, Question, never
from .self_check import self_check
from .stages import SplitDecoder, Stage, split_decoder

__all__ = ["Answer", "Answerer", "Question", "cloud_answerer", "edge_answerer"]


def edge_answerer(model: str | None = None) -> Answerer:
    """The edge partition: vision, and the layers up to the second exit. Raises ModelError or SplitError."""
    checkpoint, front, split = _load_and_check(model)
    return EdgeAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality=checkpoint.quality("edge"),
        front=front,
        first=split.first,
        second=split.second,
        exits=checkpoint.exits,
    )


def cloud_answerer(model: str | None = None) -> Answerer:
    """The whole model. Raises ModelError or SplitError."""
    checkpoint, front, split = _load_and_check(model)
    return CloudAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality=checkpoint.quality("cloud"),
        front=front,
        first=split.first,
        rest=split.rest,
        head=split.head,
    )


@dataclass(frozen=True)
class Front:
    """What every place has: from a question to the prompt's embeddings."""

    reader: PromptReader
    encoder: PromptEncoder


@dataclass
class EdgeAnswerer:
    """Answers with the early exits alone; see `Answerer`."""

    model: str
    model_hash: str
    quality: dict[str, float]
    front: Front
    first: Stage
    second: Stage
    exits: Exits
    place: Place = "edge"
    mode: str = "standalone"

    def answer(self, question: Question, cancelled: Callable[[], bool] = never) -> Answer:
        thresholds = thresholds_for(question.exit_thresholds, self.exits)

        def decode(prompt: torch.Tensor) -> Generation:
            return standalone.generate(
                self.front.encoder,
                self.first,
                self.second,
                self.exits,
                prompt,
                thresholds=thresholds,
                max_tokens=question.max_tokens,
                end_token=self.front.reader.end_token,
                cancelled=cancelled,
            )

        return _timed_answer(self.front, question, decode)


@dataclass
class CloudAnswerer:
    """Answers with every layer; see `Answerer`."""

    model: str
    model_hash: str
    quality: dict[str, float]
    front: Front
    first: Stage
    rest: Stage
    head: nn.Module
    place: Place = "cloud"
    mode: str = "full"

    def answer(self, question: Question, cancelled: Callable[[], bool] = never) -> Answer:
        def decode(prompt: torch.Tensor) -> Generation:
            return full.generate(
                self.front.encoder,
                self.first,
                self.rest,
                self.head,
                prompt,
                max_tokens=question.max_tokens,
                end_token=self.front.reader.end_token,
                cancelled=cancelled,
            )

        return _timed_answer(self.front, question, decode)


def _load_and_check(model: str | None) -> tuple[checkpoints.Checkpoint, Front, SplitDecoder]:
    # A second thread makes each token of so small a model dearer, and on a busy machine several times so.
    torch.set_num_threads(1)
    checkpoint = checkpoints.load(model)
    try:
        front = Front(PromptReader(checkpoint.processor), PromptEncoder(checkpoint.model))
        split = split_decoder(checkpoint.model, checkpoint.exits.layers)
        inputs = front.reader.read(Question(EXPLAIN.prompt, (colour_card_jpeg(),)))
        self_check(checkpoint.model, front.encoder, split, inputs)
    # Models of other makes, and folders with parts missing, fail in the library in ways of their own.
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model {checkpoint.name} cannot answer a question with an image ({checkpoints.reason(error)}); "
            "restore its files or use the bundled model"
        ) from error
    return checkpoint, front, split


@torch.inference_mode()
def _timed_answer(front: Front, question: Question, decode: Callable[[torch.Tensor], Generation]) -> Answer:
    started_s = time.perf_counter()
    prompt = front.encoder.encode(front.reader.read(question))
    encoded_s = time.perf_counter()
    generation = decode(prompt)
    ended_s = time.perf_counter()
    return Answer(
        text=front.reader.words(generation.tokens),
        tokens=tuple(generation.tokens),
        made_by=tuple(generation.made_by),
        confidence=generation.mean_confidence,
        vision_ms=(encoded_s - started_s) * 1000,
        decode_ms=(ended_s - encoded_s) * 1000,
        cancelled=generation.cancelled,
    )
