"""Hidden states on the wire: how an edge packs them, and how a cloud reads them.

float16 is the default and exact to 11 bits; bfloat16 has float32's range in as many bytes; int8 takes half of them;
float32 is what a naive split would send. int8 has two scales: one for each channel, because channels of a residual
stream differ by orders of magnitude, fixed for the session from its first block; and one for each row, as large as
the row needs, so that nothing ever saturates, also not in positions that are unlike the prompt (attention sinks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import MessageRefused
from ..bus.messages import ContextChunk
from ..bus.tensors import TensorPayload, TensorType, pack, unpack

_INT8_LARGEST = 127
# Of a channel that is 0 all over the first block: small against any other, and no division by 0.
_SMALLEST_SCALE = np.float32(1e-6)
_BYTES_PER_NUMBER: dict[TensorType, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_BYTES_OF_A_SCALE = 4


def bytes_per_position(dtype: TensorType, hidden_size: int) -> int:
    """What one position's hidden state takes, without any framing; int8 with its row's scale."""
    return _BYTES_PER_NUMBER[dtype] * hidden_size + (_BYTES_OF_A_SCALE if dtype == "int8" else 0)


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Hidden states as they travel; cut and joined without being rounded again.

    values: [positions, hidden_size], of `dtype` (bfloat16: float32 numbers that it can hold). row_scales: float32
    [positions], of int8.
    """

    dtype: TensorType
    values: NDArray[Any]
    row_scales: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> PackedRows:
        scales = None if self.row_scales is None else self.row_scales[part]
        return PackedRows(self.dtype, self.values[part], scales)

    @property
    def nbytes(self) -> int:
        return len(self) * bytes_per_position(self.dtype, self.values.shape[1])

    @staticmethod
    def joined(parts: Sequence[PackedRows]) -> PackedRows:
        """Of one packer, in the order of their positions."""
        scales = [part.row_scales for part in parts if part.row_scales is not None]
        values = np.concatenate([part.values for part in parts])
        return PackedRows(parts[0].dtype, values, np.concatenate(scales) if scales else None)


class ContextPacker:
    """The edge's side of one session. channel_scales: float32 [hidden_size], of int8, once rows were packed."""

    def __init__(self, dtype: TensorType) -> None:
        self.dtype: TensorType = dtype
        self.channel_scales: NDArray[np.float32] | None = None

    def pack(self, hidden: NDArray[np.float32]) -> PackedRows:
        """Round float32 [positions, hidden_size] to the session's precision; the input is not kept.

        Raises MessageRefused ("not-finite", "shape") for what no cloud would take.
        """
        if self.dtype != "int8":
            return PackedRows(self.dtype, unpack(pack(hidden, self.dtype)).copy())
        _check_rows(hidden)
        if self.channel_scales is None:
            self.channel_scales = _channel_scales(hidden)
        relative = hidden / self.channel_scales
        row_scales = np.maximum(np.abs(relative).max(axis=1) / _INT8_LARGEST, _SMALLEST_SCALE).astype(np.float32)
        values = np.clip(np.rint(relative / row_scales[:, None]), -_INT8_LARGEST, _INT8_LARGEST)
        return PackedRows("int8", values.astype(np.int8), row_scales)

    def fields(self, rows: PackedRows, *, with_channels: bool) -> dict[str, Any]:
        """The fields of a ContextChunk with such rows. with_channels: the cloud may not have the channels' scales."""
        fields: dict[str, Any] = {"hidden": pack(rows.values, rows.dtype)}
        if rows.row_scales is not None:
            fields["row_scales"] = pack(rows.row_scales, "float32")
            if with_channels:
                assert self.channel_scales is not None, "there are scales where rows were packed"
                fields["channel_scales"] = pack(self.channel_scales, "float32")
        return fields


def unpack_rows(
    chunk: ContextChunk, hidden_size: int, channel_scales: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """A chunk's hidden states, float32 [positions, hidden_size], a copy.

    channel_scales: the session's, from an earlier chunk or this one; None where there are none yet.
    Raises MessageRefused: "shape", "dtype" (scales where none belong, or none where they do), "not-finite", and
    "scales" where only the session's are missing.
    """
    values = unpack(chunk.hidden)
    if values.ndim != 2 or values.shape[1] != hidden_size:
        raise MessageRefused("shape", f"hidden states {values.shape}, not [positions, {hidden_size}]")
    if chunk.hidden.dtype != "int8":
        if chunk.row_scales is not None or chunk.channel_scales is not None:
            raise MessageRefused("dtype", f"scales beside hidden states in {chunk.hidden.dtype}")
        return values.astype(np.float32)
    if chunk.row_scales is None:
        raise MessageRefused("dtype", "hidden states in int8 without the scales of their rows")
    row_scales = _scales(chunk.row_scales, len(values))
    if channel_scales is None:
        raise MessageRefused("scales", "hidden states in int8 before the scales of their channels")
    return _finite(values * row_scales[:, None] * channel_scales)


def channel_scales_of(chunk: ContextChunk, hidden_size: int) -> NDArray[np.float32] | None:
    """Those that a chunk brings, a copy; None where it brings none. Raises MessageRefused: "shape", "dtype"."""
    return None if chunk.channel_scales is None else _scales(chunk.channel_scales, hidden_size).copy()


def _channel_scales(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """The typical size of each channel; the median, which a few rows of another scale (attention sinks) do not move."""
    typical = np.median(np.abs(hidden), axis=0)
    return np.maximum(typical, max(_SMALLEST_SCALE, np.float32(1e-3) * typical.max())).astype(np.float32)


def _scales(payload: TensorPayload, count: int) -> NDArray[np.float32]:
    if payload.dtype != "float32":
        raise MessageRefused("dtype", f"scales in {payload.dtype}, not float32")
    scales = unpack(payload)
    if scales.shape != (count,):
        raise MessageRefused("shape", f"scales {scales.shape}, not [{count}]")
    return scales


def _check_rows(hidden: NDArray[np.float32]) -> None:
    """As packing in float32 would."""
    if hidden.ndim != 2:
        raise MessageRefused("shape", f"hidden states {hidden.shape}, not [positions, hidden_size]")
    pack(hidden, "float32")


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise MessageRefused("not-finite", "hidden states in int8 whose scales are beyond float32")
    return values
