"""Edge and cloud, with the bundled model, over a real broker: a node says what its model says by itself."""

from __future__ import annotations

import asyncio

import pytest
from roadside.bus import topics
from roadside.bus.kinds import EXPLAIN
from roadside.bus.messages import Result, Task
from roadside.bus.transport import Bus
from roadside.cloud_node import node as cloud_node
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.samples import make_sample
from roadside.edge_node import node as edge_node
from roadside.edge_node.configuration import EdgeConfiguration
from roadside.models.answering import cloud_answerer, edge_answerer
from roadside.models.questions import Question, answer_at_once

FIRST_SEED = 4_200_000


def task(number: int, *, exit_thresholds: tuple[float, ...] = ()) -> Task:
    sample = make_sample(FIRST_SEED + number)
    return Task(
        task_id=f"task-{number}-{len(exit_thresholds)}-{sum(exit_thresholds):.0f}",
        attempt=1,
        kind=EXPLAIN.name,
        prompt=EXPLAIN.prompt,
        frames=(encode_jpeg(sample.image, 85),),
        telemetry=sample.telemetry,
        deadline_ms=60_000.0,
        remaining_ms=60_000.0,
        qos_floor=0.0,
        place="edge",
        exit_thresholds=exit_thresholds,
    )


async def answers(url: str, fleet: str, run, configuration, tasks: list[Task]) -> list[Result]:
    """Run a node, send it the tasks, and return its answers in order."""
    stop = asyncio.Event()
    async with Bus(url=url, fleet=fleet, name="car-1") as bus:
        states, results = bus.subscribe(topics.NODE_STATE), bus.subscribe(topics.RESULT, vehicle="car-1")
        running = asyncio.create_task(run(configuration, stop))
        announced = await asyncio.wait_for(anext(states), 60)
        assert announced.body.model_hash
        for each in tasks:
            await bus.publish(topics.TASK, each, node=configuration.name)
        heard: list[Result] = []
        while len(heard) < len(tasks):
            result = (await asyncio.wait_for(anext(results), 60)).body
            if result.final:  # a slow machine also streams first words
                heard.append(result)
        stop.set()
        await asyncio.wait_for(running, 60)
    return heard


def question(asked: Task) -> Question:
    return Question(asked.prompt, asked.frames, asked.telemetry, exit_thresholds=asked.exit_thresholds)


async def test_an_edge_answers_as_its_partition_does(best_broker, fleet):
    configuration = EdgeConfiguration(broker=best_broker.url, fleet=fleet)
    tasks = [task(number) for number in range(3)]
    heard = await answers(best_broker.url, fleet, edge_node.run, configuration, tasks)
    alone = edge_answerer(None)
    for asked, result in zip(tasks, heard, strict=True):
        expected = answer_at_once(alone, question(asked))
        assert (result.text, result.made_by) == (expected.text, expected.made_by)
        assert (result.place, result.mode) == ("edge", "standalone")
        assert set(result.made_by) <= {"exit1", "exit2"}


@pytest.mark.parametrize(("threshold", "speaker"), [(0.0, "exit1"), (2.0, "exit2")])
async def test_the_vehicle_may_set_the_exit_threshold(best_broker, fleet, threshold, speaker):
    configuration = EdgeConfiguration(broker=best_broker.url, fleet=fleet)
    (result,) = await answers(
        best_broker.url, fleet, edge_node.run, configuration, [task(0, exit_thresholds=(threshold, 0.0))]
    )
    assert set(result.made_by) == {speaker}


async def test_a_cloud_answers_as_the_whole_model_does(best_broker, fleet):
    configuration = cloud_node.CloudConfiguration(broker=best_broker.url, fleet=fleet)
    tasks = [task(number) for number in range(3)]
    heard = await answers(best_broker.url, fleet, cloud_node.run, configuration, tasks)
    alone = cloud_answerer(None)
    for asked, result in zip(tasks, heard, strict=True):
        expected = answer_at_once(alone, question(asked))
        assert result.text == expected.text
        assert (result.place, set(result.made_by)) == ("cloud", {"full"})
