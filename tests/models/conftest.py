"""Tiny models with random weights: real architectures at toy sizes, so that a test takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from roadside.datasets.phrases import words
from roadside.models.exits import Exits, new_heads
from roadside.models.images import colour_card_jpeg
from roadside.models.vlm import Recipe, build_model, build_processor

TINY = Recipe(
    frame_size=64,
    patch_size=16,
    vision_width=32,
    vision_layers=1,
    vision_heads=2,
    text_width=32,
    text_layers=6,
    text_heads=4,
    text_key_value_heads=2,
    text_mlp_width=48,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_recipe() -> Recipe:
    return TINY


@pytest.fixture(scope="session")
def frame() -> bytes:
    """Some JPEG."""
    return colour_card_jpeg()


def write_tiny_model(folder: Path, thresholds: tuple[float, float] = (0.8, 0.8), seed: int = 0) -> Path:
    """A model folder as training writes it, with random weights and no card."""
    processor = build_processor(TINY, words())
    model = build_model(TINY, processor, seed)
    vocabulary = model.lm_head.out_features
    torch.manual_seed(seed)
    heads = new_heads(2, TINY.text_width, vocabulary)
    processor.save_pretrained(folder)
    model.half().save_pretrained(folder)
    Exits((2, 4), heads, thresholds).save(folder, calibration={})
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk; tests only read it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny model of a test's own."""

    def write(**settings: object) -> Path:
        return write_tiny_model(tmp_path / "own", **settings)  # pyright: ignore[reportArgumentType]

    return write
