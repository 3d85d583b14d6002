"""Processors for models that can also watch videos, without their video half.

Transformers builds the processors of SmolVLM and Qwen3-VL with a video processor, which needs torchvision and
num2words. We look at still images only and ship neither, so these families get a processor that has an image
processor, a tokenizer and a chat template. What it makes of an image is what the full processor makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def load_processor(source: str, *, local_files_only: bool) -> ProcessorMixin:
    """The processor of a model's folder or hub id. Raises what transformers raises where it cannot be read."""
    from transformers import AutoConfig, AutoProcessor, Idefics3Processor

    family = AutoConfig.from_pretrained(source, local_files_only=local_files_only).model_type
    if family == "smolvlm":
        # SmolVLM is Idefics3 with videos: the two write the same words around the tokens of an image.
        return Idefics3Processor.from_pretrained(source, local_files_only=local_files_only)
    if family == "qwen3_vl":
        return still_qwen3_vl_processor().from_pretrained(source, local_files_only=local_files_only)
    return AutoProcessor.from_pretrained(source, local_files_only=local_files_only)


def still_qwen3_vl_processor() -> type[ProcessorMixin]:
    """The class, made here because its base takes a second to import."""
    from transformers import ProcessorMixin, Qwen3VLProcessor

    class StillQwen3VLProcessor(Qwen3VLProcessor):
        """Qwen3-VL's processor with the arguments of one for images; its loading goes by their names."""

        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
            # Not the parent's constructor, which insists on a video processor.
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
            for name, word in (
                ("image_token", "<|image_pad|>"),
                ("video_token", "<|video_pad|>"),
                ("vision_start_token", "<|vision_start|>"),
                ("vision_end_token", "<|vision_end|>"),
            ):
                setattr(self, name, word)
                setattr(self, f"{name}_id", tokenizer.convert_tokens_to_ids(word))

        def to_dict(self) -> dict[str, Any]:
            # What it writes is for the family's own class, too.
            return super().to_dict() | {"processor_class": Qwen3VLProcessor.__name__}

    return StillQwen3VLProcessor
