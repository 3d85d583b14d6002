"""What of an answer in the making goes up to the cloud, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias

import numpy as np

from ..decoding import Ask, Limits, Steps, Upload, UploadPrompt, UploadTokens
from ..speakers import Edge, Inputs, Prompt, Read, Said

PromptForm: TypeAlias = Literal["hidden", "image"]
AnswerForm: TypeAlias = Literal["hidden", "tokens"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """How an answer is shared between edge and cloud.

    prompt: "hidden": the prompt goes up as hidden states, so that raw pixels stay with the edge (which is not a
        guarantee: hidden states can be inverted to some degree). "image": as it is, for the cloud to encode.
    answer: "hidden": each token's hidden state. "tokens": its id, over which the cloud runs its own first layers; it
        has those for the prompt only where that went up as "image".
    draft: tell what the edge would answer by itself, where that is known before the answer.
    window: how many tokens may wait for the cloud's word before the edge stops drafting.
    """

    prompt: PromptForm = "hidden"
    answer: AnswerForm = "hidden"
    draft: bool = True
    window: int = 32

    def __post_init__(self) -> None:
        if self.answer == "tokens" and self.prompt != "image":
            raise ValueError("token ids can only follow a prompt that went up as an image")


BY_DEFAULT = Sharing()


class SharedSequence(Generic[Inputs]):
    """A sequence that an edge reads, with what its cloud must hear of it."""

    def __init__(self, edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing) -> None:
        self.edge = edge
        self.session = edge.session(limits.sampling)
        self.prompt_positions = prompt.positions
        self._prompt = prompt
        self._thresholds = limits.thresholds
        self._sharing = sharing
        self._last: Read | None = None

    def read_prompt(self, *, ask: bool = False) -> Steps[None]:
        """Run the prompt up to the first exit, and tell the cloud. ask: it for the first token, too."""
        question = [Ask(self.prompt_positions)] if ask else []
        if self._sharing.prompt == "image":
            # First of all: it need not wait until the edge has looked at the picture itself.
            yield UploadPrompt(self.prompt_positions)
            yield from question
            self.read_prompt_hidden()
        else:
            yield self.read_prompt_hidden()
            yield from question

    def read(self, token: int) -> Steps[None]:
        """Run a token that was said up to the first exit, and tell the cloud."""
        if self._sharing.answer == "tokens":
            yield UploadTokens(self.session.positions, (token,))
            self.read_hidden(token)
        else:
            yield self.read_hidden(token)

    def read_prompt_hidden(self) -> Upload:
        """Run the prompt up to the first exit; its hidden states, for the cloud."""
        return self._read(self._prompt.inputs())

    def read_hidden(self, token: int) -> Upload:
        """Run a token that was said up to the first exit; its hidden state, for the cloud."""
        return self._read(self.edge.embed(token))

    def _read(self, inputs: Inputs) -> Upload:
        position = self.session.positions
        self._last = read = self.session.read(inputs)
        return Upload(position, read.hidden, read.position_ids)

    def speak(self) -> Said:
        """The token after what was read last, as the edge would say it."""
        return self.session.speak(self._last, self._thresholds)


def joined(uploads: Sequence[Upload]) -> Upload:
    """Uploads of consecutive positions as one."""
    position_ids = [each.position_ids for each in uploads if each.position_ids is not None]
    return Upload(
        uploads[0].position,
        np.concatenate([each.hidden for each in uploads]),
        np.concatenate(position_ids, axis=1) if position_ids else None,
    )
