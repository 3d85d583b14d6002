"""The page's ear: a subscriber like any other, which feeds a view and never publishes anything."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from ..bus import topics
from ..bus.errors import BrokerError
from ..bus.subscription import Received, Subscription
from ..bus.transport import Bus
from .fleet_view import SUBSCRIBED, FleetView

PAGE_NAME = "page"
# What the page logs, as its event, when it has ended, with how much it heard.
CLOSED = "page closed"

_RETRY_S = 1.0
# Frames are large, and only the newest counts.
_WAITING_LIMITS = {topics.FRAME: 64}
_WAITING_LIMIT = 4096


async def listen(
    view: FleetView, *, broker: str, fleet: str, tls: str | Path | None = None, name: str = PAGE_NAME
) -> None:
    """Feed the view until cancelled; an absent broker, also at the beginning, is told to the view and waited for.

    broker: URL. tls, name: as in Bus. Raises ConfigurationError for an unusable URL, fleet or certificate.
    """
    while True:
        bus = Bus(url=broker, fleet=fleet, name=name, tls=tls)
        try:
            async with bus:
                await _listen(view, bus)
        except BrokerError as error:
            # Said on the page, where whoever waits for the fleet looks; its reason may change while it lasts.
            view.disconnected(str(error), time.monotonic())
        await asyncio.sleep(_RETRY_S)


async def _listen(view: FleetView, bus: Bus) -> None:
    def missed(received: Received) -> None:
        view.missed += 1

    subscriptions = [
        bus.subscribe(topic, limit=_WAITING_LIMITS.get(topic, _WAITING_LIMIT), on_overflow=missed)
        for topic in SUBSCRIBED
    ]
    async with asyncio.TaskGroup() as group:
        for subscription in subscriptions:
            group.create_task(_read(view, subscription))
        group.create_task(_watch_connection(view, bus))


async def _read(view: FleetView, subscription: Subscription) -> None:
    async for received in subscription:
        view.hear(received, time.monotonic())


async def _watch_connection(view: FleetView, bus: Bus) -> None:
    while True:
        await bus.connected.wait()
        view.connected(time.monotonic())
        await bus.disconnected.wait()
        view.disconnected(f"the connection to {bus.address} is lost", time.monotonic())
