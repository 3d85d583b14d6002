"""A cloud node that asks a server, over a real broker: `transformers serve` with real models, and one that fails."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from roadside.bus import topics
from roadside.bus.errors import BackendError
from roadside.bus.kinds import EXPLAIN
from roadside.bus.messages import Accepted, NodeState, Rejected, Result, Task
from roadside.bus.transport import Bus
from roadside.cloud_node import node as cloud_node
from roadside.cloud_node.configuration import CloudConfiguration
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.samples import Sample, make_sample
from roadside.models.answering import cloud_answerer
from roadside.models.checkpoints import bundled_model_path
from roadside.models.images import colour_card_jpeg
from roadside.models.questions import Question, answer_at_once

FIRST_SEED = 4_300_000
START_TIMEOUT_S = 120.0
WITHOUT_SERVER = "`transformers serve` is not installed (pip install 'transformers[serving]')"


class Client:
    """Plays a vehicle."""

    def __init__(self, bus: Bus, node: str = "cloud-1") -> None:
        self.bus = bus
        self.node = node
        self.acks = bus.subscribe(topics.ACK, vehicle=bus.name)
        self.results = bus.subscribe(topics.RESULT, vehicle=bus.name)
        self.states = bus.subscribe(topics.NODE_STATE, node=node)

    async def send(self, task_id: str, *, sample: Sample | None = None, remaining_ms: float = 30_000.0) -> None:
        task = Task(
            task_id=task_id,
            attempt=1,
            kind=EXPLAIN.name,
            prompt=EXPLAIN.prompt,
            frames=(encode_jpeg(sample.image, 85) if sample is not None else colour_card_jpeg(),),
            telemetry=sample.telemetry if sample is not None else {},
            deadline_ms=30_000.0,
            remaining_ms=remaining_ms,
            qos_floor=0.0,
            place="cloud",
            max_tokens=EXPLAIN.max_tokens,
        )
        await self.bus.publish(topics.TASK, task, node=self.node)

    async def ack(self) -> Accepted | Rejected:
        return (await asyncio.wait_for(anext(self.acks), 30)).body

    async def result(self) -> Result:
        return (await asyncio.wait_for(anext(self.results), 60)).body

    async def state(self, matches: Callable[[NodeState], Any]) -> NodeState:
        async with asyncio.timeout(30):
            async for received in self.states:
                if matches(received.body):
                    return received.body
        raise AssertionError("the bus was closed")


@asynccontextmanager
async def gateway(broker_url: str, fleet: str, **settings: Any) -> AsyncIterator[Client]:
    """A cloud node in this process, and a client of it; the node is told to stop at the end, and must then end."""
    configuration = CloudConfiguration(broker=broker_url, fleet=fleet, backend="openai", heartbeat_s=0.1, **settings)
    stop = asyncio.Event()
    async with Bus(url=broker_url, fleet=fleet, name="car-1") as bus:
        client = Client(bus)
        running = asyncio.create_task(cloud_node.run(configuration, stop))
        serving = asyncio.create_task(client.state(lambda state: state.alive))
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            serving.cancel()
            await running
        try:
            yield client
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)


# A server that fails as it is told


async def test_answers_tokens_and_costs_are_counted(best_broker, fleet, faulty_server, faults):
    faulty_server.script = [faults.answer("The car\n stops . ", prompt_tokens=1000, completion_tokens=50)]
    settings = {
        "url": faulty_server.url,
        "model": "large",
        "quality": {"explain": 0.9},
        "price_per_million_prompt_tokens": 2.5,
        "price_per_million_completion_tokens": 10.0,
        "joules_per_prompt_token": 0.01,
        "joules_per_completion_token": 2.0,
    }
    async with gateway(best_broker.url, fleet, **settings) as client:
        before = await client.state(lambda state: state.alive)
        await client.send("a")
        result = await client.result()
        after = await client.state(lambda state: state.counters.get("answered") == 1)
    assert result.text == "The car stops ."
    assert (result.place, result.mode, result.model, result.made_by) == ("cloud", "chat", "large", ("full",) * 50)
    assert result.energy_j == pytest.approx(1000 * 0.01 + 50 * 2.0)
    assert result.energy_method == "modelled"
    assert before.quality == {"cloud": {"explain": 0.9}}
    assert before.load is not None
    assert (before.load.slots, before.grants_leases, before.model_hash) == (8, False, "")
    assert before.slot_power_w > 0, "what the node's own questions took tells it"
    spent = {name: after.counters[name] - before.counters[name] for name in ("prompt_tokens", "completion_tokens")}
    assert spent == {"prompt_tokens": 1000, "completion_tokens": 50}
    assert after.counters["cost_millionths"] - before.counters["cost_millionths"] == 1000 * 2.5 + 50 * 10


async def test_tasks_are_asked_side_by_side(best_broker, fleet, faulty_server, faults):
    faulty_server.script = [faults.answer("it stops .")]
    async with gateway(best_broker.url, fleet, url=faulty_server.url, model="m", parallel_requests=4) as client:
        all_asked = asyncio.Barrier(4)

        async def when_all_have_asked(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
            await all_asked.wait()
            await faults.answer("it stops .")(writer, request)

        faulty_server.script = [when_all_have_asked]
        for number in range(4):
            await client.send(str(number))
        assert {(await client.result()).task_id for _ in range(4)} == set("0123")


async def test_examples_of_the_training_split_go_with_every_question(
    best_broker, fleet, faulty_server, faults, training_log
):
    faulty_server.script = [faults.answer("it stops .")]
    settings = {"url": faulty_server.url, "model": "m", "examples_log": str(training_log), "examples": 2}
    async with gateway(best_broker.url, fleet, **settings) as client:
        await client.send("a", sample=make_sample(FIRST_SEED))
        await client.result()
    roles = [message["role"] for message in faulty_server.requests[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


async def test_a_hanging_server_costs_the_task_alone_and_is_then_left_alone(best_broker, fleet, faulty_server, faults):
    faulty_server.script = [faults.answer("it stops .")]
    async with gateway(best_broker.url, fleet, url=faulty_server.url, model="m") as client:
        faulty_server.script = [faults.hang]
        for number in range(3):
            await client.send(str(number), remaining_ms=300.0)
        state = await client.state(lambda state: state.alive and not state.places)
        assert state.counters["cancelled_at_deadline"] == 3
        faulty_server.script = [faults.answer("it goes on .")]
        await client.state(lambda state: state.places)
        await client.send("later")
        assert (await client.result()).text == "it goes on ."


async def test_a_task_that_the_server_fails_is_refused_by_reason_and_may_go_elsewhere(
    best_broker, fleet, faulty_server, faults
):
    faulty_server.script = [faults.answer("it stops .")]
    async with gateway(best_broker.url, fleet, url=faulty_server.url, model="m") as client:
        faulty_server.script = [faults.reply(401, "the key has expired")]
        await client.send("a")
        accepted, rejected = await client.ack(), await client.ack()
        assert isinstance(accepted, Accepted)
        assert isinstance(rejected, Rejected)
        assert rejected.reason == "unauthorised"
        state = await client.state(lambda state: not state.places)
        assert state.counters["rejected.unauthorised"] == 1
        assert state.counters["backend_errors.unauthorised"] == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ((401, "no"), "unauthorised"),
        ((404, "The model `m` does not exist"), "unknown-model"),
        ((404, "Not Found"), "wrong-url"),
        ((200, "<html></html>"), "not-an-answer"),
        ((400, "m is not a multimodal model"), "no-images"),
    ],
)
async def test_a_server_that_is_of_no_use_ends_the_node_before_it_joins(
    best_broker, fleet, faulty_server, faults, fault, reason
):
    faulty_server.script = [faults.reply(*fault)]
    with pytest.raises(BackendError) as refused:
        async with gateway(best_broker.url, fleet, url=faulty_server.url, model="m"):
            pytest.fail("it serves")
    assert refused.value.reason == reason


async def test_a_stop_is_heard_while_the_server_is_awaited(best_broker, fleet, faulty_server, faults):
    faulty_server.script = [faults.hang]
    configuration = CloudConfiguration(
        broker=best_broker.url, fleet=fleet, backend="openai", url=faulty_server.url, model="m"
    )
    stop = asyncio.Event()
    running = asyncio.create_task(cloud_node.run(configuration, stop))
    async with asyncio.timeout(20):
        while not faulty_server.requests:  # noqa: ASYNC110 (the server is asked)
            await asyncio.sleep(0.01)
        stop.set()
        await running


# transformers serve


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, unused_tcp_port_factory: Callable[[], int]) -> Iterator[str]:
    """The URL of a `transformers serve` that loads whatever model folder it is asked for."""
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "openai")):
        pytest.skip(WITHOUT_SERVER)
    folder = tmp_path_factory.mktemp("served")
    port = unused_tcp_port_factory()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--device", "cpu"], cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        give_up_at_s = time.monotonic() + START_TIMEOUT_S
        while not _is_up(port):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < give_up_at_s, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


async def test_a_real_server_gives_the_answers_that_its_model_gives(best_broker, fleet, served):
    """Without instructions a server's prompt is word for word that of the model's own answerer."""
    samples = [make_sample(FIRST_SEED + number) for number in range(4)]
    settings = {"url": served, "model": str(bundled_model_path()), "instructions": ""}
    async with gateway(best_broker.url, fleet, **settings) as client:
        for number, sample in enumerate(samples):
            await client.send(str(number), sample=sample)
        results = {each.task_id: each for each in [await client.result() for _ in samples]}
        state = await client.state(lambda state: state.counters.get("answered") == len(samples))
    alone = cloud_answerer(None)
    for number, sample in enumerate(samples):
        jpeg = encode_jpeg(sample.image, 85)
        expected = answer_at_once(
            alone, Question(EXPLAIN.prompt, (jpeg,), sample.telemetry, max_tokens=EXPLAIN.max_tokens)
        )
        assert results[str(number)].text == expected.text
        assert len(results[str(number)].made_by) == len(expected.tokens)
    assert len({each.text for each in results.values()}) > 1, "the pictures made a difference"
    assert state.counters["completion_tokens"] > 0
    assert "uncounted_answers" not in state.counters


async def test_a_real_server_takes_instructions_and_examples(best_broker, fleet, served, training_log):
    settings = {"url": served, "model": str(bundled_model_path()), "examples_log": str(training_log), "examples": 2}
    async with gateway(best_broker.url, fleet, **settings) as client:
        before = await client.state(lambda state: state.alive)
        await client.send("a", sample=make_sample(FIRST_SEED))
        result = await client.result()
        after = await client.state(lambda state: state.counters.get("answered") == 1)
    assert result.text
    # A picture takes the bundled model 16 tokens, and there are three.
    assert after.counters["prompt_tokens"] - before.counters["prompt_tokens"] > 3 * 16


async def test_a_real_server_that_leaves_pictures_out_is_refused(best_broker, fleet, served, tmp_path):
    """A model of words alone: the server drops the picture without a word."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = str(bundled_model_path() / "tokenizer.json")
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=words, eos_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "words")
    tokenizer.save_pretrained(tmp_path / "words")
    with pytest.raises(BackendError, match="leaves pictures out") as refused:
        async with gateway(best_broker.url, fleet, url=served, model=str(tmp_path / "words"), max_tokens=8):
            pytest.fail("it serves")
    assert refused.value.reason == "no-images"


async def test_a_real_server_without_the_model_is_named(best_broker, fleet, served):
    with pytest.raises(BackendError) as refused:
        async with gateway(best_broker.url, fleet, url=served, model="nobody/no-such-model"):
            pytest.fail("it serves")
    assert refused.value.reason in ("unknown-model", "server-error")
    assert served in str(refused.value)


async def test_a_real_server_under_a_wrong_address_is_named(best_broker, fleet, served):
    with pytest.raises(BackendError) as refused:
        async with gateway(best_broker.url, fleet, url=served.removesuffix("/v1"), model="m"):
            pytest.fail("it serves")
    assert refused.value.reason == "wrong-url"
