"""Qwen3-VL over two tiers: positions on three axes, and visual features that only the edge has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from roadside.datasets.jpeg import encode_jpeg
from roadside.models import checkpoints
from roadside.models.answering import CloudAnswerer, EdgeAnswerer, any_cloud_answerer, edge_answerer
from roadside.models.exits import Exits, new_heads
from roadside.models.local_cloud import LocalCloud
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Question, answer_at_once
from roadside.models.together import decode_together
from torch import nn

PROMPTS = ("what is the car doing and why ?", "describe the scene . describe the scene .")


@pytest.fixture(scope="module")
def edge(qwen_folder: Path) -> EdgeAnswerer:
    return edge_answerer(str(qwen_folder))


@pytest.fixture(scope="module")
def cloud(qwen_folder: Path) -> CloudAnswerer:
    answerer = any_cloud_answerer(str(qwen_folder))
    assert isinstance(answerer, CloudAnswerer)
    return answerer


@pytest.fixture(params=["wide frame", "small frame"])
def jpeg(request: pytest.FixtureRequest, frame: bytes) -> bytes:
    """Of different shapes, and so with different positions."""
    return frame if request.param == "wide frame" else encode_jpeg(Image.new("RGB", (40, 64), (90, 20, 160)), 90)


def generated(folder: Path, question: Question) -> list[int]:
    """The library's own greedy answer."""
    checkpoint = checkpoints.load(folder)
    inputs = PromptReader(checkpoint.processor).read(question)
    tokens = checkpoint.model.generate(**inputs, max_new_tokens=question.max_tokens, do_sample=False)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_whole_model_in_stages_says_what_it_generates(qwen_folder: Path, cloud, jpeg: bytes, prompt: str) -> None:
    question = Question(prompt, (jpeg,), max_tokens=16)
    assert list(answer_at_once(cloud, question).tokens) == generated(qwen_folder, question)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_edge_and_cloud_together_say_what_it_generates(
    qwen_folder: Path, edge: EdgeAnswerer, cloud: CloudAnswerer, jpeg: bytes, prompt: str
) -> None:
    """Above threshold 1 every token is the cloud's, which sees hidden states and position ids, and no image."""
    question = Question(prompt, (jpeg,), max_tokens=16, exit_thresholds=(1.1, 1.1))
    steps = edge.begin(question, "edge+cloud")
    together = decode_together(steps, LocalCloud(cloud.whole, end_token=cloud.reader.end_token, float16=False))
    assert list(together.result.tokens) == generated(qwen_folder, question)
    assert together.cloud_requests == len(together.result.tokens)


def test_the_edge_alone_says_what_a_model_of_its_layers_generates(qwen_folder: Path, edge, jpeg: bytes) -> None:
    """Its second exit is the model's own output layer here, so that it is the model without its last layers."""
    question = Question(PROMPTS[0], (jpeg,), max_tokens=12, exit_thresholds=(1.1, 0.0))
    checkpoint = checkpoints.load(qwen_folder)
    decoder = checkpoint.model.model.language_model  # pyright: ignore[reportAttributeAccessIssue]
    decoder.layers = nn.ModuleList(list(decoder.layers)[: edge.partition.second.end_layer])
    decoder.config.num_hidden_layers = len(decoder.layers)
    inputs = PromptReader(checkpoint.processor).read(question)
    expected = checkpoint.model.generate(**inputs, max_new_tokens=12, do_sample=False)  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert edge.partition.second.end_layer < 4
    assert list(answer_at_once(edge, question).tokens) == expected[0, inputs["input_ids"].shape[1] :].tolist()


def test_answers_that_take_turns_do_not_disturb_each_other(cloud: CloudAnswerer, frame: bytes) -> None:
    small = encode_jpeg(Image.new("RGB", (64, 40)), 90)
    questions = [Question(prompt, (jpeg,), max_tokens=10) for prompt, jpeg in zip(PROMPTS, (frame, small), strict=True)]
    alone = [answer_at_once(cloud, question).tokens for question in questions]
    steps = [cloud.begin(question, "cloud") for question in questions]
    said: dict[int, tuple[int, ...]] = {}
    while len(said) < len(steps):
        for index, each in enumerate(steps):
            if index not in said:
                try:
                    next(each)
                except StopIteration as end:
                    said[index] = end.value.tokens
    assert [said[index] for index in range(len(steps))] == alone


def test_exits_of_its_own_stand_behind_the_visual_layers(qwen_folder: Path, tmp_path: Path, frame: bytes) -> None:
    import shutil

    folder = Path(shutil.copytree(qwen_folder, tmp_path / "own-exits"))
    vocabulary = checkpoints.load(qwen_folder).model.config.text_config.vocab_size
    torch.manual_seed(0)
    Exits((2, 4), new_heads(2, 32, vocabulary), (0.8, 0.8)).save(folder, calibration={})
    edge = edge_answerer(str(folder))
    assert (edge.partition.first.end_layer, edge.partition.second.end_layer) == (2, 4)
    assert answer_at_once(edge, Question(PROMPTS[0], (frame,), max_tokens=4)).tokens
