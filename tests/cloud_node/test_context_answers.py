"""What a cloud says over a real broker to more than plain questions: claims, prompts, whole answers, many edges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from roadside.bus import topics
from roadside.bus.messages import (
    CloseContext,
    ContextChunk,
    ContextTokens,
    InferRequest,
    Nack,
    PromptContext,
    TokenReply,
)
from roadside.models.context_codec import ContextPacker
from roadside.models.sampling import Sampling

pytestmark = pytest.mark.timeout(90)
PROMPT = [5, 6, 7, 8, 9]


def prompt_of(cut: Any, session: str, tokens: list[int], **other: Any) -> PromptContext:
    fields = {"rollback": 0, "positions": len(tokens), "prompt": cut.words(tokens), **other}
    return PromptContext(session=session, frames=(b"JPEG",), telemetry={}, **fields)


def tell(edge: Any, body: Any) -> None:
    topic = topics.INFER if isinstance(body, InferRequest) else topics.CONTEXT
    edge.bus.post(topic, body, node="cloud-1")


def ask(edge: Any, session: str, up_to: int, **other: Any) -> None:
    fields = {"rollback": 0, "remaining_ms": 20_000.0, **other}
    tell(edge, InferRequest(session=session, up_to=up_to, **fields))


async def test_claims_are_judged(cloud: Any, edge: Any, cut: Any) -> None:
    right = cut.answer(PROMPT, 4)
    wrong = (right[2] + 1) % cut.vocabulary
    async with cloud():
        await edge.introduce()
        session = f"{edge.lease}.1"
        edge.send(session, cut.hidden([*PROMPT, *right[:2], wrong]))
        ask(edge, session, 8, claimed=(*right[:2], wrong, 3))
        reply = await edge.hear()
        assert (reply.up_to, list(reply.tokens), reply.n_accepted) == (8, right[:3], 2)
        assert len(reply.confidences) == 3
        edge.send(session, cut.hidden([*PROMPT, *right[:3]])[7:], position=7, rollback=1, kept=7)
        ask(edge, session, 8, claimed=(right[3],), rollback=1)
        reply = await edge.hear()
        assert (list(reply.tokens), reply.n_accepted) == ([right[3]], 1)


async def test_a_newer_question_with_an_older_one_s_claim_is_answered_for_both(
    cloud: Any, edge: Any, cut: Any, held: Any, until: Any
) -> None:
    async with cloud(compute=held) as server:
        await edge.introduce()
        busy, session = f"{edge.lease}.1", f"{edge.lease}.2"
        for name in (busy, session):
            edge.send(name, cut.hidden([*PROMPT, 3, 4]))
        ask(edge, busy, 5)
        await until(lambda: held.asked)
        ask(edge, session, 5, claimed=(3,))
        ask(edge, session, 6, claimed=(3, 4))
        ask(edge, session, 7)  # claims nothing before it
        await until(lambda: len(server._under_way.get(("edge-x", session), ())) == 3)
        held.free.set()
        replies = [await edge.hear() for _ in range(3)]
        assert sorted((reply.session == busy, reply.up_to) for reply in replies) == [
            (False, 6),
            (False, 7),
            (True, 5),
        ]
        assert server.counters["requests.overtaken"] == 1
        assert server.counters["batches"] == 2


async def test_a_question_goes_up_as_it_is_and_tokens_follow(cloud: Any, edge: Any, cut: Any) -> None:
    tokens = list(PROMPT)
    async with cloud() as server:
        lease = await edge.introduce()
        assert lease.takes_prompts
        session = f"{lease.lease}.1"
        tell(edge, prompt_of(cut, session, PROMPT))
        for _ in range(5):
            ask(edge, session, len(tokens))
            reply = await edge.hear()
            assert reply.tokens == (cut.next_token(tokens),)
            tell(edge, ContextTokens(session=session, rollback=0, position=len(tokens), tokens=reply.tokens))
            tokens.append(reply.tokens[0])
        assert server.counters["prompts.encoded"] == 1


async def test_the_cloud_answers_alone_and_says_each_token_at_once(cloud: Any, edge: Any, cut: Any) -> None:
    expected = cut.answer(PROMPT, 12)
    async with cloud() as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        tell(edge, prompt_of(cut, session, PROMPT))
        ask(edge, session, 5, generate=12)
        pieces = [await edge.hear() for _ in expected]
        assert [piece.up_to for piece in pieces] == list(range(5, 5 + len(expected)))
        assert [token for piece in pieces for token in piece.tokens] == expected
        # Who has lost some of it asks for the rest, and nothing is computed twice.
        computed = server.counters["tokens"]
        ask(edge, session, 8, generate=9)
        again = [await edge.hear() for _ in expected[3:]]
        assert [token for piece in again for token in piece.tokens] == expected[3:]
        assert server.counters["tokens"] == computed
        assert server.counters["generations.finished"] == 2


async def test_an_answer_that_is_closed_is_not_completed(
    cloud: Any, edge: Any, cut: Any, held: Any, until: Any
) -> None:
    async with cloud(compute=held) as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        tell(edge, prompt_of(cut, session, PROMPT))
        ask(edge, session, 5, generate=500)
        held.free.set()
        assert (await edge.hear()).up_to == 5
        held.free.clear()
        tell(edge, CloseContext(session=session))
        await until(lambda: not server.gauges()["contexts"])
        held.free.set()
        await until(lambda: server.counters["generations.stopped"])
        assert server.counters["tokens"] < 500
        computed = server.counters["tokens"]
        await asyncio.sleep(0.05)
        assert server.counters["tokens"] == computed


async def test_an_answer_ends_at_its_deadline(cloud: Any, edge: Any, cut: Any) -> None:
    slow = SlowComputer(0.02)
    async with cloud(compute=slow) as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        tell(edge, prompt_of(cut, session, [11, 12]))
        ask(edge, session, 2, generate=1000, remaining_ms=300.0)
        heard = await edge.hear()
        while isinstance(heard, TokenReply):
            heard = await edge.hear()
        assert heard.reason == "too-late"
        assert 0 < server.counters["tokens"] <= 15


class SlowComputer:
    """An inference thread that takes its time."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s

    async def __call__(self, function: Callable[[], Any]) -> Any:
        await asyncio.sleep(self.takes_s)
        return function()


