"""What happens to every arriving message: checked, refused by reason, or handed to the subscriptions that want it."""

from __future__ import annotations

import time
from collections import Counter

import structlog

from . import codec
from .errors import MessageRefused
from .replays import ReplayGuard
from .subscription import Received, Subscription
from .topics import topic_of

_LOG_INTERVAL_S = 10.0

_log = structlog.get_logger(__name__)


def read(address: str, payload: bytes, *, retained: bool = False) -> Received:
    """Decode and check one message.

    retained: the broker had kept it since before the subscription. Raises MessageRefused with reason "address" (not in
    the topic table), "sender" (the envelope names another sender than the address), "retained" (of a topic whose
    messages are for those who listen when they are sent), or one of the codec's.
    """
    found = topic_of(address)
    if found is None:
        raise MessageRefused("address", "not in the topic table")
    topic, names = found
    if retained and not topic.retained:
        raise MessageRefused("retained", f"{topic.name}: kept by the broker, from nobody knows when")
    envelope = codec.decode(topic, payload)
    if envelope.sender != names[topic.sender]:
        raise MessageRefused("sender", f"{envelope.sender} on the address of {names[topic.sender]}")
    return Received(topic, names, envelope)


class Inbox:
    """The subscriptions of one bus; a bad message gets no further, nor does one that was here before.

    Counts received, unwanted and refused.<reason>.
    """

    def __init__(self, *, owner: str, counters: Counter[str]) -> None:
        self._owner = owner
        self._counters = counters
        self._subscriptions: list[Subscription] = []
        self._replays = ReplayGuard()
        self._logged_at_s: dict[str, float] = {}

    @property
    def subscriptions(self) -> list[Subscription]:
        """In the order in which they were made; the list only grows."""
        return self._subscriptions

    def add(self, subscription: Subscription) -> None:
        self._subscriptions.append(subscription)

    def take(self, address: str, payload: bytes, *, retained: bool = False) -> None:
        """Let one message in, or count it as refused, or as unwanted where nobody subscribed to it."""
        try:
            received = read(address, payload, retained=retained)
            self._replays.admit(received.topic, received.envelope)
        except MessageRefused as refusal:
            self._counters[f"refused.{refusal.reason}"] += 1
            self._log_now_and_then(address, refusal)
            return
        wanting = [each for each in self._subscriptions if each.wants(received.topic, received.names)]
        self._counters["received" if wanting else "unwanted"] += 1
        for subscription in wanting:
            subscription.offer(received)

    def end(self, error: BaseException | None) -> None:
        """Nothing more will arrive; every iteration ends, with `error` where there is one."""
        for subscription in self._subscriptions:
            subscription.end(error)

    def _log_now_and_then(self, address: str, refusal: MessageRefused) -> None:
        """At most one line per reason and interval: a flood of bad messages must not become a flood of lines."""
        now_s = time.monotonic()
        if now_s - self._logged_at_s.get(refusal.reason, -_LOG_INTERVAL_S) < _LOG_INTERVAL_S:
            return
        self._logged_at_s[refusal.reason] = now_s
        _log.warning(
            "message refused",
            bus=self._owner,
            # Both were chosen by whoever sent it, so neither may fill the log.
            address=address[:200],
            why=str(refusal)[:200],
            so_far=self._counters[f"refused.{refusal.reason}"],
        )
