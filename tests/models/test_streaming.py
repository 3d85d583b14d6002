"""An answer's words are shown while the rest of it is being made, and not too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from roadside.bus.places import Place
from roadside.models.admission import Job
from roadside.models.circumstances import UNKNOWN, Circumstances
from roadside.models.decoding import Chose, Drafted, Spoke, Steps
from roadside.models.inference_worker import InferenceWorker
from roadside.models.job_runner import Answered
from roadside.models.local_runner import LocalRunner
from roadside.models.questions import Answer, Question

from .. import plain_messages

TOKENS = 20


@dataclass
class Talker:
    """Says a token every few milliseconds, and would have said something else alone."""

    pause_s: float = 0.004
    model: str = "talker"
    model_hash: str = "0"
    quality: dict[Place, dict[str, float]] = field(default_factory=dict)
    modes: dict[Place, str] = field(default_factory=lambda: {"edge": "auto"})

    def begin(self, question: Question, place: Place, circumstances: Circumstances = UNKNOWN) -> Steps[Answer]:
        yield Chose("through")
        yield Spoke()
        yield Drafted((7, 7), ("exit1", "exit2"), 0.5)
        for token in range(TOKENS):
            time.sleep(self.pause_s)
            yield Spoke((token,))
        tokens = tuple(range(TOKENS + 1))
        return Answer(self.words(tokens), tokens, ("full",) * len(tokens), 0.9, 1.0, 1.0)

    def words(self, tokens: tuple[int, ...]) -> str:
        return " ".join(map(str, tokens))


def job(remaining_ms: float = 10_000.0) -> Job:
    task = msgspec.structs.replace(
        plain_messages.TASK,
        task_id="a",
        kind="explain",
        prompt="why ?",
        telemetry={},
        deadline_ms=10_000.0,
        remaining_ms=remaining_ms,
    )
    now_s = time.monotonic()
    return Job("car-1", task, 0, now_s, now_s)


@contextmanager
def runner(**settings: Any) -> Iterator[LocalRunner]:
    worker = InferenceWorker()
    yield LocalRunner(Talker(), worker, cloud_line=None, slot_power_w=50.0, **settings)
    worker.close()


async def shown_by(running: LocalRunner, asked: Job) -> tuple[Answered | None, list[Answered]]:
    shown: list[Answered] = []
    answered = await running.answer(asked, shown.append, lambda waits: None)
    await asyncio.sleep(0)
    return answered, shown


async def test_words_come_as_they_stand_and_the_answer_last():
    with runner(stream_interval_ms=20.0) as running:
        answered, shown = await shown_by(running, job())
    assert answered is not None
    assert (answered.mode, answered.is_whole) == ("through", True)
    whole = [each for each in shown if each.is_whole]
    assert [each.text for each in whole] == ["7 7"], "the edge's own draft"
    begun = [each.text for each in shown if not each.is_whole]
    assert len(begun) >= 2
    assert all(answered.text.startswith(text) for text in begun)
    assert sorted(begun, key=len) == begun
    assert {each.mode for each in shown} == {"through"}


@pytest.mark.parametrize("interval_ms", [None, 60_000.0])
async def test_short_answers_come_whole(interval_ms: float | None):
    with runner(stream_interval_ms=interval_ms) as running:
        answered, shown = await shown_by(running, job())
    assert answered is not None
    assert [each.is_whole for each in shown] == [True]


async def test_nothing_is_shown_after_the_deadline():
    with runner(stream_interval_ms=1.0) as running:
        asked = job(remaining_ms=30.0)
        answered, shown = await shown_by(running, asked)
    assert answered is None
    assert all(len(each.text.split()) < TOKENS for each in shown)
