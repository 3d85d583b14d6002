"""The cloud's half over a real broker, with edges that are played by the test."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from roadside.bus import topics
from roadside.bus.kinds import EXPLAIN
from roadside.bus.messages import (
    CloseContext,
    LeaseRefused,
    Nack,
    TokenReply,
)
from roadside.cloud_node.own_model import parts_of
from roadside.models import checkpoints
from roadside.models.answering import cloud_answerer, edge_answerer
from roadside.models.decoding import to_the_end
from roadside.models.images import colour_card_jpeg
from roadside.models.precision import to_float16
from roadside.models.questions import Question

PATIENCE_S = 20.0
pytestmark = pytest.mark.timeout(3 * PATIENCE_S)
SEQUENCE = list(range(10, 26))
BUNDLED = (checkpoints.bundled_model_path() / "config.json").is_file()


async def test_an_answer_of_cloud_tokens_is_the_unsplit_models(cloud: Any, edge: Any, cut: Any) -> None:
    async with cloud() as server:
        lease = await edge.introduce()
        assert lease.session_ttl_ms == 10_000.0
        session, tokens, sent = f"{lease.lease}.1", list(SEQUENCE), 0
        for _ in range(12):
            edge.send(session, cut.hidden(tokens)[sent:], position=sent)
            sent = len(tokens)
            reply = await edge.ask(session, sent)
            assert isinstance(reply, TokenReply)
            assert (reply.session, reply.rollback, reply.up_to) == (session, 0, sent)
            assert reply.tokens[0] == cut.next_token(tokens)
            assert 0 < reply.confidences[0] <= 1
            assert reply.energy_j == pytest.approx(60.0 * reply.compute_ms / 1000), "spent on nobody else"
            tokens.append(reply.tokens[0])
        edge.bus.post(topics.CONTEXT, CloseContext(session=session), node="cloud-1")
        assert (await edge.ask(session, sent)).reason == "unknown-session"
        assert server.gauges() == {"contexts": 0, "context_bytes": 0}
        assert server.counters["tokens"] == 12


@pytest.mark.skipif(not BUNDLED, reason="there is no bundled model")
async def test_the_bundled_model_answers_as_in_full_mode(cloud: Any, edge: Any) -> None:
    whole, edge_side = cloud_answerer(), edge_answerer()
    question = Question(EXPLAIN.prompt, (colour_card_jpeg(),), {"Vehicle.Speed": 36.0}, max_tokens=20)
    expected = to_the_end(whole.begin(question, "cloud")).tokens
    parts = {"parts": parts_of(whole), "model_hash": whole.model_hash}
    async with cloud(parts=parts):
        partition = edge_side.partition
        await edge.introduce(edge_side.model_hash, partition.first.end_layer, partition.first.hidden_size)
        session, own, said = f"{edge.lease}.1", partition.first.session(), []
        with torch.inference_mode():
            inputs = edge_side.encode(question).inputs()
            while len(said) < len(expected):
                position = own.positions_run
                own.feed(inputs)
                edge.send(session, to_float16(own.catch_up()[0]), position=position)
                said.append((await edge.ask(session, own.positions_run)).tokens[0])
                inputs = edge_side.encoder.embed(said[-1])
    assert tuple(said) == expected


async def test_an_edge_of_another_model_is_refused(cloud: Any, edge: Any) -> None:
    async with cloud():
        assert await edge.introduce(model_hash="another") == LeaseRefused(reason="model")
        assert await edge.introduce(first_exit_layer=1) == LeaseRefused(reason="split")
        assert await edge.introduce(hidden_size=64) == LeaseRefused(reason="hidden-size")


async def test_what_is_missing_is_named_and_then_waited_for(cloud: Any, edge: Any, cut: Any) -> None:
    hidden = cut.hidden(SEQUENCE)
    async with cloud():
        await edge.introduce()
        session = f"{edge.lease}.1"
        nack = await edge.ask(session, 16)
        assert nack == Nack(session=session, rollback=0, reason="missing", first=0, end=16)
        edge.send(session, hidden[:4])
        edge.send(session, hidden[9:], position=9)
        nack = await edge.ask(session, 16)
        assert nack == Nack(session=session, rollback=0, reason="missing", first=4, end=9)
        edge.send(session, hidden[4:9], position=4)
        assert (await edge.ask(session, 16)).tokens[0] == cut.next_token(SEQUENCE)


async def test_a_request_waits_for_what_is_on_its_way_and_holds_up_nobody(cloud: Any, edge: Any, cut: Any) -> None:
    hidden = cut.hidden(SEQUENCE)
    async with cloud(grace_ms=PATIENCE_S * 1000):
        await edge.introduce()
        early, whole = f"{edge.lease}.1", f"{edge.lease}.2"
        edge.request(early, 16)
        edge.send(whole, hidden)
        assert (await edge.ask(whole, 16)).session == whole
        edge.send(early, hidden[8:], position=8)
        edge.send(early, hidden[:8])
        reply = await edge.hear()
        assert (reply.session, reply.tokens[0]) == (early, cut.next_token(SEQUENCE))


async def test_a_repeated_request_is_answered_again_not_computed_again(cloud: Any, edge: Any, cut: Any) -> None:
    async with cloud() as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden(SEQUENCE))
        first = await edge.ask(session, 16)
        assert await edge.ask(session, 16) == structs.replace(first, energy_j=0.0), "its energy was told"
        assert server.counters["tokens"] == 1


async def test_after_a_roll_back_the_other_continuation_is_answered(cloud: Any, edge: Any, cut: Any) -> None:
    other = [*SEQUENCE[:10], 50, 51, 52]
    async with cloud() as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden(SEQUENCE))
        assert (await edge.ask(session, 16)).tokens[0] == cut.next_token(SEQUENCE)
        edge.send(session, cut.hidden(other)[10:], position=10, rollback=1, kept=10)
        edge.request(session, 16)  # of before the roll-back: nobody waits for it
        edge.send(session, cut.hidden(SEQUENCE)[10:], position=10)
        reply = await edge.ask(session, 13, rollback=1)
        assert (reply.rollback, reply.tokens[0]) == (1, cut.next_token(other))
        assert server.counters["requests.stale"] == server.counters["chunks.stale"] == 1


async def test_nothing_is_computed_for_a_request_whose_time_is_over(
    cloud: Any, edge: Any, cut: Any, held: Any, until: Any
) -> None:
    computer = held
    async with cloud(compute=computer) as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden(SEQUENCE))
        edge.request(session, 16, remaining_ms=30.0)
        await until(lambda: computer.asked)
        await asyncio.sleep(0.05)
        computer.free.set()
        assert (await edge.hear()).reason == "too-late"
        assert (server.counters["tokens"], server.counters["nacks.too-late"]) == (0, 1)
        # The session is none the worse for it.
        assert (await edge.ask(session, 16)).tokens[0] == cut.next_token(SEQUENCE)


async def test_requests_that_wait_for_one_session_are_computed_in_one_batch(
    cloud: Any, edge: Any, cut: Any, held: Any, until: Any
) -> None:
    computer = held
    async with cloud(compute=computer) as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden(SEQUENCE))
        edge.request(session, 9)
        await until(lambda: computer.asked)
        for up_to in (9, 12, 16, 13):
            edge.request(session, up_to)
        await until(lambda: server.counters["requests.repeated"])
        await asyncio.sleep(0.05)
        computer.free.set()
        replies = [await edge.hear() for _ in range(4)]
        for reply in replies:
            assert reply.tokens == (cut.next_token(SEQUENCE[: reply.up_to]),)
        assert sorted(reply.up_to for reply in replies) == [9, 12, 13, 16]
        assert (computer.asked, server.counters["tokens"]) == (2, 4)
        # Nobody waits for what is asked for after later positions were run.
        edge.request(session, 5)
        await until(lambda: server.counters["requests.overtaken"] == 1)


async def test_one_edges_context_is_never_served_to_another(cloud: Any, edge: Any, cut: Any, edge_called: Any) -> None:
    async with cloud() as server, edge_called("edge-y") as other:
        await edge.introduce()
        await other.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden(SEQUENCE))
        assert (await edge.ask(session, 16)).tokens[0] == cut.next_token(SEQUENCE)
        assert (await other.ask(session, 16)).reason == "unknown-session"
        other.send(session, cut.hidden(SEQUENCE[::-1]))
        other.bus.post(topics.CONTEXT, CloseContext(session=session), node="cloud-1")
        own = f"{other.lease}.1"
        other.send(own, cut.hidden(SEQUENCE[::-1]))
        assert (await other.ask(own, 16)).tokens[0] == cut.next_token(SEQUENCE[::-1])
        assert server.counters["chunks.refused.session"] == 1
        assert (await edge.ask(session, 16)).tokens[0] == cut.next_token(SEQUENCE)


async def test_garbage_is_counted_and_the_session_goes_on(cloud: Any, edge: Any, cut: Any) -> None:
    async with cloud(max_positions=64) as server:
        await edge.introduce()
        session, absurd = f"{edge.lease}.1", f"{edge.lease}.2"
        edge.send(session, np.ones((3, 31)))
        edge.send("nobody.1", np.ones((3, 32)))
        edge.send(session, cut.hidden(SEQUENCE))
        edge.send(absurd, np.ones((3, 32)), position=2**40)
        assert (await edge.hear()).reason == "too-large"
        assert (await edge.ask(session, 2**20)).reason == "too-large"
        assert (await edge.ask(session, 16)).tokens[0] == cut.next_token(SEQUENCE)
        assert server.counters["chunks.refused.shape"] == server.counters["chunks.refused.session"] == 1


async def test_a_contradiction_is_told_at_once_and_to_every_request(cloud: Any, edge: Any, cut: Any) -> None:
    async with cloud():
        await edge.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden(SEQUENCE))
        edge.send(session, np.ones((1, 32)), position=5)
        assert (await edge.hear()).reason == "conflict"
        assert (await edge.ask(session, 16)).reason == "conflict"


async def test_silent_contexts_are_forgotten(cloud: Any, edge: Any, cut: Any, until: Any) -> None:
    async with cloud(session_ttl_s=0.1) as server:
        await edge.introduce()
        edge.send(f"{edge.lease}.1", cut.hidden(SEQUENCE))
        await until(lambda: server.counters["expired"] == 1)
        assert (await edge.ask(f"{edge.lease}.1", 16)).reason == "unknown-session"


async def test_a_restarted_cloud_knows_no_session(cloud: Any, edge: Any, cut: Any) -> None:
    async with cloud():
        await edge.introduce()
        before = f"{edge.lease}.1"
        edge.send(before, cut.hidden(SEQUENCE))
        assert (await edge.ask(before, 16)).tokens[0] == cut.next_token(SEQUENCE)
    async with cloud():
        edge.send(before, cut.hidden(SEQUENCE))
        assert (await edge.ask(before, 16)).reason == "unknown-session"
        await edge.introduce()
        after = f"{edge.lease}.2"
        edge.send(after, cut.hidden(SEQUENCE))
        assert (await edge.ask(after, 16)).tokens[0] == cut.next_token(SEQUENCE)


async def test_a_cache_that_cannot_go_back_costs_its_own_session_only(
    cloud: Any, edge: Any, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.cache_utils import DynamicLayer

    async with cloud() as server:
        await edge.introduce()
        session, other = f"{edge.lease}.1", f"{edge.lease}.2"
        for name in (session, other):
            edge.send(name, cut.hidden(SEQUENCE))
        await edge.ask(session, 16)
        context = server.contexts.find("edge-x", session, 0.0)
        assert context is not None
        # A layer of another kind, as a model with linear attention has.
        context._rest.cache_layers[0].__class__ = type("OtherLayer", (DynamicLayer,), {})
        edge.send(session, cut.hidden(SEQUENCE)[9:], position=9, rollback=1, kept=9)
        assert (await edge.ask(session, 16, rollback=1)).reason == "unusable"
        assert (await edge.ask(other, 16)).tokens[0] == cut.next_token(SEQUENCE)
