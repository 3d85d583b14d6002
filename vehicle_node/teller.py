"""Tells the world how tasks have ended, until the broker has every outcome."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from ..bus import topics
from ..bus.errors import BusError
from ..bus.messages import Outcome
from ..bus.transport import Bus
from ..qos.journal import Journal

log = structlog.get_logger()


class Teller:
    """Publishes outcomes and marks them in the journal once the broker has them.

    What the broker does not get in this life of the vehicle stays in the journal and is told by the next.
    """

    def __init__(self, *, bus: Bus, journal: Journal, counters: Counter[str]) -> None:
        self._bus = bus
        self._journal = journal
        self._counters = counters
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def tell(self, outcome: Outcome) -> None:
        """Begin to publish an outcome that the journal has; does nothing where that is under way already."""
        task_id = outcome.task_id
        if task_id in self._under_way:
            return
        self._under_way[task_id] = telling = asyncio.create_task(self._publish(outcome))
        telling.add_done_callback(lambda _: self._under_way.pop(task_id))

    def tell_what_is_left(self) -> None:
        """Begin to publish all that the journal still keeps: of an earlier life, or refused by a full outbox."""
        for outcome in self._journal.untold():
            self.tell(outcome)

    async def finish(self, *, timeout_s: float) -> None:
        """Wait until the broker has everything, or the time is over."""
        if not self._under_way:
            return
        _, left = await asyncio.wait(self._under_way.values(), timeout=timeout_s)
        if left:
            log.warning("outcomes not told: start the vehicle again on its journal to tell them", untold=len(left))
        for telling in left:
            telling.cancel()

    async def _publish(self, outcome: Outcome) -> None:
        try:
            await self._bus.publish(topics.OUTCOME, outcome)
        except BusError as error:
            self._counters["outcomes_kept"] += 1
            log.warning("outcome kept for later", task_id=outcome.task_id, why=str(error))
            return
        self._journal.told(outcome.task_id)
