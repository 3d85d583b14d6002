"""Which positions of a sequence have arrived, and with what: small enough to be kept for every one of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from ..bus.context_digest import DIGEST_BYTES


class Arrivals:
    """A digest for each position, in one piece of memory: 8 bytes each, so that gaps cost little and positions less.

    Digests are of DIGEST_BYTES. That many tell an edge's honest repetition from its own mistake; what one edge sends
    touches no other's context, so nobody gains by making two contents look alike.
    """

    DIGEST_BYTES: ClassVar[int] = DIGEST_BYTES
    _NONE: ClassVar[bytes] = bytes(DIGEST_BYTES)

    def __init__(self) -> None:
        self._digests = bytearray()

    @property
    def nbytes(self) -> int:
        return len(self._digests)

    def __contains__(self, position: int) -> bool:
        return self._at(position) != self._NONE

    def add(self, digests: list[bytes], position: int) -> list[int] | Literal["conflict"]:
        """The positions that are new among those from `position` on; nothing is added where one is in conflict."""
        marked = [digest if digest != self._NONE else b"\1" * self.DIGEST_BYTES for digest in digests]
        known = [self._at(position + offset) for offset in range(len(marked))]
        if any(old not in (self._NONE, digest) for old, digest in zip(known, marked, strict=True)):
            return "conflict"
        end = (position + len(marked)) * self.DIGEST_BYTES
        self._digests.extend(bytes(max(0, end - len(self._digests))))
        self._digests[position * self.DIGEST_BYTES : end] = b"".join(marked)
        return [position + offset for offset, old in enumerate(known) if old == self._NONE]

    def cut(self, kept: int) -> None:
        """Forget all but the first so many positions."""
        del self._digests[kept * self.DIGEST_BYTES :]

    def clear(self) -> None:
        self._digests.clear()

    def _at(self, position: int) -> bytes:
        begin = position * self.DIGEST_BYTES
        return bytes(self._digests[begin : begin + self.DIGEST_BYTES]) or self._NONE
