"""A model that cannot be split answers at the cloud, token by token as the library's own generation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from roadside.bus.errors import SplitError
from roadside.bus.kinds import EXPLAIN
from roadside.datasets.jpeg import encode_jpeg
from roadside.models import checkpoints
from roadside.models.answering import (
    CloudAnswerer,
    UnsplitAnswerer,
    any_cloud_answerer,
    cloud_answerer,
    edge_answerer,
    vehicle_answerer,
)
from roadside.models.ask import ask_once
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Question, answer_at_once

QUESTIONS = ("what is the car doing and why ?", "describe the scene . describe the scene .")


def generated(folder: Path, question: Question) -> list[int]:
    """The library's greedy answer."""
    checkpoint = checkpoints.load(folder)
    inputs = PromptReader(checkpoint.processor).read(question)
    model: Any = checkpoint.model
    tokens = model.generate(**inputs, max_new_tokens=question.max_tokens, do_sample=False)
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


def test_it_says_what_the_model_generates(unsplit_folder: Path, frame: bytes) -> None:
    answerer = any_cloud_answerer(str(unsplit_folder))
    assert isinstance(answerer, UnsplitAnswerer)
    for prompt in QUESTIONS:
        question = Question(prompt, (frame,), max_tokens=20)
        answer = answer_at_once(answerer, question)
        assert list(answer.tokens) == generated(unsplit_folder, question)
        assert set(answer.made_by) == {"full"}


def test_a_vehicle_hosts_it_whole(unsplit_folder: Path, frame: bytes) -> None:
    answerer = vehicle_answerer(str(unsplit_folder))
    assert answerer.modes == {"vehicle": "full"}
    question = Question(QUESTIONS[0], (frame,), max_tokens=8)
    assert list(answer_at_once(answerer, question).tokens) == generated(unsplit_folder, question)


def test_answers_that_take_turns_do_not_disturb_each_other(unsplit_folder: Path, frame: bytes) -> None:
    """The model itself remembers one prompt's positions only."""
    answerer = any_cloud_answerer(str(unsplit_folder))
    small = encode_jpeg(Image.new("RGB", (64, 40)), 90)
    questions = [
        Question(prompt, (jpeg,), max_tokens=12) for prompt, jpeg in zip(QUESTIONS, (frame, small), strict=True)
    ]
    alone = [answer_at_once(answerer, question).tokens for question in questions]
    steps = [answerer.begin(question, "cloud") for question in questions]
    said: dict[int, tuple[int, ...]] = {}
    while len(said) < len(steps):
        for index, each in enumerate(steps):
            if index not in said:
                try:
                    next(each)
                except StopIteration as end:
                    said[index] = end.value.tokens
    assert [said[index] for index in range(len(steps))] == alone


def test_no_edge_hosts_it_and_the_reason_is_named(unsplit_folder: Path, tmp_path: Path, frame: bytes) -> None:
    for make in (edge_answerer, cloud_answerer):
        with pytest.raises(SplitError, match=r"exits after layers 2 and 3 it could be split.* at the cloud only"):
            make(str(unsplit_folder))
    image = tmp_path / "frame.jpg"
    image.write_bytes(frame)
    asked = ask_once(image, EXPLAIN.prompt, place="cloud", model=str(unsplit_folder), telemetry=[])
    assert asked["made_by"].keys() == {"full"}


def test_a_model_that_can_be_split_is(smolvlm_folder: Path) -> None:
    assert isinstance(any_cloud_answerer(str(smolvlm_folder)), CloudAnswerer)
