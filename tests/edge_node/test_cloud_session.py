"""One answer's session: several questions at once, roll-backs, pieces, and everything that can go wrong with a cloud.

The cloud is played by the test, without a broker: what is posted lands in a list.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from roadside.bus.errors import OutboxFull
from roadside.bus.messages import (
    CloseContext,
    ContextChunk,
    ContextTokens,
    InferRequest,
    Message,
    Nack,
    PromptContext,
    TokenReply,
)
from roadside.edge_node.cloud_session import BusCloudSession, CloudTerms, SessionSettings
from roadside.edge_node.link_meter import LinkMeter
from roadside.models.decoding import Ask, CloudReply, RollBack, Upload, UploadPrompt, UploadTokens
from roadside.models.questions import Question
from roadside.models.sampling import Sampling

WIDTH = 4
QUESTION = Question("why ?", (b"JPEG",))


class Line:
    """What stands around a session. posted: what it has sent."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.counters: Counter[str] = Counter()
        self.meter = LinkMeter()
        self.names = ["lease.2", "lease.3"]
        self.is_full = False

    def session(
        self, *, deadline_s: float = 60.0, timeout_ms: float = 5_000.0, question: Question = QUESTION, **other: Any
    ) -> BusCloudSession:
        options: dict[str, Any] = {"dtype": "float16", "takes_prompts": True, **other}
        return BusCloudSession(
            cloud="cloud-1",
            name="lease.1",
            question=question,
            meter=self.meter,
            renamed=lambda session: self.names.pop(0) if self.names else None,
            closed=lambda session: None,
            post=self.post,
            terms=CloudTerms(model_hash="abc", first_exit_layer=2, hidden_size=WIDTH),
            settings=SessionSettings(timeout_ms=timeout_ms),
            deadline_s=time.monotonic() + deadline_s,
            counters=self.counters,
            **options,
        )

    def post(self, topic: Any, body: Message) -> int:
        if self.is_full:
            raise OutboxFull("full")
        self.posted.append(body)
        return 100

    def of(self, kind: type[Message]) -> list[Any]:
        return [body for body in self.posted if isinstance(body, kind)]


@pytest.fixture
def line() -> Line:
    return Line()


def upload(first: int, end: int) -> Upload:
    return Upload(first, np.full((end - first, WIDTH), float(first), np.float32))


async def tell(session: BusCloudSession, *events: Any) -> None:
    """As a decoding does it: from the inference thread."""

    def send() -> None:
        for event in events:
            session.send(event)

    await asyncio.to_thread(send)
    await asyncio.sleep(0)


def reply(up_to: int, *tokens: int, n_accepted: int = 0, rollback: int = 0, session: str = "lease.1") -> TokenReply:
    return TokenReply(
        session=session,
        rollback=rollback,
        up_to=up_to,
        tokens=tokens,
        n_accepted=n_accepted,
        confidences=(0.5,) * len(tokens),
        queue_ms=1.0,
        compute_ms=2.0,
        energy_j=0.25,
    )


def said(up_to: int, *tokens: int, n_accepted: int = 0) -> CloudReply:
    return CloudReply(up_to, tokens, n_accepted, (0.5,) * len(tokens))


async def test_several_questions_may_be_open_and_are_answered_in_any_order(line: Line):
    session = line.session()
    await tell(session, upload(0, 5), Ask(5, (3,)), upload(5, 6), Ask(6, (4,)), upload(6, 7), Ask(7, (5,)))
    assert session.poll() is None
    session.take_reply(reply(6, 4, n_accepted=1))
    session.take_reply(reply(5, 3, n_accepted=1))
    assert session.poll() == said(6, 4, n_accepted=1)
    assert await session.reply() == said(5, 3, n_accepted=1)
    waiting = asyncio.create_task(session.reply())
    await asyncio.sleep(0)
    assert not waiting.done()
    session.take_reply(reply(7, 9))
    assert await waiting == said(7, 9)
    assert await session.reply() is None, "nothing more was asked"
    use = session.close()
    assert (use.positions, use.cloud_requests, use.ended_alone) == (7, 3, False)
    assert session.energy_j == pytest.approx(0.75)
    assert isinstance(line.posted[-1], CloseContext)


