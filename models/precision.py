"""Hidden states on their way between tiers: float16, made to fit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bus.tensors import FLOAT16_LARGEST


def to_float16(hidden: Tensor) -> NDArray[np.float16]:
    """A copy in float16 of the same shape. It saturates: an infinity would make every later token NaN.

    Cast in torch, which is several times as fast as NumPy's.
    """
    # In float32, since bfloat16 has no number so near to float16's largest, and would clamp to one beyond it.
    return hidden.float().clamp(-FLOAT16_LARGEST, FLOAT16_LARGEST).to(torch.float16).numpy()


def to_float32(hidden: NDArray[np.float16]) -> Tensor:
    """What the receiver computes with."""
    # A copy: what arrived lies in a message's read-only memory.
    return torch.from_numpy(hidden.astype(np.float32))
