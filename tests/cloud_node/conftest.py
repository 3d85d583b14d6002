"""What clouds are tested with: a tiny decoder with random weights, cut in two; a web server that fails as told; a log.

The decoder's first half plays the edge's part, the second holds the layers of the cloud.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import ContextChunk, InferRequest, Lease, LeaseRequest
from roadside.bus.tensors import pack
from roadside.bus.transport import Bus
from roadside.cloud_node.collaboration import ContextServer
from roadside.cloud_node.parts import Beginning, CloudParts
from roadside.cloud_node.settings import CollaborationSettings, ContextSettings
from roadside.datasets.making import make_log
from roadside.models.inference_worker import InferenceWorker
from roadside.models.questions import Question
from roadside.models.stages import Stage, decoder_of, final_head
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 90
HIDDEN_SIZE = 32
FIRST_EXIT = 2
END_TOKEN = 1


@dataclass(frozen=True)
class Cut:
    """model: unsplit. parts: the cloud's; it reads a question as the numbers of tokens in its prompt."""

    model: Any
    first: Stage
    parts: CloudParts
    vocabulary: int = VOCABULARY
    hidden_size: int = HIDDEN_SIZE

    @torch.inference_mode()
    def hidden(self, tokens: list[int]) -> NDArray[np.float32]:
        """What an edge uploads for a sequence, as exact as float16: [positions, hidden_size]."""
        session = self.first.session()
        session.feed(decoder_of(self.model).embed_tokens(torch.tensor([tokens])))
        return session.catch_up()[0].half().float().numpy()

    @torch.inference_mode()
    def next_token(self, tokens: list[int]) -> int:
        """The unsplit model's choice."""
        return int(self.model(torch.tensor([tokens])).logits[0, -1].argmax())

    def answer(self, tokens: list[int], count: int) -> list[int]:
        """So many tokens, or fewer up to the end token, as the unsplit model goes on."""
        said: list[int] = []
        while len(said) < count and END_TOKEN not in said:
            said.append(self.next_token([*tokens, *said]))
        return said

    @staticmethod
    def words(tokens: list[int]) -> str:
        """The prompt of a question that has these tokens."""
        return " ".join(map(str, tokens))


def cut_up(model: Any, layers: int) -> Cut:
    decoder = decoder_of(model)
    first = Stage(decoder, 0, FIRST_EXIT)

    @torch.inference_mode()
    def encode(question: Question) -> torch.Tensor:
        tokens = [int(word) for word in question.prompt.split() if word.isdecimal()]
        if not tokens:
            raise MessageRefused("prompt", "no token in it")
        return decoder.embed_tokens(torch.tensor([tokens]))

    @torch.inference_mode()
    def embed(token: int) -> torch.Tensor:
        return decoder.embed_tokens(torch.tensor([[token]]))

    beginning = Beginning(first, encode, embed, end_token=END_TOKEN)
    return Cut(model, first, CloudParts(Stage(decoder, FIRST_EXIT, layers), final_head(model), beginning))


@pytest.fixture(scope="session")
def cut() -> Cut:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # The library's 0.02 leaves logits so flat that a wrong context could still pick the same token.
                parameter.normal_(std=0.25)
    return cut_up(model, layers=5)


PATIENCE_S = 20.0


