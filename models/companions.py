"""What the tiers do for each other beside answering tasks, as a node's service loop sees it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from ..bus.messages import ContextUse
from .circumstances import LinkEstimate as LinkEstimate
from .decoding import CloudReply, ToCloud
from .questions import Question

# Of hidden states on the wire; int8 has a scale for each channel.
ContextDtype: TypeAlias = Literal["float32", "float16", "bfloat16", "int8"]


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
    """One answer's line to a cloud. `send` and `poll` may be called from the inference thread and never wait.

    energy_j: that the cloud has spent on it so far.
    """

    energy_j: float

    def send(self, event: ToCloud) -> None:
        """Tell the cloud of an event, in the order of the calls."""
        ...

    def poll(self) -> CloudReply | None:
        """The oldest reply that was not read yet, None where there is none; none is from before a roll-back."""
        ...

    async def reply(self) -> CloudReply | None:
        """The oldest reply that was not read yet, as soon as there is one; None where the cloud is silent for good."""
        ...

    def close(self) -> ContextUse:
        """The answer is complete or given up: let the cloud forget it. Says what it took."""
        ...


@runtime_checkable
class CloudLine(Companion, Protocol):
    """An edge's companion: its way to the clouds."""

    def open(self, deadline_s: float, question: Question, *, dtype: ContextDtype | None = None) -> CloudSession | None:
        """A session with the best cloud at hand; None where there is none.

        deadline_s: of the monotonic clock. question: what the answer is to, in case the cloud is to encode it.
        dtype: of hidden states on the wire; None: the edge's own choice.
        """
        ...

    def link(self) -> LinkEstimate | None:
        """What is known of the way to the cloud that `open` would choose now; None where there is none."""
        ...

    @property
    def available(self) -> bool:
        """Whether `open` would find a cloud now."""
        ...
