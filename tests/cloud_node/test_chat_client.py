"""The client against a real web server on loopback that fails in the ways servers do."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from roadside.bus.errors import BackendError, ConfigurationError
from roadside.cloud_node.backends.chat_client import RETRIES, ChatClient, ServerAddress, checked_url

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "why ?"}]


@asynccontextmanager
async def client_of(url: str, counters: Counter[str] | None = None, **address: Any) -> AsyncIterator[ChatClient]:
    counters = Counter() if counters is None else counters
    async with ChatClient(ServerAddress(url, "m", **address), counters=counters, jitter=random.Random(0)) as client:
        yield client


async def ask(client: ChatClient, *, within_s: float = 20.0) -> str:
    completion = await client.complete(QUESTION, max_tokens=7, deadline_s=time.monotonic() + within_s)
    return completion.text


async def test_a_question_and_its_answer(faulty_server, faults):
    faulty_server.script = [faults.answer("it stops .")]
    counters: Counter[str] = Counter()
    async with client_of(faulty_server.url, counters, api_key="secret") as client:
        assert await ask(client) == "it stops ."
    (request,), (headers,) = faulty_server.requests, faulty_server.headers
    assert request == {"model": "m", "messages": QUESTION, "max_tokens": 7, "temperature": 0}
    assert headers["authorization"] == "Bearer secret"
    assert counters == {"backend_requests": 1}


@pytest.mark.parametrize("fault", ["429", "500", "503", "hang_up", "cut_in_the_middle"])
async def test_what_passes_with_time_is_tried_again(faulty_server, faults, fault):
    failing = faults.reply(int(fault), "busy") if fault.isdigit() else getattr(faults, fault)
    faulty_server.script = [failing, failing, faults.answer("it stops .")]
    counters: Counter[str] = Counter()
    async with client_of(faulty_server.url, counters) as client:
        assert await ask(client) == "it stops ."
    assert counters["backend_requests"] == 3
    assert sum(count for name, count in counters.items() if name.startswith("backend_retries.")) == 2


async def test_it_gives_up_after_some_retries_with_the_reason(faulty_server, faults):
    faulty_server.script = [faults.reply(500, "no memory left")]
    counters: Counter[str] = Counter()
    async with client_of(faulty_server.url, counters) as client:
        with pytest.raises(BackendError, match="no memory left") as failed:
            await ask(client)
    assert failed.value.reason == "server-error"
    assert counters["backend_requests"] == RETRIES + 1
    assert counters["backend_errors.server-error"] == 1


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (401, "who are you", "unauthorised"),
        (404, "The model `m` does not exist", "unknown-model"),
        (404, "Not Found", "wrong-url"),
        (400, "this is not a multimodal model", "no-images"),
        (200, "<html>a router's front page</html>", "not-an-answer"),
        (302, "", "wrong-url"),
    ],
)
async def test_what_does_not_pass_is_not_tried_again(faulty_server, faults, status, said, reason):
    faulty_server.script = [faults.reply(status, said, location="http://127.0.0.1:9/")]
    async with client_of(faulty_server.url) as client:
        with pytest.raises(BackendError) as failed:
            await ask(client)
    assert failed.value.reason == reason
    assert len(faulty_server.requests) == 1


async def test_a_server_that_is_not_there_is_named_without_its_password(unused_tcp_port_factory):
    url = f"http://user:hidden@127.0.0.1:{unused_tcp_port_factory()}/v1"
    async with client_of(url) as client:
        with pytest.raises(BackendError, match="start the server there") as failed:
            await ask(client)
    assert failed.value.reason == "unreachable"
    assert "hidden" not in str(failed.value)


async def test_a_hanging_request_is_broken_off_at_the_deadline(faulty_server, faults):
    faulty_server.script = [faults.hang, faults.answer("it stops .")]
    async with client_of(faulty_server.url) as client:
        with pytest.raises(TimeoutError):
            await ask(client, within_s=0.3)
        async with asyncio.timeout(10):
            while not faulty_server.abandoned:  # noqa: ASYNC110 (the server sees its client go)
                await asyncio.sleep(0.01)
        assert await ask(client) == "it stops .", "the next question is not held up by it"


async def test_it_does_not_wait_longer_than_there_is_time(faulty_server, faults):
    faulty_server.script = [faults.reply(429, "slow down", retry_after="60")]
    async with client_of(faulty_server.url) as client:
        with pytest.raises(BackendError) as failed:
            await ask(client)
    assert failed.value.reason == "overloaded"
    assert len(faulty_server.requests) == 1, "the server wants to be left alone for longer than the task has"


async def test_a_server_that_says_when_to_come_back_is_believed(faulty_server, faults):
    faulty_server.script = [faults.reply(429, "slow down", retry_after="0.6"), faults.answer("it stops .")]
    async with client_of(faulty_server.url) as client:
        asked_s = time.monotonic()
        assert await ask(client) == "it stops ."
        assert time.monotonic() - asked_s >= 0.6


async def test_an_endless_answer_is_cut_off(faulty_server, faults):
    faulty_server.script = [faults.reply(200, b" " * 8_000_000)]
    async with client_of(faulty_server.url) as client:
        with pytest.raises(BackendError) as failed:
            await ask(client)
    assert failed.value.reason == "not-an-answer"


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_completion_tokens", 7),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature", None),
    ],
)
async def test_it_learns_how_a_server_wants_to_be_asked(faulty_server, faults, said, field, value):
    faulty_server.script = [faults.reply(400, said), faults.answer("it stops .")]
    async with client_of(faulty_server.url) as client:
        assert [await ask(client), await ask(client)] == ["it stops .", "it stops ."]
    assert [request.get(field) for request in faulty_server.requests[1:]] == [value, value]


async def test_many_questions_go_out_at_once(faulty_server, faults):
    asked = asyncio.Barrier(5)

    async def when_all_have_asked(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        await asked.wait()
        await faults.answer("it stops .")(writer, request)

    faulty_server.script = [when_all_have_asked]
    async with client_of(faulty_server.url) as client, asyncio.timeout(20):
        assert await asyncio.gather(*(ask(client) for _ in range(5))) == ["it stops ."] * 5


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1", ""])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigurationError, match="write http://host:8000/v1"):
        checked_url(url)


@pytest.mark.parametrize("url", ["http://h:8000/v1", "http://h:8000/v1/", "http://h:8000/v1/chat/completions"])
def test_a_url_may_end_in_several_ways(url):
    assert checked_url(url) == "http://h:8000/v1"


def test_a_key_is_not_shown():
    assert "secret" not in repr(ServerAddress("http://h/v1", "m", "secret"))
