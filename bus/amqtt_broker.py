"""amqtt's broker with two faults taken out (seen with 0.12.1)."""

from __future__ import annotations

import asyncio
from typing import Any

from amqtt.broker import Broker
from amqtt.session import Session


class OwnRetainedOnly(Broker):
    """Sends a client the retained messages of its own subscriptions only, and calls nothing else retained.

    amqtt sends every client that connects the retained messages that match anybody's subscription. Beyond the surprise,
    it walks its table of subscriptions while it waits for acknowledgements: where another client subscribes at that
    moment, the walk fails and the new client is never served.

    And it flags as retained what came while a client was away, which no subscriber can then tell from a message that
    somebody had the broker keep.
    """

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        address_filter, _ = subscription
        subscribers = self._subscriptions.get(address_filter, [])
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _publish_session_retained_messages(self, session: Session) -> None:
        handler = self._get_handler(session)
        if handler is None:
            return
        sending: list[asyncio.Task[Any]] = []
        while not session.retained_messages.empty():
            missed = await session.retained_messages.get()
            sending.append(
                asyncio.create_task(handler.mqtt_publish(missed.topic, missed.data, missed.qos, retain=False))
            )
        if sending:
            await asyncio.wait(sending)
