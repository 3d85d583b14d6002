"""Messages that were here before: whoever repeats one, be it the broker or somebody who kept it, is refused.

A sender numbers the messages of one life (`boot_id`, `sequence`). Of each topic they arrive nearly in that order: only
what was on its way when a connection broke comes again, and late. So it is enough to remember the newest numbers, and
to refuse what is older than all of them.

A *state* (retained topic) is different. Its newest message comes again with every subscription and every connection,
and says nothing new; an older one would turn back time. A last will has number 0 and may come at any time.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import MessageRefused
from .messages import Envelope
from .topics import Topic

# Six times what a sender has on its way at once (transport.py).
_NUMBERS_REMEMBERED = 128
# Of one sender: its lives times the topics on which it speaks to this process.
_STREAMS_REMEMBERED = 32
_SENDERS_REMEMBERED = 4096
_LAST_WILL = 0

Key = TypeVar("Key")
Value = TypeVar("Value")


class _Numbers:
    """What has been seen of one topic in one life of a sender."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._in_order: list[int] = []
        self._forgotten_up_to = -1
        self._newest = -1

    def is_new(self, number: int) -> bool:
        return number > self._forgotten_up_to and number not in self._seen

    def is_older(self, number: int) -> bool:
        return number < self._newest

    def remember(self, number: int) -> None:
        self._newest = max(self._newest, number)
        self._seen.add(number)
        heapq.heappush(self._in_order, number)
        if len(self._in_order) > _NUMBERS_REMEMBERED:
            self._forgotten_up_to = heapq.heappop(self._in_order)
            self._seen.discard(self._forgotten_up_to)

    def replace(self, number: int) -> None:
        """Of a state, the newest number is all that counts."""
        self._newest = number


class ReplayGuard:
    """What one process remembers of everybody's messages; bounded, the longest silent being forgotten first."""

    def __init__(self) -> None:
        self._senders: OrderedDict[str, OrderedDict[tuple[str, str], _Numbers]] = OrderedDict()

    def admit(self, topic: Topic, envelope: Envelope[Any]) -> None:
        """Remember a valid message; raises MessageRefused with reason "replayed" for one that was here before."""
        number = envelope.sequence
        if topic.retained and number == _LAST_WILL:
            return
        seen = self._numbers(envelope.sender, (envelope.boot_id, topic.name))
        if topic.retained:
            if seen.is_older(number):
                raise MessageRefused("replayed", f"{topic.name}: number {number} is older than what is known")
            seen.replace(number)
            return
        if not seen.is_new(number):
            raise MessageRefused("replayed", f"{topic.name}: number {number} of {envelope.sender} was here before")
        seen.remember(number)

    def _numbers(self, sender: str, stream: tuple[str, str]) -> _Numbers:
        streams = _used(self._senders, sender, OrderedDict, _SENDERS_REMEMBERED)
        return _used(streams, stream, _Numbers, _STREAMS_REMEMBERED)


def _used(kept: OrderedDict[Key, Value], key: Key, make: Callable[[], Value], limit: int) -> Value:
    """The value of a key, made where there is none, as the one that was used last; at most `limit` are kept."""
    if key in kept:
        kept.move_to_end(key)
        return kept[key]
    if len(kept) >= limit:
        kept.popitem(last=False)
    kept[key] = make()
    return kept[key]
