"""What happens in a fleet, an event at a time: endings, provisional answers, new weights, members that come and go.

The connection to the broker is part of it: when it goes, that is an event, and when it comes back everybody who is
still there is told anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..bus import topics
from ..bus.errors import ConfigurationError
from ..bus.kinds import KINDS
from ..bus.messages import Message, NodeState, Outcome, PolicyWeights, Result
from ..bus.subscription import Received, Subscription
from ..bus.transport import Bus
from .watch import broker_line, node_state_line, outcome_line, result_line, weights_line

_WAITING_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """line: for people; fields: for programs, all of it plain JSON, with its kind under "event"."""

    line: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks are of interest; an empty set is all. Edges and clouds are everybody's and always shown.

    A provisional answer does not say of which kind its task is, so a choice of kinds leaves those out.
    """

    vehicles: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, vehicles: Iterable[str], kinds: Iterable[str]) -> Selection:
        """Raises ConfigurationError for a kind that is not in the table."""
        chosen = frozenset(kinds)
        if unknown := sorted(chosen - KINDS.keys()):
            raise ConfigurationError(f"there is no kind of task called {unknown[0]!r}; there are {', '.join(KINDS)}")
        return cls(frozenset(vehicles), chosen)

    def wants(self, received: Received) -> bool:
        vehicle = received.names.get("vehicle")
        if vehicle is not None and self.vehicles and vehicle not in self.vehicles:
            return False
        if isinstance(received.body, Outcome):
            return not self.kinds or received.body.kind in self.kinds
        return not (isinstance(received.body, Result) and self.kinds)


class _Watcher:
    def __init__(self, selection: Selection, *, explain: bool, show: Callable[[Event], None]) -> None:
        self._selection = selection
        self._explain = explain
        self._show = show
        self._alive: dict[str, bool] = {}

    async def read(self, subscription: Subscription) -> None:
        async for received in subscription:
            if self._selection.wants(received) and (event := self._event(received)) is not None:
                self._show(event)

    async def watch_connection(self, bus: Bus) -> None:
        while True:
            await bus.disconnected.wait()
            self._tell_connection(connected=False)
            # A broker that comes back may have forgotten who is there, and nobody saw who left.
            self._alive.clear()
            await bus.connected.wait()
            self._tell_connection(connected=True)

    def _tell_connection(self, *, connected: bool) -> None:
        at_s = time.time()
        fields = {"event": "broker", "at_s": at_s, "connected": connected}
        self._show(Event(broker_line(connected, at_s), fields))

    def _event(self, received: Received) -> Event | None:
        body, names, sent_at_s = received.body, received.names, received.envelope.sent_at_s
        if isinstance(body, Outcome):
            shown = body if self._explain else msgspec.structs.replace(body, decision=None)
            line = outcome_line(names["vehicle"], body, explain=self._explain)
            return Event(line, _fields("outcome", sent_at_s, {"vehicle": names["vehicle"]}, shown))
        if isinstance(body, Result):
            # A final answer is told by its outcome, which also knows whether it was shown.
            if body.final:
                return None
            line = result_line(names["vehicle"], names["node"], body, sent_at_s)
            who = {"vehicle": names["vehicle"], "node": names["node"]}
            return Event(line, _fields("provisional", sent_at_s, who, body))
        if isinstance(body, PolicyWeights):
            line = weights_line(names["learner"], body, sent_at_s)
            # What they weigh is nothing to read.
            told = msgspec.structs.replace(body, weights=b"")
            return Event(line, _fields("weights", sent_at_s, {"learner": names["learner"]}, told))
        return self._arrival_or_departure(body, sent_at_s)

    def _arrival_or_departure(self, state: NodeState, sent_at_s: float) -> Event | None:
        if self._alive.get(state.node) == state.alive:
            return None
        self._alive[state.node] = state.alive
        return Event(node_state_line(state, sent_at_s), _fields("member", sent_at_s, {}, state))


async def watch(
    broker: str,
    fleet: str,
    *,
    selection: Selection,
    explain: bool,
    show: Callable[[Event], None],
    stop: asyncio.Event,
    tls: Path | None = None,
    name: str = "watch",
) -> None:
    """Call `show` with every event until `stop` is set; a lost connection is waited for.

    broker: URL. tls: folder of certificates, of which that of `name` is shown. explain: whether outcomes tell what the
    policy saw. Raises BrokerError where the broker cannot be reached at the beginning.
    """
    watcher = _Watcher(selection, explain=explain, show=show)
    async with Bus(url=broker, fleet=fleet, name=name, tls=tls) as bus:
        shown = (topics.OUTCOME, topics.RESULT, topics.NODE_STATE, topics.VEHICLE_STATE, topics.POLICY)
        tasks = [asyncio.create_task(watcher.read(bus.subscribe(topic, limit=_WAITING_LIMIT))) for topic in shown]
        tasks += [asyncio.create_task(watcher.watch_connection(bus)), asyncio.create_task(_wait(stop))]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


def _fields(kind: str, at_s: float, who: dict[str, str], body: Message) -> dict[str, Any]:
    """The event as plain JSON: what it is, when it was sent (Unix seconds), and the message's own fields."""
    fields = msgspec.to_builtins(body)
    del fields["type"]
    return {"event": kind, "at_s": at_s, **who, **fields}
