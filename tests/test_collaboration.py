"""An edge and a cloud answer together over a real broker, with the bundled model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from roadside.bus import topics
from roadside.bus.kinds import DESCRIBE, EXPLAIN
from roadside.bus.messages import ContextChunk, InferRequest, NodeState, Result, Task
from roadside.bus.transport import Bus
from roadside.cloud_node import node as cloud_node
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.samples import make_sample
from roadside.edge_node import node as edge_node
from roadside.edge_node.configuration import EdgeConfiguration
from roadside.models.answering import cloud_answerer
from roadside.models.questions import Question, answer_at_once

FIRST_SEED = 4_300_000
NEVER_SURE = (1.1, 1.1)


def task(number: int, *, exit_thresholds: tuple[float, ...] = (), remaining_ms: float = 60_000.0) -> Task:
    sample = make_sample(FIRST_SEED + number)
    kind = DESCRIBE if number % 2 else EXPLAIN
    return Task(
        task_id=f"task-{number}",
        attempt=1,
        kind=kind.name,
        prompt=kind.prompt,
        frames=(encode_jpeg(sample.image, 85),),
        telemetry=sample.telemetry,
        deadline_ms=60_000.0,
        remaining_ms=remaining_ms,
        qos_floor=0.0,
        place="edge+cloud",
        max_tokens=kind.max_tokens,
        exit_thresholds=exit_thresholds,
    )


class Pair:
    """A vehicle's view of an edge and its cloud; `heard` is what went between those two."""

    def __init__(self, bus: Bus, stop_cloud: asyncio.Event) -> None:
        self.bus = bus
        self.stop_cloud = stop_cloud
        self.states = bus.subscribe(topics.NODE_STATE)
        self.results = bus.subscribe(topics.RESULT, vehicle=bus.name)
        self.chunks = bus.subscribe(topics.CONTEXT, limit=10_000)
        self.requests = bus.subscribe(topics.INFER, limit=10_000)

    async def until(self, matches: Callable[[NodeState], Any]) -> None:
        async with asyncio.timeout(60):
            async for received in self.states:
                if matches(received.body):
                    return

    async def ask(self, asked: Task) -> list[Result]:
        """All whole answers to a task, the final one last; its first words before that are left out."""
        await self.bus.publish(topics.TASK, asked, node="edge-1")
        answers: list[Result] = []
        async with asyncio.timeout(60):
            async for received in self.results:
                if received.body.is_whole:
                    answers.append(received.body)
                if received.body.final:
                    break
        return answers


@asynccontextmanager
async def pair(url: str, fleet: str, **edge_settings: Any) -> AsyncIterator[Pair]:
    stop, stop_cloud = asyncio.Event(), asyncio.Event()
    edge = EdgeConfiguration(broker=url, fleet=fleet, **edge_settings)
    cloud = cloud_node.CloudConfiguration(broker=url, fleet=fleet)
    async with Bus(url=url, fleet=fleet, name="car-1") as bus:
        running = [
            asyncio.create_task(edge_node.run(edge, stop)),
            asyncio.create_task(cloud_node.run(cloud, stop_cloud)),
        ]
        made = Pair(bus, stop_cloud)
        await made.until(lambda state: state.node == "edge-1" and state.alive and "edge+cloud" in state.places)
        yield made
        stop.set()
        stop_cloud.set()
        await asyncio.wait_for(asyncio.gather(*running), 60)


async def test_above_one_the_answer_is_the_unsplit_model_s(best_broker, fleet):
    """Token by token, with float16 context on the wire."""
    whole = cloud_answerer(None)
    async with pair(best_broker.url, fleet) as nodes:
        for number in range(6):
            asked = task(number, exit_thresholds=NEVER_SURE)
            result = (await nodes.ask(asked))[-1]
            expected = answer_at_once(
                whole, Question(asked.prompt, asked.frames, asked.telemetry, max_tokens=asked.max_tokens)
            )
            assert result.text == expected.text
            assert result.made_by == ("full",) * len(expected.tokens)
            assert (result.place, result.mode) == ("edge+cloud", "ce")


FORMS: dict[str, dict[str, Any]] = {
    "naive": {"mode": "naive"},
    "naive-kv": {"mode": "naive-kv"},
    "cloud": {"mode": "cloud", "prompt_upload": "image"},
    "through": {"mode": "through"},
    "through, prompt as an image": {"mode": "through", "prompt_upload": "image"},
    "through, token ids up": {"mode": "through", "prompt_upload": "image", "context": "tokens"},
    "through, in float32": {"mode": "through", "context_dtype": "float32"},
    "ce-optimistic": {"mode": "ce-optimistic"},
    "ce-sync": {"mode": "ce-sync"},
    "ce, in int8": {"mode": "ce", "context_dtype": "int8"},
}
# A test's machine may be busy: what is looked at is not how fast a cloud answers.
PATIENT = {"cloud_timeout_ms": 20_000.0}


