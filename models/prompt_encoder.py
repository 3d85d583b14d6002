"""From a question to embeddings: the vision-language model without its decoder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..bus.errors import MessageRefused, SplitError
from ..datasets.phrases import telemetry_text
from .control_tokens import ControlTokens
from .images import open_image
from .prompt_layout import LaidOutPrompt, VisualFeatures
from .questions import MOST_FRAMES, Question
from .stages import decoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


class PromptReader:
    """Questions to model inputs, with the model's own processor and chat template."""

    def __init__(self, processor: ProcessorMixin) -> None:
        # Untyped: what a processor accepts and owns differs by family.
        self._processor: Any = processor
        self._tokenizer: Any = self._processor.tokenizer
        added = self._tokenizer.added_tokens_decoder.values()
        self._control_tokens = ControlTokens(each.content for each in added if each.special)

    def read(self, question: Question) -> dict[str, Tensor]:
        """Inputs of the whole model, batch 1. Of more than `MOST_FRAMES` frames the newest are looked at.

        A prompt's control characters and control tokens are left out. Raises MessageRefused for an image that cannot be
        used, and with reason "prompt" where the processor cannot make inputs of the words.
        """
        if not question.frames:
            raise MessageRefused("image-missing", "a question needs at least one frame")
        images = [open_image(frame) for frame in question.frames[-MOST_FRAMES:]]
        words = f"{telemetry_text(question.telemetry)} {self._control_tokens.stripped(question.prompt)}"
        turn = {"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": words}]}
        text = self._processor.apply_chat_template([turn], add_generation_prompt=True)
        try:
            return dict(self._processor(images=[images], text=[text], return_tensors="pt"))
        except ValueError as error:
            # The library's own word for a text whose image tokens are not those of its images.
            raise MessageRefused("prompt", str(error)) from None

    def words(self, tokens: list[int]) -> str:
        """The text of an answer's tokens, without control tokens."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True).strip()

    @property
    def end_token(self) -> int:
        return self._tokenizer.eos_token_id


class PromptEncoder:
    """Vision tower, connector and token embedding of a vision-language model, sharing its weights.

    The model's own `forward` merges image and words; where it calls its decoder, the embeddings are taken away.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises SplitError where the decoder cannot be taken off."""
        base: Any = model.base_model
        decoder = decoder_of(model)
        self._embedding = decoder.get_input_embeddings()
        # A copy with children of its own, so that the given model keeps its decoder.
        self._trunk = copy.copy(base)
        self._trunk._modules = dict(base._modules)
        self._boundary = _DecoderBoundary(self._embedding, decoder.config)
        self._trunk.set_decoder(self._boundary)
        self._trunk.eval()

    @torch.inference_mode()
    def encode(self, inputs: dict[str, Tensor]) -> Tensor | LaidOutPrompt:
        """The prompt's merged embeddings, [1, positions, hidden_size], and what else the decoder reads of it."""
        self._trunk(**inputs, use_cache=False)
        return self._boundary.take_prompt()

    @torch.inference_mode()
    def embed(self, token: int) -> Tensor:
        """One generated token's embedding: [1, 1, hidden_size]."""
        return self._embedding(torch.tensor([[token]]))


class _DecoderBoundary(nn.Module):
    """Stands where the decoder was, keeps its inputs, and returns the embeddings as if they were its outputs."""

    # What a stage can do without: it sees one whole sequence.
    _IGNORED = frozenset({"attention_mask", "past_key_values", "use_cache", "return_dict", "cache_position"})

    def __init__(self, embedding: nn.Module, config: object) -> None:
        super().__init__()
        self.embed_tokens = embedding
        self.config = config
        self._prompt: Tensor | LaidOutPrompt | None = None

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def take_prompt(self) -> Tensor | LaidOutPrompt:
        """What the last forward pass was given."""
        prompt, self._prompt = self._prompt, None
        if prompt is None:
            raise SplitError(
                "the model does not call its decoder with embeddings; such a model answers at the cloud only"
            )
        return prompt

    def forward(
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor | None = None,
        visual_pos_masks: Tensor | None = None,
        deepstack_visual_embeds: list[Tensor] | None = None,
        **others: object,
    ) -> object:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        if needed := sorted(name for name in others.keys() - self._IGNORED if others[name] is not None):
            raise SplitError(
                f"the model hands {', '.join(needed)} to its decoder, which stages do not carry; "
                "such a model answers at the cloud only"
            )
        # A fourth axis, in front, counts tokens for packed sequences; a stage has one sequence.
        axes = position_ids[-3:, 0] if position_ids is not None and position_ids.ndim == 3 else None
        visual = None
        if visual_pos_masks is not None and deepstack_visual_embeds:
            visual = VisualFeatures(visual_pos_masks[0], tuple(deepstack_visual_embeds))
        if axes is None and visual is None:
            self._prompt = inputs_embeds
        else:
            counted = torch.arange(inputs_embeds.shape[1])[None]
            self._prompt = LaidOutPrompt(inputs_embeds, counted if axes is None else axes, visual)
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)
