"""The model at any point of any answer to a question: what its exits and its last layer would say there.

A decoding mode may lead anywhere, also to words that the whole model would never say, until the cloud calls it back.
So nothing is recorded in advance: a `Walk` is moved to whatever tokens a mode has come to, and asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..bus.messages import ContextChunk
from ..bus.tensors import TensorType
from ..models import checkpoints
from ..models.answering import checked_split
from ..models.context_codec import ContextPacker, channel_scales_of, unpack_rows
from ..models.partitions import EdgePartition, EncodedPrompt, WholeModel
from ..models.prompt_encoder import PromptReader
from ..models.questions import Question
from ..models.stages import StageSession
from .collab_edge import Vote


class TracingModel:
    """Both halves of a model, loaded once and checked. Raises ModelError or SplitError."""

    def __init__(self, model: str | None = None) -> None:
        # As nodes do: a second thread makes each token of so small a model dearer.
        torch.set_num_threads(1)
        checkpoint = checkpoints.load(model)
        self._reader = PromptReader(checkpoint.processor)
        encoder, split = checked_split(checkpoint, self._reader)
        self.name, self.digest = checkpoint.name, checkpoint.digest
        self.thresholds = checkpoint.exits.thresholds
        self.end_token = self._reader.end_token
        self.edge = EdgePartition(encoder, split.first, split.second, checkpoint.exits)
        self.whole = WholeModel(encoder, split.first, split.rest, split.head)

    def prompt(self, question: Question) -> EncodedPrompt:
        """A question as the decoder reads it; encoded where somebody asks for its inputs."""
        return EncodedPrompt(self.edge.encoder, self._reader.read(question))

    def words(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, without control tokens."""
        return self._reader.words(list(tokens))

    def walk(self, prompt: EncodedPrompt) -> Walk:
        return Walk(self, prompt)


class Walk:
    """One question, wherever its answer may go."""

    def __init__(self, model: TracingModel, prompt: EncodedPrompt) -> None:
        self._model = model
        self._prompt = prompt
        self._first = model.edge.first.session()
        self._first.feed(prompt.inputs())
        # The residual stream at the first exit, [1, positions, hidden_size]: of the prompt, then of each token.
        self._after_first = [self._first.catch_up()]
        self._tokens: list[int] = []
        self._second = _Follower(model.edge.second.session(), "float32")
        self._rests: dict[TensorType, _Follower] = {}

    def at_exits(self, tokens: Sequence[int]) -> tuple[Vote, Vote]:
        """What the two exits would say after these tokens of the answer."""
        self._go_to(tokens)
        heads = self._model.edge.exits.heads
        deepest = self._second.run(self._tokens, self._after_first)
        return _vote(heads[0](self._after_first[-1][:, -1])), _vote(heads[1](deepest))

    def at_end(self, tokens: Sequence[int], context: TensorType) -> Vote:
        """What the whole model would say there. context: the precision in which the hidden states went up."""
        self._go_to(tokens)
        if context not in self._rests:
            self._rests[context] = _Follower(self._model.whole.rest.session(), context)
        return _vote(self._model.whole.head(self._rests[context].run(self._tokens, self._after_first)))

    def _go_to(self, tokens: Sequence[int]) -> None:
        shared = _shared(self._tokens, tokens)
        if shared < len(self._tokens):
            self._first.roll_back(self._prompt.positions + shared)
            del self._after_first[1 + shared :]
            del self._tokens[shared:]
        for token in tokens[shared:]:
            self._first.feed(self._model.edge.encoder.embed(token))
            self._after_first.append(self._first.catch_up())
            self._tokens.append(token)


class _Follower:
    """A stage behind the first exit, which is moved only when it is asked, and then from where it was last."""

    def __init__(self, session: StageSession, context: TensorType) -> None:
        self._session = session
        self._packer = ContextPacker(context)
        # Of those that were run; None before the prompt was.
        self._tokens: list[int] | None = None

    def run(self, tokens: list[int], after_first: list[Tensor]) -> Tensor:
        """The residual stream of the last position, [1, hidden_size]. after_first: of the prompt and each token."""
        pieces_run = 0
        if self._tokens is not None:
            # At least the last piece is run again: nothing is kept of what came out.
            pieces_run = min(1 + _shared(self._tokens, tokens), len(tokens))
            self._session.roll_back(sum(piece.shape[1] for piece in after_first[:pieces_run]))
        for piece in after_first[pieces_run:]:
            self._session.feed(self._as_it_arrives(piece))
        self._tokens = list(tokens)
        return self._session.catch_up()[:, -1]

    def _as_it_arrives(self, hidden: Tensor) -> Tensor:
        """Hidden states [1, positions, hidden_size] as a message brings them. The prompt's set int8's scales."""
        if self._packer.dtype == "float32":
            return hidden
        rows = self._packer.pack(hidden[0].numpy())
        fields: dict[str, Any] = {**self._packer.fields(rows, with_channels=True)}
        chunk = ContextChunk(session="trace", rollback=0, position=0, **fields)
        size = hidden.shape[-1]
        return torch.from_numpy(unpack_rows(chunk, size, channel_scales_of(chunk, size)))[None]


def _shared(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(some, others, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))


@torch.inference_mode()
def _vote(logits: Tensor) -> Vote:
    """From logits [1, vocabulary]."""
    best, tokens = logits[0].float().topk(2)
    confidence = torch.softmax(logits[0].float(), dim=-1)[tokens[0]]
    return Vote(int(tokens[0]), float(confidence), float(best[0] - best[1]))
