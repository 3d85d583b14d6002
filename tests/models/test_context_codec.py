"""Hidden states over the wire: how far each precision may be from what was sent, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import ContextChunk
from roadside.bus.tensors import TensorPayload, pack
from roadside.models.context_codec import (
    ContextPacker,
    PackedRows,
    bytes_per_position,
    channel_scales_of,
    unpack_rows,
)

DTYPES: tuple[Any, ...] = ("float32", "float16", "bfloat16", "int8")
# How far one number may be off: as a share of itself, and (int8) of the largest in its row against its channel.
ROUNDING = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 0.0}
WIDTH = 6

rows_of_hidden_states = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.just(WIDTH)),
    elements=st.floats(-(2.0**13), 2.0**13, width=32, allow_subnormal=False),
)


def chunk(packer: ContextPacker, rows: PackedRows, *, with_channels: bool = True, **other: Any) -> ContextChunk:
    """As it arrives."""
    fields = packer.fields(rows, with_channels=with_channels)
    sent = ContextChunk(session="s.1", rollback=0, position=0, **{**fields, **other})
    return msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=ContextChunk)


def arrived(packer: ContextPacker, rows: PackedRows) -> NDArray[np.float32]:
    received = chunk(packer, rows)
    return unpack_rows(received, WIDTH, channel_scales_of(received, WIDTH))


@pytest.mark.parametrize("dtype", DTYPES)
@given(hidden=rows_of_hidden_states)
def test_what_arrives_is_near_what_was_sent(dtype: Any, hidden: NDArray[np.float32]):
    packer = ContextPacker(dtype)
    rows = packer.pack(hidden)
    back = arrived(packer, rows)
    assert back.dtype == np.float32
    # float16's numbers below 2**-14 are spaced evenly.
    bound = np.abs(hidden) * ROUNDING[dtype] + (2.0**-25 if dtype == "float16" else 0.0)
    if dtype == "int8":
        assert packer.channel_scales is not None
        largest = np.abs(hidden / packer.channel_scales).max(axis=1, keepdims=True)
        steps = np.maximum(largest / 127, 1e-6) * packer.channel_scales
        bound = steps * 0.5001 + 1e-6 * np.abs(hidden)
    assert np.all(np.abs(back - hidden) <= bound)


@pytest.mark.parametrize("dtype", DTYPES)
@given(hidden=rows_of_hidden_states, later=rows_of_hidden_states, data=st.data())
def test_rows_that_are_sent_again_are_the_same_bytes_however_they_are_cut(
    dtype: Any, hidden: NDArray[np.float32], later: NDArray[np.float32], data: st.DataObject
):
    packer = ContextPacker(dtype)
    parts = [packer.pack(hidden), packer.pack(later)]
    both = PackedRows.joined(parts)
    first = data.draw(st.integers(0, len(both) - 1))
    end = data.draw(st.integers(first + 1, len(both)))
    at_first = np.concatenate([arrived(packer, part) for part in parts])
    np.testing.assert_array_equal(arrived(packer, both[first:end]), at_first[first:end])
    assert both.nbytes == len(both) * bytes_per_position(dtype, WIDTH)


@given(hidden=rows_of_hidden_states, scale=st.floats(2.0**-9, 2.0**9))
def test_int8_never_saturates_in_rows_that_are_unlike_the_first(hidden: NDArray[np.float32], scale: float):
    packer = ContextPacker("int8")
    packer.pack(np.ones((4, WIDTH), np.float32))
    much_larger = (hidden * np.float32(scale)).astype(np.float32)
    back = arrived(packer, packer.pack(much_larger))
    largest = np.abs(much_larger).max(axis=1)
    assert np.all(np.abs(back - much_larger).max(axis=1) <= largest / 250 + 1e-5)


def test_a_channel_of_another_scale_keeps_its_digits_and_costs_the_others_none():
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(20, 64)).astype(np.float32)
    hidden[:, 7] *= 500.0
    packer = ContextPacker("int8")
    rows = packer.pack(hidden)
    received = chunk(packer, rows)
    back = unpack_rows(received, 64, channel_scales_of(received, 64))
    ordinary = np.delete(np.arange(64), 7)
    error = np.linalg.norm((back - hidden)[:, ordinary]) / np.linalg.norm(hidden[:, ordinary])
    assert error < 0.03
    without_channels = np.rint(hidden / np.abs(hidden).max(axis=1, keepdims=True) * 127)
    assert (without_channels[:, ordinary] == 0).mean() > 0.6, "one scale for a row leaves little of the others"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_no_cloud_would_take_is_not_packed(dtype: Any, value: float):
    hidden = np.zeros((3, WIDTH), np.float32)
    hidden[1, 2] = value
    if np.isinf(value) and dtype in ("float16", "bfloat16"):
        assert np.isfinite(arrived(ContextPacker(dtype), ContextPacker(dtype).pack(hidden))).all(), "it saturates"
        return
    with pytest.raises(MessageRefused) as refused:
        ContextPacker(dtype).pack(hidden)
    assert refused.value.reason == "not-finite"


def test_float16_saturates():
    hidden = np.array([[1e6, -1e6, 1.0, 0.0, 0.0, 0.0]], np.float32)
    packer = ContextPacker("float16")
    np.testing.assert_array_equal(arrived(packer, packer.pack(hidden))[0, :3], [65504.0, -65504.0, 1.0])


def test_the_channels_scales_are_those_of_the_first_rows():
    packer = ContextPacker("int8")
    packer.pack(np.full((2, WIDTH), 3.0, np.float32))
    first = packer.channel_scales
    later = packer.pack(np.full((1, WIDTH), 300.0, np.float32))
    assert packer.channel_scales is first
    received = chunk(packer, later, with_channels=False)
    assert received.channel_scales is None
    with pytest.raises(MessageRefused) as refused:
        unpack_rows(received, WIDTH, None)
    assert refused.value.reason == "scales"
    np.testing.assert_allclose(unpack_rows(received, WIDTH, first), 300.0, rtol=1e-5)


BYTES = ContextPacker("int8")
ROWS = BYTES.pack(np.ones((2, WIDTH), np.float32))
HUGE = np.full(2, 3e38, np.float32)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("shape", {"hidden": pack(np.ones((2, WIDTH + 1), np.int8), "int8")}),
        ("shape", {"hidden": pack(np.ones(WIDTH, np.int8), "int8")}),
        ("shape", {"row_scales": pack(np.ones(3, np.float32), "float32")}),
        ("shape", {"row_scales": pack(np.ones((2, 1), np.float32), "float32")}),
        ("shape", {"channel_scales": pack(np.ones(WIDTH - 1, np.float32), "float32")}),
        ("dtype", {"row_scales": None}),
        ("dtype", {"row_scales": pack(np.ones(2, np.float32), "float16")}),
        ("dtype", {"hidden": pack(np.ones((2, WIDTH)), "float16")}),
        ("scales", {"channel_scales": None}),
        ("not-finite", {"row_scales": pack(HUGE, "float32"), "channel_scales": pack(HUGE.repeat(3), "float32")}),
        ("not-finite", {"row_scales": TensorPayload("float32", (2,), memoryview(b"\0\0\x80\x7f" * 2))}),
    ],
)
def test_a_chunk_in_int8_that_does_not_fit_is_refused(reason: str, fields: dict[str, Any]):
    received = ContextChunk(
        session="s.1", rollback=0, position=0, **{**BYTES.fields(ROWS, with_channels=True), **fields}
    )
    with pytest.raises(MessageRefused) as refused, np.errstate(over="ignore"):
        unpack_rows(received, WIDTH, channel_scales_of(received, WIDTH))
    assert refused.value.reason == reason
