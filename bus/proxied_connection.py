"""One TCP connection through the shaping proxy: its two ends, and the shared link between them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from .connection import BrokerAddress
from .link import Direction
from .link_queue import LinkQueue
from .mqtt_packets import Packet, PacketStream

# Left to itself the kernel's buffer grows to megabytes before the sender feels a full link.
_RECEIVE_BUFFER_BYTES = 64 * 1024
# Linger on, for 0 seconds: closing the socket sends RST instead of FIN.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What travels in place of a packet: itself, nothing, or something more.
Tamper: TypeAlias = Callable[[Direction, Packet], Iterable[bytes]]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Link:
    """What all connections through one proxy share.

    vanishing: nothing that is sent arrives. refusing: every new connection is reset.
    tamper: what becomes of each MQTT packet; None: bytes are passed on unread.
    """

    uplink: LinkQueue
    downlink: LinkQueue
    vanishing: bool = False
    refusing: bool = False
    tamper: Tamper | None = None
    counters: Counter[str] = field(default_factory=Counter)

    def queue(self, direction: Direction) -> LinkQueue:
        return self.uplink if direction == "uplink" else self.downlink


class ProxiedConnection:
    """near: the client's end, which a server creates; far: the broker's, opened as soon as the near one is.

    has_gap: something of it vanished, and TCP never goes on behind a gap.
    """

    def __init__(self, link: Link, target: BrokerAddress, on_closed: Callable[[ProxiedConnection], None]) -> None:
        self.link = link
        self.near = End(self, "uplink", on_connected=self._open_far)
        self.far = End(self, "downlink", on_connected=self._start)
        self.near.peer, self.far.peer = self.far, self.near
        self.has_gap = False
        self._target = target
        self._on_closed = on_closed
        self._opening: asyncio.Task[None] | None = None

    def reset(self) -> None:
        """End it at both ends at once, by RST."""
        self.link.counters["resets"] += 1
        if self._opening is not None:
            self._opening.cancel()
        self.near.reset()
        self.far.reset()

    def vanish(self, size_bytes: int) -> None:
        """So many bytes of it, or its end (0), will never arrive."""
        self.has_gap = True
        self.link.counters["vanished_bytes"] += size_bytes

    def end_closed(self) -> None:
        if self.near.closed and self.far.closed:
            self._on_closed(self)

    def _open_far(self) -> None:
        if self.link.refusing:
            self.reset()
            return
        self.near.pause("broker not connected")
        self._opening = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, self._target.host, self._target.port)
        except OSError as error:
            _log.warning("the broker behind the link cannot be reached", broker=str(self._target), why=str(error))
            self.reset()

    def _start(self) -> None:
        self.near.resume("broker not connected")


class End(asyncio.Protocol):
    """One side of a connection. What it reads travels in `direction` to its peer.

    closed: it has no socket, either no longer or not yet.
    """

    peer: End

    def __init__(self, connection: ProxiedConnection, direction: Direction, on_connected: Callable[[], None]) -> None:
        self.connection = connection
        self.closed = True
        self._link = connection.link
        self._direction: Direction = direction
        self._queue = connection.link.queue(direction)
        self._on_connected = on_connected
        self._transport: asyncio.Transport | None = None
        self._pauses: set[str] = set()
        self._packets = PacketStream()

    # What the socket says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.closed = False
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._on_connected()

    def data_received(self, data: bytes) -> None:
        if self._link.vanishing:
            self.connection.vanish(len(data))
            return
        tamper = self._link.tamper
        if tamper is not None:
            data = b"".join(part for packet in self._packets.feed(data) for part in tamper(self._direction, packet))
        self._queue.send(self.peer, data)
        if self._queue.full:
            self.pause("link full")
            self._queue.call_when_there_is_room(self._link_has_room)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._link.vanishing:
            self.connection.vanish(0)
        else:
            self._queue.send_end(self.peer)
        self.connection.end_closed()

    def pause_writing(self) -> None:
        self.peer.pause("receiver slow")

    def resume_writing(self) -> None:
        self.peer.resume("receiver slow")

    # What the link says

    def arrive(self, piece: memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(piece)
            self._link.counters[f"{self.peer._direction}_bytes"] += len(piece)

    def arrive_end(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def vanish(self, size_bytes: int) -> None:
        self.connection.vanish(size_bytes)

    def _link_has_room(self) -> None:
        self.resume("link full")

    # What the connection says

    def pause(self, why: str) -> None:
        """Read no more until each reason to pause is gone."""
        self._pauses.add(why)
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self, why: str) -> None:
        self._pauses.discard(why)
        if self._transport is not None and not self._pauses:
            self._transport.resume_reading()

    def reset(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
