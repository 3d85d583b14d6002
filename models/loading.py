"""From a model's name to the parts that a tier holds of it, each proven to compute what the unsplit model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor, nn

from ..bus.errors import ModelError, SplitError
from ..bus.kinds import EXPLAIN
from . import checkpoints
from .checkpoints import Checkpoint
from .images import colour_card_jpeg
from .prompt_encoder import PromptEncoder, PromptReader
from .questions import Question
from .reference import Reference, read_reference
from .self_check import check_edge, check_rest, check_split
from .split_records import find_record, keep_record, record_key
from .stage_weights import Part, streamed
from .stages import SplitDecoder, Stage, check_exit_layers, decoder_of, final_head, split_decoder

_log = structlog.get_logger()


@dataclass(frozen=True)
class EdgeParts:
    """What an edge holds: vision and embedding, and the layers up to the second exit in two stages."""

    checkpoint: Checkpoint
    reader: PromptReader
    encoder: PromptEncoder
    first: Stage
    second: Stage


@dataclass(frozen=True)
class ContextParts:
    """What serves the contexts of edges: the layers behind the first exit, the final norm and the output layer."""

    checkpoint: Checkpoint
    rest: Stage
    head: nn.Module


def load_part(model: str | None, part: Part) -> tuple[Checkpoint, PromptReader]:
    """Raises ModelError."""
    # A second thread makes each token of so small a model dearer, and on a busy machine several times so.
    torch.set_num_threads(1)
    checkpoint = checkpoints.load(model, part)
    with named_failures(checkpoint):
        return checkpoint, PromptReader(checkpoint.processor)


def load_edge(model: str | None) -> EdgeParts:
    """Read an edge's tensors and no others, and prove its stages. Raises ModelError or SplitError."""
    checkpoint, reader = load_part(model, "edge")
    with named_failures(checkpoint):
        check_exit_layers(checkpoint.model.config, checkpoint.exits.layers)
        encoder = PromptEncoder(checkpoint.model)
        decoder = decoder_of(checkpoint.model)
        first_exit, second_exit = checkpoint.exits.layers
        first, second = Stage(decoder, 0, first_exit), Stage(decoder, first_exit, second_exit)
        inputs = reader.read(check_question())
        name = type(checkpoint.model).__name__

        def check(reference: Reference) -> None:
            check_edge(name, encoder, first, second, inputs, reference)

        _prove(model, checkpoint, inputs, check)
    return EdgeParts(checkpoint, reader, encoder, first, second)


def load_contexts(model: str | None) -> ContextParts:
    """Read the tensors of a cloud that only serves contexts, and prove its stage. Raises ModelError or SplitError."""
    checkpoint, reader = load_part(model, "contexts")
    with named_failures(checkpoint):
        check_exit_layers(checkpoint.model.config, checkpoint.exits.layers)
        decoder = decoder_of(checkpoint.model)
        rest = Stage(decoder, checkpoint.exits.layers[0], decoder.config.num_hidden_layers)
        head = final_head(checkpoint.model)
        name = type(checkpoint.model).__name__
        inputs = reader.read(check_question())
        _prove(model, checkpoint, inputs, lambda reference: check_rest(name, rest, head, reference))
    return ContextParts(checkpoint, rest, head)


def checked_split(checkpoint: Checkpoint, reader: PromptReader) -> tuple[PromptEncoder, SplitDecoder]:
    """A whole model's parts, proven to do what the whole does. Raises ModelError or SplitError."""
    with named_failures(checkpoint):
        encoder = PromptEncoder(checkpoint.model)
        split = split_decoder(checkpoint.model, checkpoint.exits.layers)
        inputs = reader.read(check_question())
        name = type(checkpoint.model).__name__
        _prove(None, checkpoint, inputs, lambda reference: check_split(name, encoder, split, inputs, reference))
    return encoder, split


def check_question() -> Question:
    """What every model is asked when it is loaded."""
    return Question(EXPLAIN.prompt, (colour_card_jpeg(),))


@contextmanager
def named_failures(checkpoint: Checkpoint) -> Iterator[None]:
    """Models of other makes, and folders with parts missing, fail in the library in ways of their own."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model {checkpoint.name} cannot answer a question with an image ({checkpoints.reason(error)}); "
            "restore its files or use the bundled model"
        ) from error


def _prove(
    model: str | None, checkpoint: Checkpoint, inputs: dict[str, Tensor], check: Callable[[Reference], None]
) -> None:
    """Hold the loaded parts to the unsplit model. Raises SplitError where they differ from it.

    model: what the checkpoint was loaded from, where it is a part.
    A process that has every layer asks the model itself. One that has not goes by the record of an earlier load; where
    there is none, or it does not bear the parts out, the layers that are missing are read for once, block by block.
    """
    key = record_key(checkpoint.digest, checkpoint.exits.layers, inputs) if checkpoint.recordable else None
    record = None if key is None else find_record(checkpoint.folder, key)
    if record is not None and checkpoint.files is not None:
        try:
            return check(record)
        except SplitError as difference:
            _log.debug("the record of a split is made anew", model=checkpoint.name, reason=str(difference))
            record = None
    reference = _read_reference(model, checkpoint, inputs)
    check(reference)
    if key is not None and record is None:
        keep_record(checkpoint.folder, key, reference)
    return None


def _read_reference(model: str | None, checkpoint: Checkpoint, inputs: dict[str, Tensor]) -> Reference:
    layers = checkpoint.exits.layers
    if checkpoint.files is None:
        return read_reference(checkpoint.model, inputs, layers)
    with streamed(checkpoint.model, checkpoint.files):
        reference = read_reference(checkpoint.model, inputs, layers)
    if bool(reference.last_logits.isfinite().all()):
        return reference
    # Some module looked at weights that were not there yet: this family cannot be streamed.
    return read_reference(checkpoints.load(model, "cloud").model, inputs, layers)