async def test_what_is_of_before_a_roll_back_is_never_read(line: Line):
    session = line.session()
    await tell(session, upload(0, 5), Ask(5, (3,)), upload(5, 8), Ask(8, (1, 2, 3)))
    session.take_reply(reply(5, 7))
    session.send(RollBack(5))
    # Already read by the loop, and not yet by the decoding, which has moved on in the same moment.
    assert session.poll() is None
    await asyncio.sleep(0)
    session.take_reply(reply(8, 1, 2, 3, n_accepted=3))
    assert session.poll() is None
    await tell(session, upload(5, 6), Ask(6))
    session.take_reply(reply(6, 8))
    assert session.poll() is None, "of the old sequence, though it has as many positions"
    session.take_reply(reply(6, 9, rollback=1))
    assert session.poll() == said(6, 9)
    assert line.counters["late_replies"] == 2
    chunk, request = line.of(ContextChunk)[-1], line.of(InferRequest)[-1]
    assert (chunk.position, chunk.rollback, chunk.kept, request.rollback) == (5, 1, 5, 1)


async def test_a_reply_is_given_once(line: Line):
    session = line.session()
    await tell(session, upload(0, 5), Ask(5))
    for _ in range(2):
        session.take_reply(reply(5, 7))
    session.take_reply(reply(4, 7))
    assert session.poll() == said(5, 7)
    assert session.poll() is None
    assert line.counters["late_replies"] == 2


async def test_one_loss_is_mended_once_however_many_questions_it_stops(line: Line):
    session = line.session()
    await tell(session, upload(0, 5), Ask(5, (3,)), upload(5, 6), Ask(6, (4,)))
    for _ in range(2):
        session.take_nack(Nack(session="lease.1", rollback=0, reason="missing", first=2, end=6))
    again = line.of(ContextChunk)[2:]
    assert [(chunk.position, chunk.hidden.shape[0]) for chunk in again] == [(2, 4)]
    assert [request.up_to for request in line.of(InferRequest)] == [5, 6, 5, 6]
    assert session.close().resent_positions == 4


async def test_all_forms_come_again_under_a_new_name(line: Line):
    session = line.session()
    await tell(
        session, UploadPrompt(5), UploadTokens(5, (7, 8)), Ask(7), upload(7, 8), RollBack(7), upload(7, 9), Ask(9)
    )
    session.take_nack(Nack(session="lease.1", rollback=1, reason="unknown-session"))
    renamed = [body for body in line.posted if body.session == "lease.2"]
    assert [type(body) for body in renamed] == [PromptContext, ContextTokens, ContextChunk, InferRequest]
    assert {body.rollback for body in renamed} == {1}
    assert (renamed[1].tokens, renamed[2].position, renamed[3].up_to) == ((7, 8), 7, 9)
    session.take_reply(reply(9, 3, rollback=1, session="lease.2"))
    assert session.poll() == said(9, 3)


async def test_an_answer_comes_in_pieces_and_the_rest_is_asked_for_again(line: Line):
    session = line.session(timeout_ms=200.0, question=Question("why ?", (b"JPEG",), sampling=Sampling(0.7, 11)))
    await tell(session, UploadPrompt(5), Ask(5, generate=4))
    (request,) = line.of(InferRequest)
    assert (request.generate, request.temperature, request.seed) == (4, 0.7, 11)
    assert request.remaining_ms > 10_000, "for as long as the answer is of use"
    session.take_reply(reply(5, 1))
    session.take_reply(reply(6, 2))
    assert [session.poll(), session.poll()] == [said(5, 1), said(6, 2)]
    await asyncio.sleep(0.15)
    again = line.of(InferRequest)[-1]
    assert (again.up_to, again.generate) == (7, 2)
    session.take_reply(reply(7, 3))
    session.take_reply(reply(8, 4))
    assert [session.poll(), session.poll()] == [said(7, 3), said(8, 4)]
    assert await session.reply() is None, "that was all of it"


