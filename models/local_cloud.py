"""The cloud's half of one answer in the edge's process, without a network: for evaluation, benches and tests.

It is the reference for what a cloud on the bus must say: the same events come in, and the same replies go out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .choosing import choose
from .decoding import Ask, CloudReply, RollBack, ToCloud, Upload, UploadPrompt, UploadTokens
from .partitions import WholeModel
from .precision import to_float16, to_float32
from .sampling import Sampling
from .speakers import Prompt


class LocalCloud:
    """One session with the rest of a model.

    prompt: what UploadPrompt refers to. sampling: as the edge samples. float16: how hidden states come over, as they
    do on the wire; else they stay as they are.
    positions_up: whose hidden states went up; bytes_up: of those and of token ids, without any framing.
    """

    def __init__(
        self,
        whole: WholeModel,
        *,
        end_token: int = -1,
        prompt: Prompt[Any] | None = None,
        sampling: Sampling | None = None,
        float16: bool = True,
    ) -> None:
        self._whole = whole
        self._end_token = end_token
        self._prompt = prompt
        self._sampling = sampling
        self._float16 = float16
        self._first, self._rest = whole.first.session(), whole.rest.session()
        # Of positions that were run: the whole model's token after so many positions, and its confidence.
        self._choices: dict[int, tuple[int, float]] = {}
        self._prompt_positions = 0
        self.positions_up = 0
        self.bytes_up = 0

    @torch.inference_mode()
    def take(self, event: ToCloud) -> None:
        """Anything but an Ask."""
        match event:
            case Upload():
                self._take_hidden(event)
            case UploadTokens():
                self.bytes_up += np.dtype(np.int32).itemsize * len(event.tokens)
                for token in event.tokens:
                    self._run_first(self._whole.embed(token))
            case UploadPrompt():
                if self._prompt is None:
                    raise ValueError("the session was opened without a prompt to encode")
                self._run_first(self._prompt.inputs())
                self._prompt_positions = event.positions
            case RollBack():
                self._roll_back(event.positions)
            case Ask():
                raise ValueError("questions go to `answer`")

    @torch.inference_mode()
    def answer(self, ask: Ask) -> CloudReply:
        """Reply to a question about positions that have all come."""
        if ask.generate:
            return self._generate(ask)
        self._catch_up()
        if not ask.claimed:
            token, confidence = self._choices[ask.up_to]
            return CloudReply(ask.up_to, (token,), 0, (confidence,))
        first = ask.up_to - len(ask.claimed) + 1
        said = [self._choices[first + index] for index in range(len(ask.claimed))]
        right = next((index for index, claim in enumerate(ask.claimed) if claim != said[index][0]), len(ask.claimed))
        said = said[: right + 1]
        return CloudReply(ask.up_to, tuple(token for token, _ in said), right, tuple(sure for _, sure in said))

    def _take_hidden(self, upload: Upload) -> None:
        hidden = torch.from_numpy(upload.hidden)
        if self._float16:
            hidden = to_float32(to_float16(hidden))
        self.positions_up += len(hidden)
        self.bytes_up += (2 if self._float16 else 4) * hidden.numel()
        position_ids = None if upload.position_ids is None else torch.from_numpy(upload.position_ids)
        self._rest.feed(hidden[None], position_ids)
        if upload.position == 0:
            self._prompt_positions = len(hidden)

    def _run_first(self, inputs: Any) -> None:
        start = self._first.positions
        self._first.feed(inputs)
        self._rest.feed(self._first.catch_up(), self._first.position_ids(start, self._first.positions))

    def _roll_back(self, positions: int) -> None:
        self._rest.roll_back(positions)
        self._first.roll_back(min(positions, self._first.positions))
        self._choices = {up_to: choice for up_to, choice in self._choices.items() if up_to <= positions}

    def _catch_up(self) -> None:
        """Run what waits, and choose a token after each position behind which an answer may stand."""
        start = self._rest.positions_run
        if not self._rest.waiting_positions:
            return
        residual = self._rest.catch_up()
        for up_to in range(max(start + 1, self._prompt_positions), self._rest.positions_run + 1):
            logits: Tensor = self._whole.head(residual[:, up_to - start - 1])
            self._choices[up_to] = choose(logits, self._sampling, up_to)

    def _generate(self, ask: Ask) -> CloudReply:
        tokens: list[int] = []
        confidences: list[float] = []
        while True:
            self._catch_up()
            token, confidence = self._choices[ask.up_to + len(tokens)]
            tokens.append(token)
            confidences.append(confidence)
            if token == self._end_token or len(tokens) >= ask.generate:
                return CloudReply(ask.up_to, tuple(tokens), 0, tuple(confidences))
            self._run_first(self._whole.embed(token))
