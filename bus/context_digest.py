"""Digests of what stands at the positions of a sequence: they tell a repetition from a contradiction.

Two ends of a link that digest what they hold can be compared by their histories alone, without keeping hidden states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 8


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def digests_of_rows(rows: NDArray[np.float32]) -> list[bytes]:
    """One for each of the hidden states [positions, hidden_size], as a cloud reads them from the wire."""
    return [digest(row.tobytes()) for row in rows]


def digests_of_tokens(tokens: Sequence[int]) -> list[bytes]:
    return [digest(b"token %d" % token) for token in tokens]


def digests_of_prompt(content: bytes, positions: int) -> list[bytes]:
    """A prompt is one piece: the same at each of its positions."""
    return [digest(content)] * positions


def digest_of_sequence(digests: Iterable[bytes]) -> str:
    """Of a whole sequence, from those of its positions, in hexadecimal digits."""
    return digest(b"".join(digests)).hex()


def content_of_prompt(prompt: str, telemetry: Mapping[str, float], frames: Iterable[bytes]) -> bytes:
    return b"\0".join((prompt.encode(), repr(dict(telemetry)).encode(), *frames))
