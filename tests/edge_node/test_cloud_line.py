"""An edge's line to its clouds over a real broker, with clouds that do what the test tells them to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from roadside.bus import topics
from roadside.bus.messages import (
    CloseContext,
    ContextChunk,
    InferRequest,
    Lease,
    LeaseRefused,
    LeaseRequest,
    Load,
    Message,
    Nack,
    NodeState,
    TokenReply,
)
from roadside.bus.tensors import unpack
from roadside.bus.transport import Bus
from roadside.edge_node.cloud_line import CloudLine
from roadside.edge_node.cloud_session import BusCloudSession, CloudTerms, SessionSettings
from roadside.models.companions import CloudLine as ExpectedByNodes
from roadside.models.decoding import Ask, CloudReply, Upload
from roadside.models.questions import Question

TERMS = CloudTerms(model_hash="abc", first_exit_layer=2, hidden_size=8)
EDGE = "edge-1"
QUESTION = Question("why ?", ())


class ScriptedCloud:
    """Grants leases and answers every request with the number of positions that it was asked about."""

    def __init__(
        self,
        bus: Bus,
        *,
        wait_ms: float = 0.0,
        greeting: Lease | LeaseRefused | None = None,
        grants_leases: bool = True,
    ) -> None:
        self.bus = bus
        self.wait_ms = wait_ms
        self.grants_leases = grants_leases
        self.greeting = greeting or Lease(lease="lease", session_ttl_ms=1000)
        self.heard: list[Message] = []
        self.answer: Callable[[InferRequest], Message | None] = self.token

    def announce(self, *, alive: bool = True) -> None:
        load = Load(queued=0, running=0, slots=1, wait_ms=self.wait_ms, service_ms={})
        state = NodeState(
            node=self.bus.name,
            role="cloud",
            alive=alive,
            places=("cloud",),
            load=load,
            grants_leases=self.grants_leases,
        )
        self.bus.post(topics.NODE_STATE, state, node=self.bus.name)

    async def listen(self, topic: topics.Topic) -> None:
        async for received in self.bus.subscribe(topic, node=self.bus.name):
            body = received.body
            self.heard.append(body)
            reply = None
            if isinstance(body, LeaseRequest):
                reply = self.greeting
            elif isinstance(body, InferRequest):
                reply = self.answer(body)
            if reply is not None:
                self.bus.post(topics.TOKEN, reply, edge=received.names["edge"], node=self.bus.name)

    def of(self, kind: type[Message]) -> list[Any]:
        return [body for body in self.heard if isinstance(body, kind)]

    @staticmethod
    def token(request: InferRequest) -> TokenReply:
        return TokenReply(
            session=request.session,
            rollback=request.rollback,
            up_to=request.up_to,
            tokens=(request.up_to,),
            n_accepted=0,
            confidences=(0.9,),
            queue_ms=0.0,
            compute_ms=1.0,
            energy_j=0.5,
        )


@asynccontextmanager
async def cloud_on(url: str, fleet: str, name: str = "cloud-1", **settings: Any) -> AsyncIterator[ScriptedCloud]:
    async with Bus(url=url, fleet=fleet, name=name) as bus, asyncio.TaskGroup() as group:
        cloud = ScriptedCloud(bus, **settings)
        listening = [group.create_task(cloud.listen(topic)) for topic in (topics.CONTEXT, topics.INFER)]
        await asyncio.sleep(0.05)  # subscribed
        cloud.announce()
        yield cloud
        for task in listening:
            task.cancel()


@asynccontextmanager
async def line_on(url: str, fleet: str, **settings: Any) -> AsyncIterator[CloudLine]:
    async with Bus(url=url, fleet=fleet, name=EDGE) as bus:
        session = SessionSettings(**{"timeout_ms": 2000.0, **settings.pop("session", {})})
        line = CloudLine(bus=bus, terms=TERMS, settings=session, **settings)
        running = asyncio.create_task(line.run())
        await line.active.wait()
        try:
            yield line
        finally:
            running.cancel()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (what is waited for is in another process's hands)
            await asyncio.sleep(0.01)


async def opened(line: CloudLine, deadline_s: float = 60.0) -> BusCloudSession:
    await until(lambda: line.available)
    session = line.open(time.monotonic() + deadline_s, QUESTION)
    assert session is not None
    return session


def rows(first: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Small whole numbers, which float16 holds exactly."""
    return np.arange(first * 8, (first + count) * 8, dtype=np.float32).reshape(count, 8)


def said(up_to: int) -> CloudReply:
    """What the scripted cloud says."""
    return CloudReply(up_to, (up_to,), 0, (0.9,))


async def ask(session: BusCloudSession, up_to: int) -> CloudReply | None:
    """As a decoding does it: from the inference thread."""
    await asyncio.to_thread(session.send, Ask(up_to))
    return await asyncio.wait_for(session.reply(), 20)


