"""A connection without a broker: what is said is kept, and nothing is heard but what is handed in."""

from __future__ import annotations

import asyncio

from ..bus.messages import Message
from ..bus.topics import Topic
from ..bus.transport import Bus


class OfflineBus(Bus):
    """Never entered, and always connected. said: topic, names in the address, and body, in order.

    boot_id: of the life that is replayed, since ids are made of it.
    """

    def __init__(self, *, fleet: str, name: str, boot_id: str) -> None:
        super().__init__(url="mqtt://nowhere", fleet=fleet, name=name)
        self.boot_id = boot_id
        self.said: list[tuple[Topic, dict[str, str], Message]] = []
        self.connected.set()
        self.disconnected.clear()

    def _put(
        self,
        topic: Topic,
        body: Message,
        names: dict[str, str],
        waiters: list[asyncio.Future[None]],
        *,
        perishable: bool = False,
    ) -> int:
        del perishable  # nothing waits here
        self.said.append((topic, names, body))
        for waiter in waiters:
            waiter.set_result(None)
        return 0
