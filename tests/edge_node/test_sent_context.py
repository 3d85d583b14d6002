"""What an edge has sent can be sent again: the same positions, the same content, however it was cut and cut back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.messages import ContextChunk, ContextTokens, PromptContext
from roadside.edge_node.sent_context import Piece, SentContext
from roadside.models.context_codec import ContextPacker, channel_scales_of, unpack_rows
from roadside.models.questions import Question

WIDTH = 8
QUESTION = Question("why ?", (b"JPEG",), {"Vehicle.Speed": 3.0})


def sent_in(dtype: Any, chunk_bytes: int = 64) -> tuple[SentContext, ContextPacker]:
    packer = ContextPacker(dtype)
    return SentContext(packer=packer, hidden_size=WIDTH, chunk_bytes=chunk_bytes), packer


def rows_at(first: int, end: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Small whole numbers that tell their position, and which every precision but int8 holds exactly."""
    return np.repeat(np.arange(first, end, dtype=np.float32)[:, None], WIDTH, axis=1)


def chunks(sent: SentContext, first: int, end: int, *, again: bool = False) -> list[ContextChunk]:
    return [message for message in sent.messages("s.1", first, end, again=again) if isinstance(message, ContextChunk)]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@given(data=st.data(), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_any_stretch_comes_again_as_it_was(dtype: Any, data: st.DataObject, sizes: list[int]):
    sent, packer = sent_in(dtype)
    for size in sizes:
        first = sent.positions
        ids = np.arange(first, first + size)[None].repeat(3, axis=0)
        sent.add(Piece(first, first + size, packer.pack(rows_at(first, first + size)), ids))
        if first > 2 and data.draw(st.booleans()):
            kept = data.draw(st.integers(1, sent.positions))
            sent.roll_back(kept)
            assert (sent.positions, sent.kept) == (kept, kept)
    first = data.draw(st.integers(0, sent.positions - 1))
    end = data.draw(st.integers(first + 1, sent.positions))
    expected = first
    for message in sent.messages("s.1", first, end, again=True):
        assert isinstance(message, ContextChunk)
        assert message.position == expected
        assert (message.rollback, message.kept) == (sent.rollback, sent.kept)
        rows = unpack_rows(message, WIDTH, channel_scales_of(message, WIDTH))
        expected += len(rows)
        np.testing.assert_allclose(rows, rows_at(message.position, expected), rtol=0.01, atol=1e-4)
        assert message.position_ids == (tuple(range(message.position, expected)),) * 3
        assert message.hidden.data.nbytes <= 64
    assert expected == end


def test_channel_scales_go_up_once_and_with_what_is_sent_again():
    sent, packer = sent_in("int8", chunk_bytes=1000)
    has_scales = []
    for number in range(3):
        sent.add(Piece(number, number + 1, packer.pack(rows_at(number + 1, number + 2))))
        (chunk,) = chunks(sent, number, number + 1)
        has_scales.append(chunk.channel_scales is not None)
    assert has_scales == [True, False, False]
    (again,) = chunks(sent, 1, 3, again=True)
    assert again.channel_scales is not None
    assert again.hidden.shape == (2, WIDTH)


def test_a_question_comes_whole_and_tokens_as_one():
    sent, packer = sent_in("float16")
    sent.add(Piece(0, 30, QUESTION))
    sent.add(Piece(30, 32, (7, 8)))
    sent.add(Piece(32, 33, (9,)))
    prompt, tokens = sent.messages("s.1", 4, 33)
    assert isinstance(prompt, PromptContext)
    assert (prompt.positions, prompt.prompt, prompt.frames) == (30, "why ?", (b"JPEG",))
    assert isinstance(tokens, ContextTokens)
    assert (tokens.position, tokens.tokens) == (30, (7, 8, 9))
    sent.roll_back(31)
    sent.add(Piece(31, 32, packer.pack(rows_at(31, 32))))
    tokens, chunk = sent.messages("s.1", 30, 32)
    assert isinstance(tokens, ContextTokens)
    assert isinstance(chunk, ContextChunk)
    assert (tokens.position, tokens.tokens, chunk.position) == (30, (7,), 31)


def test_positions_go_up_in_order():
    sent, packer = sent_in("float16")
    sent.add(Piece(0, 3, packer.pack(rows_at(0, 3))))
    for position in (2, 4):
        with pytest.raises(ValueError, match="goes up where 3 is next"):
            sent.add(Piece(position, position + 1, packer.pack(rows_at(0, 1))))
