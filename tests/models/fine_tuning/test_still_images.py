"""Families whose own processor watches videos, too, load without what videos need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from roadside.models import checkpoints
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Question
from roadside.models.still_images import load_processor
from transformers import Qwen3VLProcessor, SmolVLMProcessor


@pytest.fixture
def as_published(smolvlm_folder: Path, tmp_path: Path) -> Path:
    """A SmolVLM folder as on the hub: the family's own processor class, the image processor in a file of its own."""
    folder = Path(shutil.copytree(smolvlm_folder, tmp_path / "published"))
    written = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(written["image_processor"]))
    own = {"image_seq_len": written["image_seq_len"], "processor_class": "SmolVLMProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(own))
    return folder


def test_smolvlm_loads_as_it_is_published(as_published: Path, smolvlm_folder: Path, frame: bytes) -> None:
    question = Question("what is the car doing and why ?", (frame,))
    published, ours = (PromptReader(checkpoints.load(each).processor) for each in (as_published, smolvlm_folder))
    read, expected = published.read(question), ours.read(question)
    assert read["input_ids"].tolist() == expected["input_ids"].tolist()
    assert read["pixel_values"].equal(expected["pixel_values"])


def test_smolvlm_writes_around_an_image_what_its_own_processor_does(smolvlm_folder: Path) -> None:
    """The replacement for one image is the only thing in which the two classes could differ."""
    ours: Any = load_processor(str(smolvlm_folder), local_files_only=True)
    own: Any = SmolVLMProcessor.__new__(SmolVLMProcessor)  # its constructor wants a video processor
    for name in ("fake_image_token", "image_token", "image_seq_len"):
        setattr(own, name, getattr(ours, name))
    own.global_image_token = ours.global_image_tag
    for rows, columns in ((0, 0), (2, 3)):
        sizes = {"rows": [[rows]], "cols": [[columns]]}
        assert str(ours.replace_image_token(sizes, 0)) == own.replace_image_token(sizes, 0)


def test_qwen_reads_and_writes_for_its_own_class(qwen_folder: Path, frame: bytes) -> None:
    processor = load_processor(str(qwen_folder), local_files_only=True)
    assert isinstance(processor, Qwen3VLProcessor)
    assert json.loads((qwen_folder / "processor_config.json").read_text())["processor_class"] == "Qwen3VLProcessor"
    read = PromptReader(processor).read(Question("what is the car doing ?", (frame,)))
    _, rows, columns = read["image_grid_thw"][0].tolist()
    assert int((read["mm_token_type_ids"] == 1).sum()) == rows * columns // 4
    assert read["pixel_values"].shape[0] == rows * columns
