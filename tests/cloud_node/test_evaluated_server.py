"""`roadside evaluate --url`: a model on a server is asked as a cloud node asks it, and scored as one here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from roadside.bus.errors import BackendError, ConfigurationError
from roadside.cloud_node.configuration import CloudConfiguration
from roadside.datasets.evaluation_scenes import rendered_scenes
from roadside.datasets.findings import Findings
from roadside.models.scoreboard import EvaluationOptions, evaluate
from roadside.verbs.server_answers import ServerAnswers

SCENES = 3


def outside(url: str) -> ServerAnswers:
    return ServerAnswers(CloudConfiguration(backend="openai", url=url, model="some-model", parallel_requests=1))


async def scored(url: str, **changes: object) -> tuple[dict, Findings]:
    options = EvaluationOptions(limit=SCENES, training_moments=20, processes=1, **changes)  # pyright: ignore[reportArgumentType]
    # In a thread: an evaluation has an event loop of its own, and the server is on this one.
    done = await asyncio.to_thread(evaluate, options, outside=outside(url))
    return done.report, done.findings


def true_words() -> Sequence[str]:
    segments = [scene.reference.segment for scene in rendered_scenes(SCENES)]
    return [f"{segment.action} {segment.justification}" for segment in segments]


async def test_right_answers_get_full_marks_and_the_baselines_stand_beside_them(faulty_server, faults) -> None:
    faulty_server.script[:] = [faults.answer(words) for words in true_words()]
    report, findings = await scored(faulty_server.url)
    row = report["rows"][0]
    assert (row["name"], row["n"], row["action_accuracy"], row["justification_accuracy"]) == ("server", SCENES, 1, 1)
    assert {"constant", "narrator", "nearest"} <= {each["name"] for each in report["rows"]}
    assert report["model"].startswith("some-model on http://")
    assert findings.counts == {}
    assert len(faulty_server.requests) == SCENES
    asked = json.dumps(faulty_server.requests[0])
    assert "image_url" in asked
    assert "what is the car doing and why ?" in asked


async def test_a_scene_that_the_server_refuses_is_counted_and_left_out(faulty_server, faults) -> None:
    words = true_words()
    faulty_server.script[:] = [
        faults.answer(words[0]),
        faults.reply(422, {"error": {"message": "no"}}),
        faults.answer(words[2]),
    ]
    report, findings = await scored(faulty_server.url)
    assert report["rows"][0]["n"] == SCENES - 1
    assert findings.counts == {"the server gave no answer: refused": 1}


async def test_a_server_that_is_not_there_ends_the_evaluation() -> None:
    with pytest.raises(BackendError, match="start the server there"):
        await scored("http://127.0.0.1:9/v1")


async def test_what_does_not_go_with_a_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no exit thresholds"):
        await scored("http://127.0.0.1:9/v1", thetas=(0.5,))
