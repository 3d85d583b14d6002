"""What the tiers do for each other beside answering tasks, as a node's service loop sees it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ..bus.messages import ContextUse
from .decoding import Ask, CloudToken, Upload


class Companion(Protocol):
    """Runs beside a node's service loop; its counters are published with the node's own.

    active: set once it can be relied on, which the node waits for before it announces itself.
    """

    active: asyncio.Event
    counters: Counter[str]

    async def run(self) -> None:
        """Until cancelled."""
        ...


@runtime_checkable
class Gauged(Protocol):
    """A companion that has more to say of itself than its counters."""

    def gauges(self) -> Mapping[str, float]:
        """Values of this moment, by their metric's name without `roadside_`, units included ("context_bytes")."""
        ...


class CloudSession(Protocol):
    """One answer's line to a cloud. `upload` and `ask` may be called from any thread and never wait.

    energy_j: that the cloud has spent on it so far.
    """

    energy_j: float

    def upload(self, upload: Upload) -> None: ...

    def ask(self, ask: Ask) -> None: ...

    async def reply(self) -> CloudToken | None:
        """The answer to the last `ask`; None where the cloud is silent."""
        ...

    def close(self) -> ContextUse:
        """The answer is complete or given up: let the cloud forget it. Says what it took."""
        ...


@runtime_checkable
class CloudLine(Companion, Protocol):
    """An edge's companion: its way to the clouds."""

    def open(self, deadline_s: float) -> CloudSession | None:
        """A session with the best cloud at hand; None where there is none. Seconds of the monotonic clock."""
        ...

    @property
    def available(self) -> bool:
        """Whether `open` would find a cloud now."""
        ...