async def test_it_is_what_a_node_expects(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line:
        assert isinstance(line, ExpectedByNodes)
        assert not line.available
        assert line.open(time.monotonic() + 1, QUESTION) is None


async def test_a_lease_then_context_up_and_a_token_down(broker, fleet):
    async with line_on(broker.url, fleet) as line, cloud_on(broker.url, fleet) as cloud:
        session = await opened(line)
        await asyncio.to_thread(session.send, Upload(0, rows(0, 5)))
        assert await ask(session, 5) == said(5)
        await asyncio.to_thread(session.send, Upload(5, rows(5, 1)))
        assert await ask(session, 6) == said(6)
        use = session.close()
        await until(lambda: cloud.of(CloseContext))
    (request,) = cloud.of(LeaseRequest)
    assert (request.model_hash, request.first_exit_layer, request.hidden_size) == ("abc", 2, 8)
    chunks = cloud.of(ContextChunk)
    assert [chunk.position for chunk in chunks] == [0, 5]
    assert np.array_equal(np.concatenate([unpack(chunk.hidden) for chunk in chunks]), rows(0, 6))
    assert {chunk.session for chunk in chunks} == {session.name}
    assert (use.cloud, use.positions, use.hidden_size, use.cloud_requests) == ("cloud-1", 6, 8, 2)
    assert use.payload_bytes_up == 6 * 8 * 2
    assert use.bytes_up > use.payload_bytes_up
    assert (use.resent_positions, use.ended_alone) == (0, False)
    assert session.energy_j == pytest.approx(1.0)


async def test_large_context_goes_in_pieces(best_broker, fleet):
    settings = {"session": {"chunk_bytes": 1024}}
    async with line_on(best_broker.url, fleet, **settings) as line, cloud_on(best_broker.url, fleet) as cloud:
        session = await opened(line)
        session.send(Upload(0, rows(0, 200)))
        assert await ask(session, 200) == said(200)
    chunks = cloud.of(ContextChunk)
    assert [chunk.position for chunk in chunks] == [0, 64, 128, 192]
    assert np.array_equal(np.concatenate([unpack(chunk.hidden) for chunk in chunks]), rows(0, 200))


async def test_what_is_missing_is_sent_again_and_asked_again(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:

        def first_a_nack(request: InferRequest) -> Message:
            if len(cloud.of(InferRequest)) == 1:
                return Nack(session=request.session, rollback=0, reason="missing", first=1, end=3)
            return cloud.token(request)

        cloud.answer = first_a_nack
        session = await opened(line)
        session.send(Upload(0, rows(0, 4)))
        assert await ask(session, 4) == said(4)
        use = session.close()
    again = cloud.of(ContextChunk)[-1]
    assert again.position == 1
    assert np.array_equal(unpack(again.hidden), rows(1, 2))
    assert (use.positions, use.resent_positions, use.cloud_requests) == (4, 2, 1)


async def test_a_forgotten_session_goes_up_once_more_under_a_new_name(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:
        forgotten: set[str] = set()

        def forget_the_first(request: InferRequest) -> Message:
            forgotten.add(request.session)
            if len(forgotten) == 1:
                return Nack(session=request.session, rollback=0, reason="unknown-session")
            return cloud.token(request)

        cloud.answer = forget_the_first
        session = await opened(line)
        session.send(Upload(0, rows(0, 4)))
        assert await ask(session, 4) == said(4)
        assert not session.close().ended_alone
    by_session = [(chunk.session, chunk.position) for chunk in cloud.of(ContextChunk)]
    assert len(forgotten) == 2
    assert [position for _, position in by_session] == [0, 0]
    assert len({name for name, _ in by_session}) == 2


@pytest.mark.parametrize("reason", ["conflict", "too-large", "too-late"])
async def test_a_cloud_that_cannot_help_is_not_asked_again(best_broker, fleet, reason):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:
        cloud.answer = lambda request: Nack(session=request.session, rollback=0, reason=reason)
        session = await opened(line)
        session.send(Upload(0, rows(0, 4)))
        assert await ask(session, 4) is None
        assert session.close().ended_alone
        assert line.available, "that was this answer's trouble, not the cloud's"


async def test_a_cloud_that_has_forgotten_the_lease_is_asked_for_a_new_one(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:
        cloud.answer = lambda request: Nack(session=request.session, rollback=0, reason="unknown-session")
        session = await opened(line)
        session.send(Upload(0, rows(0, 1)))
        assert await ask(session, 1) is None
        session.close()
        assert not line.available
        cloud.answer, cloud.greeting = cloud.token, Lease(lease="new", session_ttl_ms=1000)
        await asyncio.sleep(1.0)  # a lease is not asked for more often
        cloud.announce()
        assert (await opened(line)).name.startswith("new.")


async def test_a_silent_cloud_is_given_up_after_the_time_limit_and_passed_over(best_broker, fleet):
    settings = {"session": {"timeout_ms": 300.0}}
    async with line_on(best_broker.url, fleet, **settings) as line, cloud_on(best_broker.url, fleet) as cloud:
        cloud.answer = lambda request: None
        session = await opened(line)
        session.send(Upload(0, rows(0, 4)))
        assert await ask(session, 4) is None
        assert len(cloud.of(InferRequest)) == 2, "asked once more in case the first was lost"
        assert session.close().ended_alone
        assert not line.available
        cloud.announce()
        await until(lambda: line.available)


async def test_the_time_limit_leaves_the_edge_time_to_end_alone(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:
        cloud.answer = lambda request: None
        session = await opened(line, deadline_s=0.4)
        session.send(Upload(0, rows(0, 1)))
        before_s = time.monotonic()
        assert await ask(session, 1) is None
        assert cloud.of(InferRequest)[0].remaining_ms <= 200
        assert time.monotonic() >= before_s + 0.1
        late = line.open(time.monotonic() - 1, QUESTION) if line.available else None
        assert late is None or await ask(late, 1) is None


async def test_a_dying_cloud_is_known_at_once(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:
        cloud.answer = lambda request: None
        session = await opened(line)
        session.send(Upload(0, rows(0, 1)))
        session.send(Ask(1))
        await until(lambda: cloud.of(InferRequest))
        cloud.announce(alive=False)
        assert await asyncio.wait_for(session.reply(), 20) is None
        assert not line.available


async def test_a_restarted_cloud_must_grant_a_new_lease(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line:
        async with cloud_on(best_broker.url, fleet) as first:
            assert (await opened(line)).name.startswith("lease.")
            assert len(first.of(LeaseRequest)) == 1
        async with cloud_on(best_broker.url, fleet, greeting=Lease(lease="second", session_ttl_ms=1000)) as second:
            await until(lambda: second.of(LeaseRequest))
            assert (await opened(line)).name.startswith("second.")


async def test_a_cloud_that_refuses_is_left_alone(best_broker, fleet):
    refusing = cloud_on(best_broker.url, fleet, greeting=LeaseRefused(reason="model"))
    async with line_on(best_broker.url, fleet) as line, refusing as cloud:
        await until(lambda: cloud.of(LeaseRequest))
        for _ in range(3):
            cloud.announce()
        await asyncio.sleep(0.2)
        assert len(cloud.of(LeaseRequest)) == 1
        assert not line.available


async def test_a_cloud_that_grants_no_leases_is_not_asked_for_one(best_broker, fleet):
    url = best_broker.url
    async with line_on(url, fleet) as line, cloud_on(url, fleet, "cloud-1", grants_leases=False) as alone:
        async with cloud_on(url, fleet, "cloud-2") as other:
            alone.announce()
            await until(lambda: other.of(LeaseRequest))
            await until(lambda: line.available)
        assert not alone.of(LeaseRequest)


async def test_the_least_busy_cloud_is_asked_and_a_preferred_one_alone(best_broker, fleet):
    url = best_broker.url
    async with (
        line_on(url, fleet) as line,
        cloud_on(url, fleet, "cloud-busy", wait_ms=500.0),
        cloud_on(url, fleet, "cloud-free") as free,
    ):
        await until(lambda: len(line._clouds) == 2 and all(c.lease for c in line._clouds.values()))
        session = await opened(line)
        session.send(Upload(0, rows(0, 1)))
        assert await ask(session, 1) == said(1)
        assert free.of(InferRequest)
        assert session.close().cloud == "cloud-free"
    async with line_on(url, fleet, preferred="cloud-busy") as line, cloud_on(url, fleet, "cloud-free"):
        await asyncio.sleep(0.3)
        assert not line.available


async def test_replies_that_nobody_waits_for_are_counted(best_broker, fleet):
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet) as cloud:
        session = await opened(line)
        session.send(Upload(0, rows(0, 2)))
        assert await ask(session, 2) == said(2)
        stranger = InferRequest(session="lease.999", rollback=0, up_to=2, remaining_ms=1.0)
        repeated = InferRequest(session=session.name, rollback=0, up_to=2, remaining_ms=1.0)
        for request in (stranger, repeated):
            cloud.bus.post(topics.TOKEN, cloud.token(request), edge=EDGE, node=cloud.bus.name)
        await until(lambda: line.counters["late_replies"] == 2)
        assert session.energy_j == pytest.approx(1.0), "each reply tells of joules of its own"


async def test_clouds_that_are_long_dead_are_forgotten(best_broker, fleet, monkeypatch):
    monkeypatch.setattr("roadside.edge_node.cloud_line._DEAD_FOR_S", 0.0)
    async with line_on(best_broker.url, fleet) as line, cloud_on(best_broker.url, fleet, "cloud-old") as old:
        session = await opened(line)
        old.announce(alive=False)
        await until(lambda: not line.available)
        async with cloud_on(best_broker.url, fleet, "cloud-new"):
            await until(lambda: line.available)
            assert set(line._clouds) == {"cloud-old", "cloud-new"}, "an answer is still under way with it"
            session.close()
            async with cloud_on(best_broker.url, fleet, "cloud-newer"):
                await until(lambda: "cloud-newer" in line._clouds)
                assert set(line._clouds) == {"cloud-new", "cloud-newer"}
