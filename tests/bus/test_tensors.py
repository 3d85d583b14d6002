from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roadside.bus.errors import MessageRefused
from roadside.bus.tensors import FLOAT16_LARGEST, TensorPayload, pack, unpack

shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
float32_arrays = hnp.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
anything_but_nan = hnp.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False))
decoder = msgspec.msgpack.Decoder(TensorPayload)


def packed(value: Any) -> bytes:
    """msgpack.packb, whose type is optional only for a packer that is told to collect."""
    payload = msgpack.packb(value)
    assert payload is not None
    return payload


def over_the_wire(payload: TensorPayload) -> TensorPayload:
    return decoder.decode(msgspec.msgpack.encode(payload))


@given(float32_arrays)
def test_float32_comes_back_bit_for_bit(array):
    back = unpack(over_the_wire(pack(array, "float32")))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array)


@given(anything_but_nan)
def test_float16_is_the_nearest_or_saturates_and_is_never_infinite(array):
    back = unpack(over_the_wire(pack(array, "float16")))
    assert back.dtype == np.float16
    assert back.shape == array.shape
    beyond = np.abs(array) > FLOAT16_LARGEST
    np.testing.assert_array_equal(back[beyond], np.copysign(FLOAT16_LARGEST, array[beyond]))
    np.testing.assert_array_equal(back[~beyond], array[~beyond].astype(np.float16))


def test_infinities_of_a_float16_array_saturate_too():
    array = np.array([np.inf, -np.inf, 1.0], dtype=np.float16)
    np.testing.assert_array_equal(unpack(pack(array, "float16")), [FLOAT16_LARGEST, -FLOAT16_LARGEST, 1.0])


@given(anything_but_nan)
def test_bfloat16_is_the_nearest_or_saturates_and_is_never_infinite(array):
    back = unpack(over_the_wire(pack(array, "bfloat16")))
    assert back.dtype == np.float32
    expected = torch.from_numpy(array).to(torch.bfloat16)
    largest = torch.finfo(torch.bfloat16).max
    np.testing.assert_array_equal(back, expected.clamp(-largest, largest).float().numpy())
    np.testing.assert_array_equal(unpack(pack(back, "bfloat16")), back)


@given(hnp.arrays(np.int8, shapes))
def test_int8_comes_back_bit_for_bit_and_floats_are_not_cut_to_it(array):
    back = unpack(over_the_wire(pack(array, "int8")))
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, array)
    with pytest.raises(MessageRefused) as refused:
        pack(array.astype(np.float32), "int8")
    assert refused.value.reason == "dtype"


@given(float32_arrays)
def test_msgpack_reads_and_writes_the_same_payload(array):
    payload = pack(array, "float32")
    read = msgpack.unpackb(msgspec.msgpack.encode(payload))
    np.testing.assert_array_equal(np.frombuffer(read["data"], "<f4").reshape(read["shape"]), array)
    np.testing.assert_array_equal(unpack(decoder.decode(packed(read))), array)


def test_neither_end_copies():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.shares_memory(unpack(pack(array, "float32")), array)
    message = msgspec.msgpack.encode(pack(array, "float32"))
    assert np.shares_memory(unpack(decoder.decode(message)), np.frombuffer(message, np.uint8))


def test_other_memory_layouts_are_sent_in_c_order():
    array = np.arange(12, dtype=np.float64).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(unpack(over_the_wire(pack(array, "float32"))), array)
    big_endian = np.arange(3, dtype=">f4")
    assert bytes(pack(big_endian, "float32").data) == np.arange(3, dtype="<f4").tobytes()
    big_endian_half = np.array([np.nan, np.inf], dtype=">f2")
    with pytest.raises(MessageRefused, match="not-finite"):
        pack(big_endian_half, "float16")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_nan_is_refused_by_the_sender(dtype):
    with pytest.raises(MessageRefused) as refused:
        pack(np.array([1.0, np.nan], dtype=np.float32), dtype)
    assert refused.value.reason == "not-finite"


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("position", [0, 500, 999])
def test_a_single_bad_value_is_refused_by_the_receiver(value, dtype, position):
    array = np.zeros(1000, dtype=dtype)
    array[position] = value
    with pytest.raises(MessageRefused) as refused:
        unpack(TensorPayload(dtype, (10, 100), memoryview(array.tobytes())))
    assert refused.value.reason == "not-finite"


def test_the_largest_and_smallest_finite_values_pass():
    for dtype in ("float32", "float16"):
        info = np.finfo(dtype)
        array = np.array([info.max, info.min, info.tiny, info.smallest_subnormal, -0.0], dtype=dtype)
        np.testing.assert_array_equal(unpack(over_the_wire(pack(array, dtype))), array)


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (3,), (5,), (-2, -2), (2**32, 2**32), (2**62, 4, 4), (1, 1, 1, 1, 4), (4, 0)],
)
def test_a_shape_that_is_not_the_data_s_is_refused(shape):
    with pytest.raises(MessageRefused) as refused:
        unpack(TensorPayload("float32", shape, memoryview(bytes(16))))
    assert refused.value.reason == "shape"


@pytest.mark.parametrize("dtype", ["object", ">f4", "int16", "float64", "O"])
def test_a_dtype_that_is_not_allowed_is_refused(dtype):
    message = packed({"dtype": dtype, "shape": [1], "data": bytes(8)})
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(message)
    with pytest.raises(MessageRefused) as refused:
        unpack(TensorPayload(dtype, (1,), memoryview(bytes(8))))
    assert refused.value.reason == "dtype"


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.float32), np.float32(1.0), np.zeros((1,) * 5, np.float32)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_empty_tensor_or_one_of_other_dimensions_is_not_packed(array, dtype):
    with pytest.raises(MessageRefused) as refused:
        pack(np.asarray(array, dtype=dtype), dtype)
    assert refused.value.reason == "shape"
