"""What waits to be sent: a state machine without clock or connection.

Two kinds of message wait here. A *state* (retained topic) is a portrait: of each address only the newest counts, and
after every new connection it is sent again, since a restarted broker has forgotten it and a last will may have
replaced it. Every other message must not be lost: it waits in order, is sent again until the broker has
acknowledged it, and when too many wait the next one is refused. The exception is a *perishable* message, which is
forgotten with the connection that it was made for: what it says would not be true over the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from .errors import OutboxFull
from .topics import Topic


@dataclass(eq=False, slots=True)
class Outgoing:
    """One encoded message. waiters: resolved once the broker has it."""

    topic: Topic
    address: str
    payload: bytes
    waiters: list[asyncio.Future[None]]
    perishable: bool = False


class Outbox:
    """Messages that wait, and messages that are on their way (taken, but not yet acknowledged).

    limit: how many must-not-lose messages may be here at once, those on their way included.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Outgoing] = deque()
        self._states: dict[str, Outgoing] = {}
        self._states_to_send: dict[str, None] = {}
        self._on_their_way: dict[Outgoing, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._waiting) + len(self._states_to_send) + len(self._on_their_way)

    @property
    def on_their_way(self) -> int:
        return len(self._on_their_way)

    def put(self, message: Outgoing) -> None:
        """Let a message wait. Raises OutboxFull where a must-not-lose message finds no room."""
        if message.topic.retained:
            self._put_state(message)
            return
        if len(self) >= self._limit:
            raise OutboxFull(
                f"{self._limit} messages wait for the broker: send fewer, or wait until the connection is back"
            )
        self._empty.clear()
        self._waiting.append(message)

    def _put_state(self, message: Outgoing) -> None:
        replaced = self._states.get(message.address)
        if replaced is not None:
            # Who waits for a state that never reached the broker waits for the newer one in its place.
            message.waiters.extend(waiter for waiter in replaced.waiters if not waiter.done())
        self._empty.clear()
        self._states[message.address] = message
        self._states_to_send[message.address] = None

    def take(self) -> Outgoing | None:
        """The next message to send, now on its way; states first, as they are few and everybody decides by them."""
        if self._states_to_send:
            address = next(iter(self._states_to_send))
            del self._states_to_send[address]
            message = self._states[address]
        elif self._waiting:
            message = self._waiting.popleft()
        else:
            return None
        self._on_their_way[message] = None
        return message

    def acknowledge(self, message: Outgoing) -> None:
        """The broker has a message that was taken."""
        del self._on_their_way[message]
        for waiter in message.waiters:
            if not waiter.done():
                waiter.set_result(None)
        if not len(self):
            self._empty.set()

    async def until_empty(self) -> None:
        """Wait until the broker has acknowledged everything."""
        await self._empty.wait()

    def connection_lost(self) -> list[Outgoing]:
        """Whatever is on its way comes back, in its old order, and every state is to be sent again.

        Returns the perishable messages, which are forgotten.
        """
        unsent = [message for message in (*self._on_their_way, *self._waiting) if not message.topic.retained]
        self._waiting = deque(message for message in unsent if not message.perishable)
        self._on_their_way.clear()
        self._states_to_send = dict.fromkeys(self._states)
        if len(self):
            self._empty.clear()
        else:
            self._empty.set()
        return [message for message in unsent if message.perishable]

    def abandon(self, error: Exception) -> None:
        """Nothing will be sent any more: whoever waits for an acknowledgement gets the error."""
        for message in (*self._on_their_way, *self._waiting, *self._states.values()):
            for waiter in message.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
