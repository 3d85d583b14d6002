"""A TCP proxy that makes a fast network behave like a given link, and that breaks it when told to.

    async with ShapingProxy(broker.url, LinkShape(uplink=10e6, downlink=10e6, round_trip=40.0)) as proxy:
        async with Bus(url=proxy.url, ...) as bus:
            ...
            proxy.black_hole()

All connections through one proxy share its link, as those of one vehicle share its radio. Opening a connection costs
no round trip of its own, since the near end is accepted at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
from collections import Counter
from types import TracebackType
from typing import Self

from .broker import LOOPBACK
from .connection import BrokerAddress
from .errors import BusError
from .link import Direction, LinkShape
from .link_queue import LinkQueue
from .proxied_connection import Link, ProxiedConnection, Tamper


class ShapingProxy:
    """Listens on the loopback interface and passes on to a broker; an asynchronous context manager, entered once.

    url: of the broker, `mqtt://[user:password@]host[:port]`.
    shape, seed: what the link does; the same seed draws the same jitter and the same pieces.
    port: where to listen; 0 takes a free one.
    tamper: for each MQTT packet, what travels in its place; not for connections that are encrypted.

    After entering, `url` is the broker's by way of the proxy, credentials included, and `counters` counts:
    uplink_bytes and downlink_bytes (delivered), vanished_bytes, connections, resets.

    Raises ConfigurationError for an unusable url; entering raises BusError where the port cannot be listened on.
    """

    def __init__(
        self, url: str, shape: LinkShape, *, seed: int = 0, port: int = 0, tamper: Tamper | None = None
    ) -> None:
        self.port = port
        self._target = BrokerAddress.parse(url)
        self._shape = shape
        self._seed = seed
        self._tamper = tamper
        self._connections: set[ProxiedConnection] = set()
        self._no_connections = asyncio.Event()
        self._no_connections.set()

    @property
    def url(self) -> str:
        return dataclasses.replace(self._target, host=LOOPBACK, port=self.port).url

    @property
    def counters(self) -> Counter[str]:
        return self._link.counters

    async def __aenter__(self) -> Self:
        self._link = Link(
            uplink=LinkQueue(self._shape.lane("uplink", self._seed)),
            downlink=LinkQueue(self._shape.lane("downlink", self._seed)),
            tamper=self._tamper,
        )
        try:
            self._server = await asyncio.get_running_loop().create_server(self._accept, LOOPBACK, self.port)
        except OSError as error:
            raise BusError(
                f"cannot listen on port {self.port} ({error.strerror}): choose another with --port, or 0 for a free one"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.reset()
        await self._no_connections.wait()
        await self._server.wait_closed()
        self._link.uplink.clear()
        self._link.downlink.clear()

    def _accept(self) -> asyncio.Protocol:
        connection = ProxiedConnection(self._link, self._target, self._forget)
        self._connections.add(connection)
        self._no_connections.clear()
        self.counters["connections"] += 1
        return connection.near

    def _forget(self, connection: ProxiedConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._no_connections.set()

    # Faults

    def black_hole(self) -> None:
        """From now on what is sent and what is on its way vanishes, closings too; the connections stay open."""
        self._link.vanishing = True
        for queue in (self._link.uplink, self._link.downlink):
            for end, size_bytes in queue.clear():
                end.vanish(size_bytes)

    def reset(self) -> None:
        """End every connection at both ends at once, by RST; new ones may follow."""
        for connection in list(self._connections):
            connection.reset()

    def cut(self) -> None:
        """From now on every connection is reset, those that stand and those that are tried."""
        self._link.refusing = True
        self.reset()

    def hold(self, direction: Direction) -> None:
        """From now on nothing arrives in that direction, and nothing is lost: the link fills, then the sender waits."""
        self._link.queue(direction).hold()

    def slice(self, largest_bytes: int = 16) -> None:
        """From now on bytes arrive in pieces of 1 to `largest_bytes`, as the seed draws them."""
        drawn = random.Random(f"{self._seed}/pieces")
        for queue in (self._link.uplink, self._link.downlink):
            queue.cut = functools.partial(drawn.randint, 1, largest_bytes)

    def heal(self) -> None:
        """End the black hole, the cut, the slicing and what is held back.

        A connection that lost something is reset at both ends, as TCP never goes on behind a gap; one that was idle
        all the while goes on.
        """
        self._link.vanishing = self._link.refusing = False
        self._link.uplink.release()
        self._link.downlink.release()
        self._link.uplink.cut = self._link.downlink.cut = None
        for connection in list(self._connections):
            if connection.has_gap:
                connection.reset()