async def test_silence_counts_from_the_first_question_that_was_not_answered(line: Line):
    session = line.session(timeout_ms=300.0)
    started_s = time.monotonic()
    await tell(session, upload(0, 5), Ask(5, (3,)))
    claims: tuple[int, ...] = (3,)
    for position in range(5, 60):
        if session.poll() is not None or session._gone:
            break
        claims = (*claims, 4)
        await tell(session, upload(position, position + 1), Ask(position + 1, claims))
        await asyncio.sleep(0.02)
    assert await session.reply() is None
    assert time.monotonic() - started_s >= 0.25
    assert session.timed_out
    assert line.counters["gave_up.silent"] == 1
    sent = len(line.posted)
    await tell(session, upload(60, 61), Ask(61))
    assert len(line.posted) == sent, "nothing more goes up"
    assert session.close().ended_alone


@pytest.mark.parametrize("reason", ["conflict", "too-large", "no-room", "unusable"])
async def test_a_cloud_that_cannot_go_on_is_left_at_once(line: Line, reason: Any):
    session = line.session()
    await tell(session, upload(0, 5))
    session.take_nack(Nack(session="lease.1", rollback=0, reason=reason))
    await tell(session, upload(5, 6), Ask(6))
    assert await session.reply() is None
    assert line.of(InferRequest) == []
    assert line.counters[f"nack.{reason}"] == line.counters[f"gave_up.{reason}"] == 1
    session.close()
    assert line.posted[-1] == CloseContext(session="lease.1"), "it need not keep what it has of it"


async def test_replies_that_came_before_the_end_are_still_read(line: Line):
    session = line.session()
    await tell(session, upload(0, 5), Ask(5, (3,)), upload(5, 6), Ask(6, (4,)))
    session.take_reply(reply(5, 3, n_accepted=1))
    session.cloud_is_gone()
    assert await session.reply() == said(5, 3, n_accepted=1)
    assert await session.reply() is None


async def test_numbers_that_overflow_never_go_up(line: Line):
    session = line.session(dtype="float32")
    await tell(session, upload(0, 5), Upload(5, np.full((1, WIDTH), np.nan, np.float32)), Ask(6))
    assert await session.reply() is None
    assert line.counters["gave_up.not-finite"] == 1
    assert len(line.of(ContextChunk)) == 1


async def test_a_cloud_that_takes_no_prompts_is_sent_none(line: Line):
    session = line.session(takes_prompts=False)
    await tell(session, UploadPrompt(5), Ask(5, generate=3))
    assert await session.reply() is None
    assert line.of(PromptContext) == line.of(InferRequest) == []
    assert line.counters["gave_up.unusable"] == 1


async def test_what_finds_no_room_in_the_outbox_is_as_good_as_lost(line: Line):
    session = line.session(timeout_ms=200.0)
    line.is_full = True
    await tell(session, upload(0, 5), Ask(5))
    line.is_full = False
    await asyncio.sleep(0.12)
    assert len(line.of(InferRequest)) == 1, "the repetition"
    session.take_nack(Nack(session="lease.1", rollback=0, reason="missing", first=0, end=5))
    assert line.of(ContextChunk)[0].hidden.shape == (5, WIDTH)
    session.take_reply(reply(5, 7))
    assert await session.reply() == said(5, 7)
    assert line.counters["unsent"] == 2


async def test_payload_is_counted_in_the_form_in_which_it_went_up(line: Line):
    session = line.session(dtype="int8")
    await tell(session, upload(0, 10))
    use = session.close()
    assert (use.positions, use.payload_bytes_up) == (10, 10 * (WIDTH + 4))
    session = line.session()
    await tell(session, UploadPrompt(5), UploadTokens(5, (7, 8)))
    assert session.close().payload_bytes_up == len(b"JPEG") + len("why ?") + 2 * 4
