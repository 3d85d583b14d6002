"""Tensors inside messages: raw little-endian numbers beside their dtype and shape, never pickled.

payload = pack(hidden_states, "float16")     # hidden_states: [positions, hidden_size]
hidden_states = unpack(payload)              # shares the message's memory, read-only
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from .errors import MessageRefused

TensorType = Literal["float32", "float16", "bfloat16", "int8"]

FLOAT16_LARGEST = 65504.0
_BFLOAT16_LARGEST = float(np.array([0x7F7F0000], np.uint32).view(np.float32)[0])
MAX_DIMENSIONS = 4
MAX_TENSOR_BYTES = 4 * 1024 * 1024

# As they lie in a message. NumPy has no bfloat16: it is the upper half of a float32.
_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("i1"),
}
# A float is NaN or infinite where all bits of its exponent are set. Looking at the bits is 10 times as fast as
# numpy.isfinite for float16, which numpy computes by way of float32.
_EXPONENT_BITS: dict[str, np.unsignedinteger[Any]] = {
    "float32": np.uint32(0x7F800000),
    "float16": np.uint16(0x7C00),
    "bfloat16": np.uint16(0x7F80),
}


class TensorPayload(Struct, frozen=True, forbid_unknown_fields=True):
    """A dense tensor in C order. data: shape's product times 4, 2 or 1 bytes by the dtype, little-endian."""

    dtype: TensorType
    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=2**24)], ...], Meta(min_length=1, max_length=MAX_DIMENSIONS)]
    # Decoded without a copy: a view into the message that it came in.
    data: Annotated[memoryview, Meta(max_length=MAX_TENSOR_BYTES)]


def pack(array: NDArray[Any], dtype: TensorType) -> TensorPayload:
    """A payload of an array of 1 to 4 dimensions; shares its memory where no conversion is needed.

    array: floats, and for int8 numbers that are int8 already. float16 and bfloat16 round to the nearest and saturate:
    what lies beyond their largest number, infinity included, becomes that, since one infinity in a hidden state would
    make every later token NaN. Raises MessageRefused for NaN, for infinity in float32 ("not-finite"), for an empty
    tensor or one of other dimensions ("shape"), and for floats that are to be int8 ("dtype").
    """
    _check_shape(array.shape)
    match dtype:
        case "float16":
            fitting = _saturated(array)
        case "bfloat16":
            fitting = _upper_halves(array)
        case "int8" if array.dtype != np.int8:
            raise MessageRefused("dtype", f"{array.dtype} is to be packed as int8; scale and round it first")
        case _:
            fitting = array
    converted = np.ascontiguousarray(fitting, dtype=_DTYPES[dtype])
    payload = TensorPayload(dtype, array.shape, converted.reshape(-1).view(np.uint8).data)
    _checked(payload)
    return payload


def unpack(payload: TensorPayload) -> NDArray[Any]:
    """The payload as an array of its dtype and shape, sharing its memory; bfloat16 as a copy in float32.

    Raises MessageRefused with reason "dtype", "shape" (empty, not 1 to 4 dimensions, or not as many bytes as the
    data has) or "not-finite" (NaN or infinity), so that none of these reaches a model.
    """
    stored = _checked(payload)
    if payload.dtype != "bfloat16":
        return stored
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _checked(payload: TensorPayload) -> NDArray[Any]:
    """The numbers as they are stored; raises as `unpack`."""
    dtype = _DTYPES.get(payload.dtype)
    if dtype is None:
        raise MessageRefused("dtype", f"a tensor of {payload.dtype!r}")
    _check_shape(payload.shape)
    # Python's integers do not overflow, so a huge shape cannot wrap around to a small product.
    expected_bytes = math.prod(payload.shape) * dtype.itemsize
    if expected_bytes != payload.data.nbytes:
        raise MessageRefused("shape", f"shape {payload.shape} needs {expected_bytes} bytes, not {payload.data.nbytes}")
    array = np.frombuffer(payload.data, dtype=dtype).reshape(payload.shape)
    if payload.dtype != "int8" and not _all_finite(array, _EXPONENT_BITS[payload.dtype]):
        raise MessageRefused("not-finite", "a tensor with NaN or infinity")
    return array


def _check_shape(shape: tuple[int, ...]) -> None:
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        raise MessageRefused("shape", f"a tensor of shape {shape}")


def _saturated(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == np.float16 and _all_finite(array, _EXPONENT_BITS["float16"]):
        return array
    return np.clip(array, -FLOAT16_LARGEST, FLOAT16_LARGEST)


def _upper_halves(array: NDArray[Any]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 numbers, of two that are as near the even one; NaN stays NaN."""
    # Clipping never moves NaN, and above the largest bfloat16 rounding would carry into the exponent.
    bits = np.ascontiguousarray(np.clip(array, -_BFLOAT16_LARGEST, _BFLOAT16_LARGEST), dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(array), np.uint16(0x7FC0), (rounded >> np.uint32(16)).astype(np.uint16))


def _all_finite(array: NDArray[Any], exponent: np.unsignedinteger[Any]) -> bool:
    """Whether a float array, not empty, has neither NaN nor infinity."""
    return bool(np.max(array.view(exponent.dtype) & exponent) != exponent)
