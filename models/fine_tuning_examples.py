"""Questions with right answers as a model reads them: its own prompt, and the answer's tokens as the only labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..bus.errors import ModelError
from .checkpoints import reason
from .prompt_encoder import PromptReader
from .questions import Question

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Example:
    """inputs: the model's inputs of prompt and answer without its last token, batch 1.

    answer: its tokens [tokens], the end token included. The prompt is masked: only what is said at the last
    `len(answer)` positions is compared with the answer.
    """

    inputs: dict[str, Tensor]
    answer: Tensor


class ExampleWriter:
    """Examples in a model's own format. The prompts are those that serving reads."""

    def __init__(self, processor: Any) -> None:
        """Raises ModelError for a processor without a chat template."""
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._reader = PromptReader(processor)
        try:
            self._before, self._after = self._around_answer()
        except ValueError as error:
            raise ModelError(
                f"the model has no chat template that takes an image and an answer ({reason(error)}); "
                "fine-tune an instruction-tuned model, whose folder holds one"
            ) from error

    def write(self, question: Question, answer: str) -> Example:
        """Raises MessageRefused for an image that cannot be used."""
        prompt = self._reader.read(question)
        tokens = torch.tensor([self.answer_tokens(answer)])
        return Example(_extended(prompt, tokens[:, :-1]), tokens[0])

    def answer_tokens(self, answer: str) -> list[int]:
        """What the model should say after the prompt."""
        said = f"{self._before}{answer}{self._after}"
        return [*self._tokenizer(said, add_special_tokens=False).input_ids, self._reader.end_token]

    def unknown_share(self, answers: Iterable[str]) -> float:
        """Share of the answers' tokens that the tokenizer has no word for; 0 for tokenizers that know every letter."""
        unknown = self._tokenizer.unk_token_id
        tokens = [token for answer in answers for token in self.answer_tokens(answer)]
        return tokens.count(unknown) / max(1, len(tokens)) if unknown is not None else 0.0

    def _around_answer(self) -> tuple[str, str]:
        """What the chat template puts between a prompt and the answer's words, and after them up to the end token."""
        mark = "ANSWER"
        asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}
        answered = {"role": "assistant", "content": [{"type": "text", "text": mark}]}
        prompt = self._processor.apply_chat_template([asked], add_generation_prompt=True)
        whole = self._processor.apply_chat_template([asked, answered])
        before, found, after = whole.removeprefix(prompt).partition(mark)
        if not whole.startswith(prompt) or not found:
            # A template that writes given answers in another way than it asks for them.
            return " ", ""
        return before, after.partition(self._tokenizer.eos_token)[0].rstrip()


def _extended(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """The inputs with tokens [1, positions] appended to everything that has one entry per prompt token."""
    shape = inputs["input_ids"].shape
    text_only = torch.zeros_like(tokens)
    appended = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {
        name: torch.cat([value, appended.get(name, text_only)], dim=1) if value.shape == shape else value
        for name, value in inputs.items()
    }


def made_ahead(make: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What is made of each item, the next one on a thread while the caller is busy with the last."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = None
        for item in items:
            following = pool.submit(make, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
