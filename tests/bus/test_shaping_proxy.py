"""The shaping proxy, with raw TCP through it. A bus behind it is in test_bus_over_links.py."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
from roadside.bus.errors import BusError
from roadside.bus.link import LinkShape
from roadside.bus.shaping_proxy import ShapingProxy

# Nothing here waits by the clock, except where what is waited for must not come; this only ends a test that would hang.
PATIENCE_S = 20.0
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)

LOOPBACK = "127.0.0.1"


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """A server that sends back what it gets; yields its URL."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    try:
        yield f"mqtt://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()


@contextlib.asynccontextmanager
async def connection(proxy: ShapingProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    """Give the event loop time until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - conditions of every kind, few of which have an event
            await asyncio.sleep(0.005)


async def round_trip_s(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b"ping") -> float:
    started_s = time.monotonic()
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return time.monotonic() - started_s


async def test_a_round_trip_takes_at_least_what_the_link_says():
    async with echo() as url, ShapingProxy(url, LinkShape(round_trip=60.0)) as proxy, connection(proxy) as ends:
        trips_s = [await round_trip_s(*ends) for _ in range(3)]
    assert min(trips_s) >= 0.060


async def test_no_more_than_the_rate_gets_through_and_all_of_it():
    data = random.Random(0).randbytes(250_000)
    shape = LinkShape(uplink=10e6, downlink=40e6)
    async with echo() as url, ShapingProxy(url, shape) as proxy, connection(proxy) as (reader, writer):
        took_s = await round_trip_s(reader, writer, data)
        assert proxy.counters["uplink_bytes"] == proxy.counters["downlink_bytes"] == len(data)
    # 200 ms of uplink; the downlink works on what has arrived meanwhile.
    assert took_s >= len(data) * 8 / 10e6


async def test_connections_share_the_link():
    data = bytes(60_000)
    async with echo() as url, ShapingProxy(url, LinkShape(uplink=4e6)) as proxy:
        async with connection(proxy) as one, connection(proxy) as other:
            started_s = time.monotonic()
            await asyncio.gather(round_trip_s(*one, data), round_trip_s(*other, data))
            assert time.monotonic() - started_s >= 2 * len(data) * 8 / 4e6
        assert proxy.counters["connections"] == 2


async def test_a_sender_feels_a_slow_link():
    async with echo() as url, ShapingProxy(url, LinkShape(uplink=8e3)) as proxy:
        with socket.create_connection((LOOPBACK, proxy.port)) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            sender.setblocking(False)
            sent = 0
            # Full for several looks in a row: nobody takes anything any more.
            refusals = 0
            while refusals < 20:
                try:
                    sent += sender.send(bytes(16 * 1024))
                    refusals = 0
                except BlockingIOError:
                    refusals += 1
                    await asyncio.sleep(0.01)
                assert sent < 2_000_000


async def test_slices_arrive_in_pieces_and_make_the_same_bytes():
    data = random.Random(1).randbytes(4_000)
    async with echo() as url, ShapingProxy(url, LinkShape(), seed=3) as proxy, connection(proxy) as (reader, writer):
        await round_trip_s(reader, writer)
        proxy.slice(largest_bytes=50)
        writer.write(data)
        pieces = [await reader.read(65536)]
        while sum(map(len, pieces)) < len(data):
            pieces.append(await reader.read(65536))
    assert b"".join(pieces) == data
    assert len(pieces) > 20


async def test_a_black_hole_swallows_what_is_on_its_way_and_keeps_the_connection():
    # Takes 8 seconds to leave, so none of it has arrived when the hole opens.
    on_its_way, sent_into_it = bytes(8_000), b"hello?"
    async with (
        echo() as url,
        ShapingProxy(url, LinkShape(uplink=8e3)) as proxy,
        connection(proxy) as (reader, writer),
        connection(proxy) as idle,
    ):
        await round_trip_s(reader, writer)
        await round_trip_s(*idle)
        writer.write(on_its_way)
        await asyncio.sleep(0.02)
        proxy.black_hole()
        writer.write(sent_into_it)
        await until(lambda: proxy.counters["vanished_bytes"] == len(on_its_way) + len(sent_into_it))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert not reader.at_eof()
        # A gap cannot be mended; where there is none, the connection goes on.
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), PATIENCE_S)
        await round_trip_s(*idle)


async def test_a_black_hole_tells_nobody_that_the_other_side_left():
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    url = f"mqtt://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    async with server, ShapingProxy(url, LinkShape()) as proxy:
        async with connection(proxy) as (_, writer):
            writer.write(b"hello")
            await until(lambda: proxy.counters["uplink_bytes"] == 5)
            proxy.black_hole()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.2)
        proxy.heal()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)


async def test_reset_ends_both_ends_at_once_and_new_connections_follow():
    async with echo() as url, ShapingProxy(url, LinkShape(round_trip=2.0)) as proxy:
        async with connection(proxy) as (reader, writer):
            await round_trip_s(reader, writer)
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        assert proxy.counters["resets"] == 1
        async with connection(proxy) as ends:
            await round_trip_s(*ends)


async def test_a_closing_arrives_after_what_was_sent_before():
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())
        writer.close()

    received: list[bytes] = []
    server = await asyncio.start_server(answer_at_the_end, LOOPBACK, 0)
    url = f"mqtt://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    async with server, ShapingProxy(url, LinkShape(uplink=1e6, round_trip=20.0)) as proxy:
        async with connection(proxy) as (_, writer):
            writer.write(bytes(10_000))
        await until(lambda: received)
    assert received == [bytes(10_000)]


async def test_nobody_behind_the_link():
    async with echo() as url:
        pass
    async with ShapingProxy(url, LinkShape()) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_a_port_in_use_is_said():
    async with echo() as url, ShapingProxy(url, LinkShape()) as first:
        with pytest.raises(BusError, match=f"{first.port}.*--port"):
            await ShapingProxy(url, LinkShape(), port=first.port).__aenter__()


async def test_credentials_travel_in_the_url():
    async with ShapingProxy("mqtt://me%40home:p%2Fw@broker.example:1", LinkShape()) as proxy:
        assert proxy.url == f"mqtt://me%40home:p%2Fw@{LOOPBACK}:{proxy.port}"