async def test_tokens_are_sampled_with_the_noise_that_was_asked_for(cloud: Any, edge: Any, cut: Any) -> None:
    sampling = Sampling(1.5, 42)
    tokens = list(PROMPT)
    async with cloud():
        await edge.introduce()
        session = f"{edge.lease}.1"
        tell(edge, prompt_of(cut, session, PROMPT))
        ask(edge, session, 5, generate=8, temperature=sampling.temperature, seed=sampling.seed)
        for _ in range(8):
            reply = await edge.hear()
            with torch.inference_mode():
                logits = cut.model(torch.tensor([tokens])).logits[0, -1].numpy()
            assert reply.tokens == (sampling.pick(logits, len(tokens)),)
            tokens.append(reply.tokens[0])
            if reply.tokens[0] == 1:
                break
        ask(edge, session, 5)
        assert (await edge.hear()).reason == "conflict", "another way of choosing"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
async def test_hidden_states_come_in_any_precision(cloud: Any, edge: Any, cut: Any, dtype: Any) -> None:
    tokens, packer = list(range(10, 26)), ContextPacker(dtype)
    rows = packer.pack(cut.hidden(tokens))
    async with cloud() as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        late = {"session": session, "rollback": 0, "position": 8, **packer.fields(rows[8:], with_channels=False)}
        tell(edge, ContextChunk(**late))
        tell(edge, ContextChunk(session=session, rollback=0, position=0, **packer.fields(rows[:8], with_channels=True)))
        ask(edge, session, 16)
        heard = await edge.hear()
        if dtype == "int8":
            assert (heard.reason, heard.first, heard.end) == ("missing", 8, 16), "what came before the scales"
            assert server.counters["chunks.refused.scales"] == 1
            tell(edge, ContextChunk(**{**late, **packer.fields(rows[8:], with_channels=True)}))
            ask(edge, session, 16)
            heard = await edge.hear()
        assert heard.tokens == (cut.next_token(tokens),)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("a prompt of another length", "conflict"),
        ("a prompt that cannot be read", "unusable"),
        ("tokens behind hidden states", "unusable"),
        ("another prompt", "conflict"),
    ],
)
async def test_what_cannot_be_run_is_told(cloud: Any, edge: Any, cut: Any, what: str, reason: str) -> None:
    async with cloud() as server:
        await edge.introduce()
        session, other = f"{edge.lease}.1", f"{edge.lease}.2"
        match what:
            case "a prompt of another length":
                tell(edge, prompt_of(cut, session, PROMPT, positions=6))
            case "a prompt that cannot be read":
                tell(edge, prompt_of(cut, session, PROMPT, prompt="why ?"))
            case "tokens behind hidden states":
                edge.send(session, cut.hidden(PROMPT))
                tell(edge, ContextTokens(session=session, rollback=0, position=5, tokens=(11,)))
            case _:
                tell(edge, prompt_of(cut, session, PROMPT))
                tell(edge, prompt_of(cut, session, [1, 2, 3, 4, 5]))
        ask(edge, session, 6)
        heard = await edge.hear()
        assert isinstance(heard, Nack)
        assert heard.reason == reason
        # Others are served as before.
        edge.send(other, cut.hidden(PROMPT))
        ask(edge, other, 5)
        while (heard := await edge.hear()).session != other:
            pass
        assert heard.tokens == (cut.next_token(PROMPT),)
        assert server.counters[f"nacks.{reason}"] >= 1