class Edge:
    """Says what the test wants said, and hands over what comes back."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard = bus.subscribe(topics.TOKEN, edge=bus.name)
        self.lease = ""

    async def hear(self) -> Any:
        return (await asyncio.wait_for(anext(self.heard), PATIENCE_S)).body

    async def introduce(self, model_hash: str = "abc", first_exit_layer: int = 2, hidden_size: int = 32) -> Any:
        request = LeaseRequest(model_hash=model_hash, first_exit_layer=first_exit_layer, hidden_size=hidden_size)
        self.bus.post(topics.CONTEXT, request, node="cloud-1")
        answer = await self.hear()
        if isinstance(answer, Lease):
            self.lease = answer.lease
        return answer

    def send(self, session: str, hidden: Any, position: int = 0, rollback: int = 0, kept: int = 0) -> None:
        chunk = ContextChunk(
            session=session, rollback=rollback, position=position, hidden=pack(hidden, "float16"), kept=kept
        )
        self.bus.post(topics.CONTEXT, chunk, node="cloud-1")

    def request(self, session: str, up_to: int, rollback: int = 0, remaining_ms: float = 10_000.0) -> None:
        body = InferRequest(session=session, rollback=rollback, up_to=up_to, remaining_ms=remaining_ms)
        self.bus.post(topics.INFER, body, node="cloud-1")

    async def ask(self, session: str, up_to: int, **other: Any) -> Any:
        self.request(session, up_to, **other)
        return await self.hear()


@pytest.fixture
def edge_called(best_broker: Broker, fleet: str) -> Callable[[str], Any]:
    """An edge by its name."""

    @asynccontextmanager
    async def called(name: str) -> AsyncIterator[Edge]:
        async with Bus(url=best_broker.url, fleet=fleet, name=name) as bus:
            edge = Edge(bus)
            await edge.heard.active.wait()
            yield edge

    return called


@pytest.fixture
async def edge(edge_called: Callable[[str], Any]) -> AsyncIterator[Edge]:
    async with edge_called("edge-x") as edge:
        yield edge


@pytest.fixture
def cloud(best_broker: Broker, fleet: str, cut: Any) -> Callable[..., Any]:
    """Runs a cloud's context server; `compute` stands for its inference thread."""

    @asynccontextmanager
    async def running(
        *,
        grace_ms: float = 20.0,
        max_batch: int = 16,
        compute: Any = None,
        parts: dict[str, Any] | None = None,
        **limits: Any,
    ) -> AsyncIterator[ContextServer]:
        worker = InferenceWorker()
        parts = parts or {"parts": cut.parts, "model_hash": "abc"}
        async with Bus(url=best_broker.url, fleet=fleet, name="cloud-1") as bus:
            server = ContextServer(
                bus=bus,
                name="cloud-1",
                compute=compute or worker.run_urgently,
                slot_power_w=60.0,
                settings=CollaborationSettings(ContextSettings(**limits), grace_ms, max_batch),
                **parts,
            )
            task = asyncio.create_task(server.run())
            await asyncio.wait({asyncio.ensure_future(server.active.wait()), task}, return_when="FIRST_COMPLETED")
            yield server
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled(), task.exception()
            assert server.gauges() == {"contexts": 0, "context_bytes": 0}
        worker.close()

    return running


class HeldComputer:
    """An inference thread that begins only when the test lets it. asked: how much work it was given."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.asked = 0

    async def __call__(self, function: Callable[[], Any]) -> Any:
        self.asked += 1
        await self.free.wait()
        return function()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Gives the event loop time until a condition holds."""

    async def holds(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - counters have no event
                await asyncio.sleep(0.005)

    return holds


@pytest.fixture
def held() -> HeldComputer:
    return HeldComputer()


Responder = Callable[[asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]


class FaultyServer:
    """A web server that answers its requests as `script` says, one entry each, and the last entry for ever after.

    requests: the JSON bodies that it got; headers: of each request, in lower case; abandoned: requests whose client
    went away before they were answered.
    """

    def __init__(self) -> None:
        self.script: list[Responder] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.abandoned = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) is not None:
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.headers.append(headers)
                self.requests.append(json.loads(body))
                respond = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                responding = asyncio.ensure_future(respond(writer, self.requests[-1]))
                leaving = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({responding, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not responding.done():
                    self.abandoned += 1
                    responding.cancel()
                    return
                leaving.cancel()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def reply(status: int, body: bytes | dict[str, Any] | str, **headers: str) -> Responder:
    """A whole HTTP answer."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()

    async def respond(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        del request
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()

    return respond


def answer(text: str | None, *, prompt_tokens: int = 100, completion_tokens: int = 10, **choice: Any) -> Responder:
    """What a chat-completions server says on a good day. A question without a picture has 20 tokens fewer."""

    async def respond(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        seen = "image_url" in json.dumps(request)
        usage = {"prompt_tokens": prompt_tokens - (0 if seen else 20), "completion_tokens": completion_tokens}
        message = {"role": "assistant", "content": text}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}], "usage": usage}
        await reply(200, body)(writer, request)

    return respond


async def hang(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    await asyncio.sleep(3600)


async def hang_up(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    writer.close()


async def cut_in_the_middle(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"choices": [{"mess')
    await writer.drain()
    writer.close()


@pytest.fixture
def faults() -> SimpleNamespace:
    """What a faulty server can do: the functions above, by their names."""
    return SimpleNamespace(reply=reply, answer=answer, hang=hang, hang_up=hang_up, cut_in_the_middle=cut_in_the_middle)


@pytest.fixture
async def faulty_server() -> AsyncIterator[FaultyServer]:
    server = FaultyServer()
    connections: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(server.serve(reader, writer)))

    listening = await asyncio.start_server(begin, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    yield server
    for connection in connections:
        connection.cancel()
    await asyncio.gather(*connections, return_exceptions=True)
    listening.close()


@pytest.fixture(scope="session")
def training_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered driving log of two clips, the first for training and the second for tests; tests only read it."""
    folder = tmp_path_factory.mktemp("logs") / "two-clips"
    make_log(folder, seed=3, count=2)
    first, second = (folder / "test.txt").read_text().split()
    (folder / "train.txt").write_text(f"{first}\n")
    (folder / "test.txt").write_text(f"{second}\n")
    return folder
