"""amqtt's broker with one fault taken out."""

from __future__ import annotations

from amqtt.broker import Broker
from amqtt.session import Session


class OwnRetainedOnly(Broker):
    """Sends a client the retained messages of its own subscriptions only.

    amqtt (seen with 0.12.1) sends every client that connects the retained messages that match anybody's
    subscription. Beyond the surprise, it walks its table of subscriptions while it waits for acknowledgements: where
    another client subscribes at that moment, the walk fails and the new client is never served.
    """

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        address_filter, _ = subscription
        subscribers = self._subscriptions.get(address_filter, [])
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)
