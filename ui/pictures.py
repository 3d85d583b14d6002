"""The newest picture of each vehicle, within a budget of bytes, and the small copy of it that a browser gets.

A picture comes from the bus and is not to be trusted: it is decoded here, within limits, and what a browser gets was
encoded here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from ..bus.errors import MessageRefused
from ..datasets.jpeg import encode_jpeg, fit_within
from ..models.images import open_image

LONGEST_SIDE_PX = 480
_QUALITY = 80
_BUDGET_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Picture:
    """waiting: the newest JPEG, which nobody has looked at yet; None where it was decoded or has turned out broken.

    thumbnail: of the newest that could be read, empty until there is one; version: of that thumbnail, growing with the
    pictures of all vehicles.
    """

    waiting: bytes | None = None
    thumbnail: bytes = b""
    version: int = 0
    is_broken: bool = False

    @property
    def bytes_kept(self) -> int:
        return len(self.thumbnail) + len(self.waiting or b"")


class Pictures:
    """Pictures are decoded for those who look (`decode`), since most of a large fleet's are never seen."""

    def __init__(self, budget_bytes: int = _BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._bytes = 0
        self._decoded = 0

    @property
    def bytes_kept(self) -> int:
        return self._bytes

    def put(self, vehicle: str, jpeg: bytes) -> None:
        """Take a vehicle's newest picture; where the budget is spent, the vehicles longest unheard lose theirs."""
        picture = self._pictures.pop(vehicle, None) or Picture()
        self._bytes += len(jpeg) - len(picture.waiting or b"")
        picture.waiting = jpeg
        self._pictures[vehicle] = picture
        while self._bytes > self._budget_bytes:
            self.forget(next(iter(self._pictures)))

    def get(self, vehicle: str) -> Picture | None:
        return self._pictures.get(vehicle)

    def forget(self, vehicle: str) -> None:
        if (picture := self._pictures.pop(vehicle, None)) is not None:
            self._bytes -= picture.bytes_kept

    async def decode(self, vehicle: str) -> None:
        """Make the thumbnail of what waits, on a thread, since a picture that was made for it can take a while."""
        picture = self._pictures.get(vehicle)
        if picture is None or picture.waiting is None:
            return
        jpeg = picture.waiting
        small = await asyncio.to_thread(thumbnail, jpeg)
        # Meanwhile it may have been forgotten, replaced, or decoded for another browser.
        if self._pictures.get(vehicle) is not picture or picture.waiting is not jpeg:
            return
        self._bytes -= picture.bytes_kept
        picture.waiting, picture.is_broken = None, not small
        if small:
            self._decoded += 1
            picture.thumbnail, picture.version = small, self._decoded
        self._bytes += picture.bytes_kept


def thumbnail(jpeg: bytes) -> bytes:
    """A small JPEG of the picture; empty where it cannot be read or is larger than a vehicle's. Takes milliseconds."""
    try:
        return encode_jpeg(fit_within(open_image(jpeg), LONGEST_SIDE_PX), _QUALITY)
    except MessageRefused:
        return b""