async def test_tokens_beyond_the_vocabulary_and_odd_position_ids_reach_no_model(
    cloud: Any, edge: Any, cut: Any
) -> None:
    async with cloud() as server:
        await edge.introduce()
        session = f"{edge.lease}.1"
        tell(edge, prompt_of(cut, session, PROMPT))
        tell(edge, ContextTokens(session=session, rollback=0, position=5, tokens=(90,)))
        fields = ContextPacker("float16")
        rows = fields.pack(cut.hidden(PROMPT)[:2])
        for ids in (((5, 6),) * 3, ((5,),)):
            packed = fields.fields(rows, with_channels=False)
            tell(edge, ContextChunk(session=session, rollback=0, position=5, position_ids=ids, **packed))
        ask(edge, session, 5)
        assert (await edge.hear()).tokens == (cut.next_token(PROMPT),)
        assert server.counters["chunks.refused.token"] == 1
        assert server.counters["chunks.refused.shape"] == 2


async def test_a_cloud_without_the_first_layers_says_so(cloud: Any, edge: Any, cut: Any) -> None:
    from roadside.cloud_node.parts import CloudParts

    rest_only = CloudParts(cut.parts.rest, cut.parts.head)
    async with cloud(parts={"parts": rest_only, "model_hash": "abc"}):
        lease = await edge.introduce()
        assert not lease.takes_prompts
        tell(edge, prompt_of(cut, f"{lease.lease}.1", PROMPT))
        assert (await edge.hear()).reason == "unusable"
        edge.send(f"{lease.lease}.2", cut.hidden(PROMPT))
        ask(edge, f"{lease.lease}.2", 5, generate=3)
        assert (await edge.hear()).reason == "unusable"
        ask(edge, f"{lease.lease}.2", 5)
        assert (await edge.hear()).tokens == (cut.next_token(PROMPT),)


async def test_several_edges_share_a_pass_and_each_has_its_turn(
    cloud: Any, edge: Any, cut: Any, held: Any, until: Any, edge_called: Any
) -> None:
    async with cloud(compute=held, max_batch=3) as server, edge_called("edge-y") as other:
        for each in (edge, other):
            await each.introduce()
        blocker = f"{edge.lease}.100"
        edge.send(blocker, cut.hidden([3]))
        ask(edge, blocker, 1)
        await until(lambda: held.asked)
        sequences = [[*PROMPT, number] for number in range(10, 14)]
        for number, sequence in enumerate(sequences):  # all of them more urgent than the other edge's
            edge.send(f"{edge.lease}.{number}", cut.hidden(sequence))
            ask(edge, f"{edge.lease}.{number}", 6, remaining_ms=15_000.0)
        other.send(f"{other.lease}.1", cut.hidden(PROMPT))
        ask(other, f"{other.lease}.1", 5, remaining_ms=20_000.0)
        await until(lambda: len(server._batcher._waiting) == 5)
        held.free.set()
        heard = await other.hear()
        assert heard.tokens == (cut.next_token(PROMPT),)
        replies = {reply.session: reply for reply in [await edge.hear() for _ in range(5)]}
        for number, sequence in enumerate(sequences):
            assert replies[f"{edge.lease}.{number}"].tokens == (cut.next_token(sequence),)
        assert server.counters["batches"] == 3, "one, then three, of which one is the other edge's, then the last two"
        assert (server.counters["batched"], server.counters["ran_alone"]) == (6, 0)
        assert heard.queue_ms <= max(reply.queue_ms for reply in replies.values())


async def test_no_budget_no_lease(cloud: Any, edge: Any) -> None:
    async with cloud(budget_bytes=0) as server:
        assert (await edge.introduce()).reason == "no-room"
        assert server.counters["lease_refused.no-room"] == 1