# Those that have most in common with others wait for `make test-slow`.
QUICK = ("cloud", "through", "through, token ids up")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(settings, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name, settings in FORMS.items()
    ],
)
async def test_every_mode_says_what_the_unsplit_model_says(best_broker, fleet, settings):
    """The lossless ones with the exits' own thresholds, the others with exits that are never sure."""
    whole = cloud_answerer(None)
    exits = () if settings["mode"] in ("cloud", "through") else NEVER_SURE
    async with pair(best_broker.url, fleet, **PATIENT, **settings) as nodes:
        for number in range(3):
            asked = task(number, exit_thresholds=exits)
            result = (await nodes.ask(asked))[-1]
            expected = answer_at_once(
                whole, Question(asked.prompt, asked.frames, asked.telemetry, max_tokens=asked.max_tokens)
            )
            assert result.text == expected.text
            assert set(result.made_by) == {"full"}
            assert (result.place, result.mode) == ("edge+cloud", settings["mode"])
            assert result.context is not None
            assert not result.context.ended_alone
            assert result.context.resent_positions == 0


async def test_what_the_context_cost_is_told_exactly(best_broker, fleet):
    async with pair(best_broker.url, fleet) as nodes:
        result = (await nodes.ask(task(0, exit_thresholds=NEVER_SURE)))[-1]
        sessions: set[str] = set()
        positions = payload_bytes = 0
        requests: list[InferRequest] = []
        while len(nodes.requests):
            requests.append((await anext(nodes.requests)).body)
        last = requests[-1].session
        while len(nodes.chunks):
            chunk = (await anext(nodes.chunks)).body
            if isinstance(chunk, ContextChunk) and chunk.session == last:
                sessions.add(chunk.session)
                positions += chunk.hidden.shape[0]
                payload_bytes += chunk.hidden.data.nbytes
    use = result.context
    assert use is not None
    assert sessions == {last}
    assert (use.positions, use.payload_bytes_up) == (positions, payload_bytes)
    assert use.payload_bytes_up == use.positions * use.hidden_size * 2
    assert use.cloud_requests == len(result.made_by) == len({r.up_to for r in requests if r.session == last})
    # The prompt, and every token but the last, which is never fed back.
    assert use.positions - len(result.made_by) + 1 > 30
    assert not use.ended_alone
    assert result.energy_j > 0
    assert result.timing.context_ms > 0


async def test_the_edge_s_own_answer_comes_first_where_the_cloud_is_asked(best_broker, fleet):
    async with pair(best_broker.url, fleet) as nodes:
        provisional, final = await nodes.ask(task(1, exit_thresholds=NEVER_SURE))
        assert not provisional.final
        assert set(provisional.made_by) == {"exit2"}
        assert provisional.text.endswith(".")
        assert final.final
    async with pair(best_broker.url, fleet, draft=False, name="edge-1") as nodes:
        (final,) = await nodes.ask(task(1, exit_thresholds=NEVER_SURE))
        assert final.final


@pytest.mark.parametrize("calibrated", [(), (0.0, 0.0)])
async def test_a_sure_edge_hardly_asks(best_broker, fleet, calibrated):
    async with pair(best_broker.url, fleet) as nodes:
        answers = [(await nodes.ask(task(number, exit_thresholds=calibrated)))[-1] for number in range(4)]
    tokens = [maker for answer in answers for maker in answer.made_by]
    assert tokens.count("full") < len(tokens) / 2
    if calibrated == (0.0, 0.0):
        assert set(tokens) == {"exit1"}
        assert all(answer.context is not None and answer.context.cloud_requests == 0 for answer in answers)
    assert {answer.place for answer in answers} == {"edge+cloud"}, "a session was open, whether it asked or not"


async def test_without_a_cloud_the_edge_says_that_it_answered_alone(best_broker, fleet):
    async with pair(best_broker.url, fleet) as nodes:
        nodes.stop_cloud.set()
        await nodes.until(lambda state: state.node == "cloud-1" and not state.alive)
        await nodes.until(lambda state: state.node == "edge-1" and "edge+cloud" not in state.places)
        result = (await nodes.ask(task(0, exit_thresholds=NEVER_SURE)))[-1]
    assert (result.place, result.mode, result.context) == ("edge", "standalone", None)
    assert set(result.made_by) == {"exit2"}
