"""Tensors inside messages: raw little-endian floats beside their dtype and shape, never pickled.

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

TensorType = Literal["float32", "float16"]

FLOAT16_LARGEST = 65504.0
MAX_DIMENSIONS = 4
MAX_TENSOR_BYTES = 4 * 1024 * 1024

_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
# A float is NaN or infinite where all bits of its exponent are set. Looking at the bits is 10 times as fast as
# numpy.isfinite for float16, which numpy computes by way of float32.
_EXPONENT_BITS: dict[int, np.unsignedinteger[Any]] = {4: np.uint32(0x7F800000), 2: np.uint16(0x7C00)}


class TensorPayload(Struct, frozen=True, forbid_unknown_fields=True):
    """A dense tensor in C order. data: shape's product times 4 (float32) or 2 (float16) bytes, little-endian."""

    dtype: TensorType
    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=2**24)], ...], Meta(min_length=1, max_length=MAX_DIMENSIONS)]
    # Decoded without a copy: a view into the message that it came in.
    data: Annotated[memoryview, Meta(max_length=MAX_TENSOR_BYTES)]


def pack(array: NDArray[np.floating[Any]], dtype: TensorType) -> TensorPayload:
    """A payload of a float array of 1 to 4 dimensions; shares its memory where no conversion is needed.

    float16 saturates: what lies beyond +-65504, infinity included, becomes +-65504, since one infinity in a hidden
    state would make every later token NaN. Raises MessageRefused for NaN, for infinity in float32 ("not-finite") and
    for an empty tensor or one of other dimensions ("shape").
    """
    _check_shape(array.shape)
    fitting = _saturated(array) if dtype == "float16" else array
    converted = np.ascontiguousarray(fitting, dtype=_DTYPES[dtype])
    payload = TensorPayload(dtype, array.shape, converted.reshape(-1).view(np.uint8).data)
    unpack(payload)
    return payload


def unpack(payload: TensorPayload) -> NDArray[np.floating[Any]]:
    """The payload as an array of its dtype and shape, sharing its memory.

    Raises MessageRefused with reason "dtype", "shape" (empty, not 1 to 4 dimensions, or not as many bytes as the
    data has) or "not-finite" (NaN or infinity), so that none of these reaches a model.
    """
    dtype = _DTYPES.get(payload.dtype)
    if dtype is None:
        raise MessageRefused("dtype", f"a tensor of {payload.dtype!r}")
    _check_shape(payload.shape)
    # Python's integers do not overflow, so a huge shape cannot wrap around to a small product.
    expected_bytes = math.prod(payload.shape) * dtype.itemsize
    if expected_bytes != payload.data.nbytes:
        raise MessageRefused("shape", f"shape {payload.shape} needs {expected_bytes} bytes, not {payload.data.nbytes}")
    array = np.frombuffer(payload.data, dtype=dtype).reshape(payload.shape)
    if not _all_finite(array):
        raise MessageRefused("not-finite", "a tensor with NaN or infinity")
    return array


def _check_shape(shape: tuple[int, ...]) -> None:
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        raise MessageRefused("shape", f"a tensor of shape {shape}")


def _saturated(array: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if array.dtype == np.float16 and _all_finite(array):
        return array
    return np.clip(array, -FLOAT16_LARGEST, FLOAT16_LARGEST)


def _all_finite(array: NDArray[np.floating[Any]]) -> bool:
    """Whether a float32 or float16 array, not empty, has neither NaN nor infinity."""
    exponent = _EXPONENT_BITS[array.dtype.itemsize]
    return bool(np.max(array.view(exponent.dtype) & exponent) != exponent)
