"""Edge and cloud in one process: above threshold 1 the unsplit model's answers, and exact counts of what went up."""

from __future__ import annotations

from pathlib import Path

import pytest
from roadside.models.answering import CloudAnswerer, EdgeAnswerer, cloud_answerer, edge_answerer
from roadside.models.decoding import to_the_end
from roadside.models.local_cloud import LocalCloud
from roadside.models.questions import Question, answer_at_once
from roadside.models.together import decode_together


@pytest.fixture(scope="module")
def edge(tiny_folder: Path) -> EdgeAnswerer:
    return edge_answerer(str(tiny_folder))


@pytest.fixture(scope="module")
def cloud(tiny_folder: Path) -> CloudAnswerer:
    return cloud_answerer(str(tiny_folder))


def question(frame: bytes, *thresholds: float) -> Question:
    return Question("what is the car doing and why ?", (frame,), max_tokens=10, exit_thresholds=thresholds)


def test_above_one_it_says_what_the_whole_model_says(edge, cloud, frame):
    asked = question(frame, 1.1, 1.1)
    together = decode_together(edge.begin(asked, "edge+cloud"), LocalCloud(cloud.whole))
    whole = answer_at_once(cloud, asked)
    assert together.result.tokens == whole.tokens
    assert together.result.text == whole.text
    assert together.cloud_requests == len(whole.tokens)


def test_what_went_up_is_counted(edge, cloud, frame):
    asked = question(frame, 1.1, 1.1)
    prompt = edge.encode(asked)
    together = decode_together(edge.decode(asked, "edge+cloud", prompt), LocalCloud(cloud.whole))
    # The last token is never fed back.
    assert together.positions == prompt.positions + len(together.result.tokens) - 1
    assert together.bytes_up == 2 * edge.partition.first.hidden_size * together.positions


def test_an_edge_that_is_sure_asks_for_nothing(edge, cloud, frame):
    asked = question(frame, 0.0, 0.0)
    prompt = edge.encode(asked)
    together = decode_together(edge.decode(asked, "edge+cloud", prompt), LocalCloud(cloud.whole))
    assert together.cloud_requests == 0
    assert together.result == to_the_end(edge.decode(asked, "edge", prompt))
