"""MQTT control packets in a stream of bytes, for a proxy that loses, repeats or reorders them (MQTT 3.1.1, 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

_PUBLISH = 3
_LONGEST_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Packet:
    """raw: all of it. topic: of a PUBLISH, else empty; qos: its quality of service, else 0."""

    raw: bytes
    topic: str = ""
    qos: int = 0


class PacketStream:
    """One direction of one connection, from its first byte on."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are complete now."""
        self._waiting += data
        packets: list[Packet] = []
        while (size_bytes := _packet_bytes(self._waiting)) is not None and size_bytes <= len(self._waiting):
            packets.append(_packet(bytes(self._waiting[:size_bytes])))
            del self._waiting[:size_bytes]
        return packets


def _packet_bytes(data: bytearray) -> int | None:
    """How long the packet at the beginning is; None where too little of it is there to tell."""
    length = 0
    for index in range(1, min(len(data), _LONGEST_LENGTH + 1)):
        length |= (data[index] & 0x7F) << 7 * (index - 1)
        if not data[index] & 0x80:
            return 1 + index + length
    if len(data) > _LONGEST_LENGTH:
        raise ValueError("a remaining length of more than four bytes: this is not MQTT")
    return None


def _packet(raw: bytes) -> Packet:
    if raw[0] >> 4 != _PUBLISH:
        return Packet(raw)
    begin = next(index for index in range(1, len(raw)) if not raw[index] & 0x80) + 1
    length = int.from_bytes(raw[begin : begin + 2], "big")
    return Packet(raw, raw[begin + 2 : begin + 2 + length].decode(), (raw[0] >> 1) & 0b11)
