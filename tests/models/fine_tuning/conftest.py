"""Model folders of published families at toy sizes with random weights, and a small driving log with splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from roadside.datasets.bddx import SPLITS
from roadside.datasets.making import make_log
from roadside.datasets.phrases import words
from roadside.models.exits import Exits, new_heads
from roadside.models.still_images import still_qwen3_vl_processor
from roadside.models.tokenizer import CHAT_TEMPLATE, build_tokenizer
from transformers import (
    Idefics3Processor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

QWEN_WORDS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
QWEN_TEMPLATE = (
    "{% for message in messages %} {{ message.role }} :{% for part in message.content %} {{ "
    "'<|vision_start|> <|image_pad|> <|vision_end|>' if part.type == 'image' else part.text }}{% endfor %} </s>"
    "{% endfor %}{% if add_generation_prompt %} assistant :{% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


def write_smolvlm(folder: Path, seed: int = 0) -> Path:
    """SmolVLM with a Llama decoder, whose images are split into tiles as the real one's are."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = build_tokenizer([*words(), *tiles])
    processor = Idefics3Processor(
        SmolVLMImageProcessorPil(
            do_image_splitting=True, size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer,
        image_seq_len=4,
        chat_template=CHAT_TEMPLATE,
    )
    make_config: Any = SmolVLMConfig
    config = make_config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT, **_ends(tokenizer)},
    )
    return _write(folder, SmolVLMForConditionalGeneration, config, processor, seed)


def write_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Qwen3-VL with positions on three axes, and visual features in its first two decoder layers."""
    tokenizer = build_tokenizer(words())
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_WORDS})
    make_processor: Any = still_qwen3_vl_processor()
    processor = make_processor(
        Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=16 * 16, max_pixels=48 * 32),
        tokenizer,
        chat_template=QWEN_TEMPLATE,
    )
    image, video, start, end = (tokenizer.convert_tokens_to_ids(word) for word in QWEN_WORDS)
    make_config: Any = Qwen3VLConfig
    config = make_config(
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
        text_config={
            "vocab_size": len(tokenizer),
            **TEXT,
            **_ends(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "tie_word_embeddings": True,
        },
    )
    return _write(folder, Qwen3VLForConditionalGeneration, config, processor, seed)


def write_split_log(folder: Path, splits: tuple[str, ...] = ("train", "train", "val", "test")) -> Path:
    """A rendered log with a clip for each named split."""
    make_log(folder, seed=7, count=len(splits))
    clip_ids = (folder / "test.txt").read_text().split()
    for split in SPLITS:
        listed = [clip_id for clip_id, its_split in zip(clip_ids, splits, strict=True) if its_split == split]
        (folder / f"{split}.txt").write_text("".join(f"{clip_id}\n" for clip_id in listed))
    return folder


def _ends(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def _write(folder: Path, model_class: Any, config: Any, processor: Any, seed: int) -> Path:
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "position" not in name:
                # The library's 0.02 is too little at this width for anything to be learnt soon.
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smolvlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests only read it."""
    return write_smolvlm(tmp_path_factory.mktemp("models") / "tiny-smolvlm")


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests only read it."""
    return write_qwen3_vl(tmp_path_factory.mktemp("models") / "tiny-qwen3-vl")


@pytest.fixture(scope="session")
def unsplit_folder(qwen_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with exits between the layers that visual features are added behind, where it cannot be split."""
    folder = Path(shutil.copytree(qwen_folder, tmp_path_factory.mktemp("models") / "tiny-unsplit"))
    vocabulary = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    Exits((1, 3), new_heads(2, TEXT["hidden_size"], vocabulary), (0.8, 0.8)).save(folder, calibration={})
    return folder


@pytest.fixture(scope="session")
def split_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training clips, one to validate on and one to test on. Tests only read it."""
    return write_split_log(tmp_path_factory.mktemp("logs") / "split")


@pytest.fixture
def copied_log(split_log: Path, tmp_path: Path) -> Path:
    """A log that a test may spoil."""
    return Path(shutil.copytree(split_log, tmp_path / "log"))


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    """Accelerate keeps one device and precision for a process; each test chooses its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
