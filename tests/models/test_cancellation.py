"""Nobody computes for a task whose time is over: before it began, between two tokens, or while it waited its turn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from roadside.bus.messages import Task
from roadside.bus.places import Place
from roadside.models.admission import Job
from roadside.models.answering import cloud_answerer, edge_answerer, vehicle_answerer
from roadside.models.circumstances import UNKNOWN, Circumstances
from roadside.models.decoding import Spoke, Steps
from roadside.models.driving import Worked, drive
from roadside.models.energy import ModelledEnergy
from roadside.models.inference_worker import InferenceWorker
from roadside.models.local_runner import LocalRunner
from roadside.models.questions import Answer, Question, answer_at_once, own_place

PROMPT = "what is the car doing and why ?"


@pytest.fixture
def worker() -> Iterator[InferenceWorker]:
    made = InferenceWorker()
    yield made
    made.close()


async def driven(steps: Steps[Answer], worker: InferenceWorker, cancelled: Callable[[], bool]) -> tuple[Worked, int]:
    """What came of it, and how often tokens were said."""
    spoken: list[object] = []

    def watch(event: object) -> None:
        if isinstance(event, Spoke):
            spoken.append(event)

    worked = await drive(
        steps,
        worker,
        meter=ModelledEnergy(50.0),
        rank=0,
        cancelled=lambda: cancelled() or len(spoken) >= 2,
        watch=watch,
    )
    return worked, len(spoken)


@pytest.mark.parametrize(
    ("load", "place"),
    [(edge_answerer, "edge"), (edge_answerer, "edge+cloud"), (cloud_answerer, "cloud"), (vehicle_answerer, "vehicle")],
)
async def test_every_place_stops_between_two_tokens(
    load: Callable[[str], object], place: Place, tiny_folder: Path, frame: bytes, worker: InferenceWorker
):
    answerer = load(str(tiny_folder))
    question = Question(prompt=PROMPT, frames=(frame,), max_tokens=24)
    whole = answer_at_once(answerer, question, own_place(answerer))  # pyright: ignore[reportArgumentType]
    assert len(whole.tokens) > 4, "there is something to stop"
    steps = answerer.begin(question, place)  # pyright: ignore[reportAttributeAccessIssue]
    worked, spoken = await driven(steps, worker, lambda: False)
    assert worked.answer is None
    assert spoken == 2
    assert worked.computed_ms > 0, "and what it took is told"


async def test_what_waited_for_its_turn_until_nobody_waited_for_it_is_not_begun(worker: InferenceWorker):
    begun, held, over = [], threading.Event(), threading.Event()

    def steps() -> Steps[Answer]:
        begun.append(True)
        yield Spoke()
        raise AssertionError

    blocking = asyncio.ensure_future(worker.run(held.wait, rank=-1))
    waiting = asyncio.ensure_future(driven(steps(), worker, over.is_set))
    await asyncio.sleep(0.01)
    over.set()
    held.set()
    worked, _ = await waiting
    await blocking
    assert worked.answer is None
    assert worked.computed_ms == 0
    assert not begun


@dataclass
class Slow:
    """Says a token every few milliseconds, so many of them."""

    tokens: int
    model: str = "slow"
    model_hash: str = ""
    quality: dict[Place, dict[str, float]] = field(default_factory=dict)
    modes: dict[Place, str] = field(default_factory=lambda: {"edge": "standalone"})

    def begin(self, question: Question, place: Place, circumstances: Circumstances = UNKNOWN) -> Steps[Answer]:
        for _ in range(self.tokens):
            time.sleep(0.005)
            yield Spoke((1,))
        return Answer("said", (1,), ("exit1",), 0.9, 1.0, 1.0)

    def words(self, tokens: tuple[int, ...]) -> str:
        return str(tokens)


@pytest.mark.parametrize(("tokens", "is_counted"), [(10_000, True), (2, False)])
async def test_a_runner_counts_what_it_computed_for_nobody(
    tokens: int, is_counted: bool, worker: InferenceWorker, frame: bytes
):
    runner = LocalRunner(Slow(tokens), worker, cloud_line=None, slot_power_w=50.0)
    remaining_ms = 60.0 if is_counted else 30_000.0
    task = Task(
        task_id="t",
        attempt=1,
        kind="explain",
        prompt=PROMPT,
        frames=(frame,),
        telemetry={},
        deadline_ms=remaining_ms,
        remaining_ms=remaining_ms,
        qos_floor=0.5,
        place="edge",
    )
    now_s = time.monotonic()
    answered = await runner.answer(Job("v", task, 0, now_s, started_s=now_s), lambda _: None, lambda _: None)
    assert (answered is None) == is_counted
    assert (runner.counters["expired_work_ms"] > 0) == is_counted
