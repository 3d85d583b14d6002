"""Repeated keys in a MessagePack message.

A parser that takes the last of two values and one that takes the first would read different messages. msgspec takes
the last, silently, so the codec asks here about every message that is not written exactly as it would write it.
"""

from __future__ import annotations

_MAP = "map"
_ARRAY = "array"
_BYTES = "bytes"

# First byte -> what follows, and how many bytes its length takes (MessagePack specification, "Formats").
_SIZED = {
    **dict.fromkeys((0xC4, 0xD9), (_BYTES, 1)),
    **dict.fromkeys((0xC5, 0xDA), (_BYTES, 2)),
    **dict.fromkeys((0xC6, 0xDB), (_BYTES, 4)),
    0xDC: (_ARRAY, 2),
    0xDD: (_ARRAY, 4),
    0xDE: (_MAP, 2),
    0xDF: (_MAP, 4),
}
_NUMBER_BYTES = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


def has_duplicate_key(payload: bytes) -> bool:
    """Whether any map in a message names a key twice.

    Only for a message that a typed decoder has accepted: it is well-formed, not deep, and all its keys are strings.
    """
    try:
        _walk(payload, 0)
    except _DuplicateKey:
        return True
    return False


class _DuplicateKey(Exception):
    pass


def _walk(payload: bytes, position: int) -> int:
    """Step over one value and return the position behind it."""
    kind, count, position = _header(payload, position)
    if kind == _BYTES:
        return position + count
    if kind == _ARRAY:
        for _ in range(count):
            position = _walk(payload, position)
        return position
    keys: set[bytes] = set()
    for _ in range(count):
        _, length, begin = _header(payload, position)
        key = payload[begin : begin + length]
        if key in keys:
            raise _DuplicateKey
        keys.add(key)
        position = _walk(payload, begin + length)
    return position


def _header(payload: bytes, position: int) -> tuple[str, int, int]:
    """What stands at a position: its kind, its length or count, and where its content begins."""
    first = payload[position]
    position += 1
    if first in _SIZED:
        kind, length_bytes = _SIZED[first]
        return kind, int.from_bytes(payload[position : position + length_bytes], "big"), position + length_bytes
    if 0x80 <= first <= 0x8F:
        return _MAP, first & 0x0F, position
    if 0x90 <= first <= 0x9F:
        return _ARRAY, first & 0x0F, position
    if 0xA0 <= first <= 0xBF:
        return _BYTES, first & 0x1F, position
    # A number, nil or a boolean: nothing in it can be a map.
    return _BYTES, _NUMBER_BYTES.get(first, 0), position
