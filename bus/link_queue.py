"""What is on a link in one direction, from whichever connection: first in, first out, delivered when it is due."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from .link import Lane

# What may wait for the link before reading stops, which the sender then feels by TCP's own back-pressure: some 20 ms at
# 100 Mbps and seconds on a bad mobile link, as in such a link's own modem.
_LIMIT_BYTES = 256 * 1024


class Receiver(Protocol):
    """Where pieces arrive."""

    def arrive(self, piece: memoryview) -> None: ...

    def arrive_end(self) -> None:
        """The sender has closed its side, and everything that it sent before has arrived."""
        ...

    def vanish(self, size_bytes: int) -> None:
        """So many bytes, or the end (0), will never arrive."""
        ...


class _OnItsWay(NamedTuple):
    """piece: None for the end of the connection."""

    arrives_s: float
    to: Receiver
    piece: memoryview | None


class LinkQueue:
    """cut: where set, draws the size of the next piece, and pieces arrive one in each pass of the event loop.

    Bound to the running event loop. One timer at a time stands for everything that is on its way; how late the loop
    calls it makes no later piece later, since each piece's time is known when it is sent.
    """

    def __init__(self, lane: Lane) -> None:
        self.cut: Callable[[], int] | None = None
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._on_their_way: deque[_OnItsWay] = deque()
        # When each piece leaves, and its size; what has not left yet waits for the link.
        self._leaving: deque[tuple[float, int]] = deque()
        self._waiting_bytes = 0
        self._when_there_is_room: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._held = False

    @property
    def full(self) -> bool:
        return self._waiting_bytes > _LIMIT_BYTES

    def send(self, to: Receiver, data: bytes) -> None:
        now_s = self._now_s()
        for piece in self._pieces(data):
            self._put(now_s, to, piece, len(piece))

    def send_end(self, to: Receiver) -> None:
        self._put(self._now_s(), to, None, 0)

    def call_when_there_is_room(self, call: Callable[[], None]) -> None:
        """Once, when half of the limit is free again."""
        self._when_there_is_room.append(call)
        self._wake_in_time()

    def hold(self) -> None:
        """Deliver nothing until `release`; what waits meanwhile fills the link, and then stops the sender."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self._wake_in_time()

    def clear(self) -> list[tuple[Receiver, int]]:
        """Drop everything; returns to whom how many bytes were on their way (0: the end of a connection)."""
        dropped = [(each.to, len(each.piece or b"")) for each in self._on_their_way]
        self._on_their_way.clear()
        self._leaving.clear()
        self._waiting_bytes = 0
        self._lane.clear()
        self._wake_in_time()
        return dropped

    def _pieces(self, data: bytes) -> Iterator[memoryview]:
        view = memoryview(data)
        start = 0
        while start < len(view):
            size = self._lane.piece_bytes if self.cut is None else self.cut()
            yield view[start : start + size]
            start += size

    def _put(self, now_s: float, to: Receiver, piece: memoryview | None, size_bytes: int) -> None:
        leaves_s, arrives_s = self._lane.send(now_s, size_bytes)
        self._leaving.append((leaves_s, size_bytes))
        self._waiting_bytes += size_bytes
        self._on_their_way.append(_OnItsWay(arrives_s, to, piece))
        if len(self._on_their_way) == 1:
            self._wake_in_time()

    def _now_s(self) -> float:
        """Seconds since the link began; what has left by now waits no more."""
        now_s = self._loop.time() - self._began_s
        while self._leaving and self._leaving[0][0] <= now_s:
            _, size_bytes = self._leaving.popleft()
            self._waiting_bytes -= size_bytes
        return now_s

    def _wake_in_time(self) -> None:
        """Set the timer for the next arrival or, where somebody waits for room, the next departure if it is sooner."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = [self._on_their_way[0].arrives_s] if self._on_their_way and not self._held else []
        if self._when_there_is_room:
            due_s.append(self._leaving[0][0] if self._leaving else 0.0)
        if due_s:
            self._timer = self._loop.call_at(self._began_s + min(due_s), self._wake)

    def _wake(self) -> None:
        now_s = self._now_s()
        if self._waiting_bytes <= _LIMIT_BYTES // 2:
            calls, self._when_there_is_room = self._when_there_is_room, []
            for call in calls:
                call()
        while self._on_their_way and not self._held and self._on_their_way[0].arrives_s <= now_s:
            arrived = self._on_their_way.popleft()
            if arrived.piece is None:
                arrived.to.arrive_end()
            else:
                arrived.to.arrive(arrived.piece)
            if self.cut is not None:
                # Written in one pass, small pieces would be read as one.
                break
        self._wake_in_time()
