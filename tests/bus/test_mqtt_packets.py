"""Packets are the same however the stream was cut into pieces; a proxy that tampers with them loses no bytes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.link import Direction, LinkShape
from roadside.bus.messages import CloseContext
from roadside.bus.mqtt_packets import Packet, PacketStream
from roadside.bus.shaping_proxy import ShapingProxy
from roadside.bus.transport import Bus

PATIENCE_S = 20.0


def publish(topic: str, payload: bytes, qos: int) -> bytes:
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (b"\0\1" if qos else b"") + payload
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([0x30 | qos << 1]) + bytes(digits) + body


packets = st.one_of(
    st.sampled_from([b"\x40\x02\x00\x01", b"\xc0\x00", b"\xd0\x00"]),
    st.builds(publish, st.text("abc/é", min_size=1, max_size=40), st.binary(max_size=400), st.sampled_from([0, 1])),
    st.builds(publish, st.just("a"), st.just(bytes(2**14)), st.just(0)),
)


@settings(deadline=None)
@given(st.lists(packets, max_size=8), st.lists(st.integers(1, 9000), min_size=1, max_size=12))
def test_packets_do_not_depend_on_how_the_stream_was_cut(sent: list[bytes], sizes: list[int]):
    stream, found, wire = PacketStream(), list[Packet](), b"".join(sent)
    for size in itertools.cycle(sizes):
        if not wire:
            break
        found += stream.feed(wire[:size])
        wire = wire[size:]
    assert [packet.raw for packet in found] == sent


@given(st.text("abc/é", min_size=1, max_size=40), st.binary(max_size=300), st.sampled_from([0, 1]))
def test_a_publish_tells_topic_and_quality(topic: str, payload: bytes, qos: int):
    (packet,) = PacketStream().feed(publish(topic, payload, qos))
    assert (packet.topic, packet.qos) == (topic, qos)


async def heard_through(broker: Broker, fleet: str, tamper, count: int) -> list[str]:
    """Which sessions of `count` closings arrive."""
    heard: list[str] = []
    async with (
        ShapingProxy(broker.url, LinkShape(), tamper=tamper) as proxy,
        Bus(url=broker.url, fleet=fleet, name="cloud-1") as cloud,
        Bus(url=proxy.url, fleet=fleet, name="edge-1") as edge,
    ):
        inbox = cloud.subscribe(topics.CONTEXT, node="cloud-1")
        await inbox.active.wait()
        for number in range(count):
            edge.post(topics.CONTEXT, CloseContext(session=f"s.{number}"), node="cloud-1")
        edge.post(topics.CONTEXT, CloseContext(session="last"), node="cloud-1")
        async with asyncio.timeout(PATIENCE_S):
            async for received in inbox:
                heard.append(received.body.session)
                if heard[-1] == "last":
                    return heard
    return heard


def only_contexts(direction: Direction, packet: Packet) -> bool:
    return direction == "uplink" and "/context/" in packet.topic


async def test_a_packet_can_be_lost_and_the_stream_goes_on(best_broker: Broker, fleet: str):
    seen: list[Packet] = []

    def lose_the_second(direction: Direction, packet: Packet) -> Iterable[bytes]:
        if only_contexts(direction, packet):
            seen.append(packet)
            return [] if len(seen) == 2 else [packet.raw]
        return [packet.raw]

    assert await heard_through(best_broker, fleet, lose_the_second, 3) == ["s.0", "s.2", "last"]


async def test_a_packet_can_be_repeated_and_overtaken(best_broker: Broker, fleet: str):
    held: list[bytes] = []

    def swap_the_first_two_and_double_the_third(direction: Direction, packet: Packet) -> Iterable[bytes]:
        if not only_contexts(direction, packet):
            return [packet.raw]
        held.append(packet.raw)
        match len(held):
            case 1:
                return []
            case 2:
                return [packet.raw, held[0]]
            case 3:
                return [packet.raw, packet.raw]
            case _:
                return [packet.raw]

    heard = await heard_through(best_broker, fleet, swap_the_first_two_and_double_the_third, 3)
    # The bus refuses what it has heard before, so the second "s.2" got no further than its counter.
    assert list(dict.fromkeys(heard)) == ["s.1", "s.0", "s.2", "last"]
    assert len(held) == 4


async def test_a_cut_link_takes_no_connection_until_it_is_mended(best_broker: Broker, fleet: str):
    async with (
        ShapingProxy(best_broker.url, LinkShape()) as proxy,
        # It does not wait for an answer that cannot come any more.
        Bus(url=proxy.url, fleet=fleet, name="edge-1", timeout_s=10 * PATIENCE_S) as bus,
        asyncio.timeout(PATIENCE_S),
    ):
        proxy.cut()
        await bus.disconnected.wait()
        tried = proxy.counters["connections"]
        while proxy.counters["connections"] == tried:  # noqa: ASYNC110 - the proxy counts, and tells nobody
            await asyncio.sleep(0.01)
        assert bus.disconnected.is_set()
        proxy.heal()
        await bus.connected.wait()


async def test_what_is_held_back_arrives_in_order_once_it_is_released(best_broker: Broker, fleet: str):
    async with (
        ShapingProxy(best_broker.url, LinkShape()) as proxy,
        Bus(url=proxy.url, fleet=fleet, name="cloud-1") as cloud,
        Bus(url=best_broker.url, fleet=fleet, name="edge-1") as edge,
        asyncio.timeout(PATIENCE_S),
    ):
        inbox = cloud.subscribe(topics.CONTEXT, node="cloud-1")
        await inbox.active.wait()
        proxy.hold("downlink")
        for number in range(5):
            edge.post(topics.CONTEXT, CloseContext(session=f"s.{number}"), node="cloud-1")
        await edge.until_sent()
        await asyncio.sleep(0.1)
        assert len(inbox) == 0
        proxy.heal()
        assert [(await anext(inbox)).body.session for _ in range(5)] == [f"s.{number}" for number in range(5)]
