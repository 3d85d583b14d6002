"""The connection of one process to the bus: typed messages in and out over MQTT 3.1.1.

    async with Bus(url=url, fleet="demo", name="edge-1") as bus:
        inbox = bus.subscribe(topics.TASK, node="edge-1")
        async for received in inbox:
            await bus.publish(topics.RESULT, answer(received.body), vehicle=received.names["vehicle"])

One supervisor task owns the connection: it connects, subscribes, sends what waits, and after a loss tries again for
ever, with jitter. A PUBACK means that the broker has a message, not that anybody processed it, and a broker that is
killed forgets what it acknowledged: what must survive that is acknowledged and repeated by the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Self

import aiomqtt
import structlog

from . import codec
from .connection import Endpoint, connected, explained, new_client, subscribe_all, until_lost
from .errors import BusError, MessageRefused
from .inbox import Inbox, read
from .message_log import Tap
from .messages import SCHEMA_VERSION, Envelope, Message
from .outbox import Outbox, Outgoing
from .subscription import Received, Subscription
from .topics import Topic, checked_name

# As many messages between PUBLISH and PUBACK as paho itself allows; enough to fill a long link with small ones.
_IN_FLIGHT_LIMIT = 20
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 2.0
# A connection that stood for this long was a good one: the next loss starts again at the first backoff.
_STEADY_AFTER_S = 5.0
# Of a last will, since it is written before the messages that it follows.
_WILL_SEQUENCE = 0
# What a broker keeps of a topic comes right behind its answer to the subscription.
_RETAINED_WAIT_S = 0.1

_log = structlog.get_logger(__name__)


class Bus:
    """One process's connection to its broker; an asynchronous context manager, entered once.

    url: `mqtt[s]://[user:password@]host[:port]`.
    fleet, name: who this process is; `name` stands as the sender in every address that it publishes to.
    tls: a folder with the certificate of `name` (tls.py), which is shown to the broker; for URLs of mqtts alone.
    will: topic and body that the broker publishes when this process vanishes without closing the bus; a topic that
        has no placeholder but its sender.
    keepalive_s: a silent link counts as lost after about twice this.
    timeout_s: how long the broker may take to accept the connection.
    close_timeout_s: how long closing may take to send what still waits.
    outbox_limit: how many messages may wait for an absent broker before OutboxFull.

    tap: is shown what is heard and said, where it is set (message_log.py).
    boot_id names this life of the process; `connected` is set while the connection stands, `disconnected` while it
    does not. `counters` counts: published, received, unwanted, reconnects, refused.<reason>, dropped.<topic>,
    overflow.<topic>, unsent.<topic>.

    Raises ConfigurationError for an unusable url or name; entering raises BrokerError where the first connection
    fails.
    """

    def __init__(
        self,
        *,
        url: str,
        fleet: str,
        name: str,
        tls: str | Path | None = None,
        will: tuple[Topic, Message] | None = None,
        keepalive_s: int = 5,
        timeout_s: float = 5.0,
        close_timeout_s: float = 2.0,
        outbox_limit: int = 1024,
    ) -> None:
        self._endpoint = Endpoint.parse(url, tls, name)
        self.address = self._endpoint.address
        self.fleet = checked_name(fleet)
        self.name = checked_name(name)
        self.boot_id = uuid.uuid4().hex[:12]
        self.counters: Counter[str] = Counter()
        self.connected = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.disconnected.set()
        self._will = will
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._close_timeout_s = close_timeout_s
        self._sequence = itertools.count(1)
        self._outbox = Outbox(limit=outbox_limit)
        self._inbox = Inbox(owner=name, counters=self.counters)
        self.tap: Tap | None = None
        self._client: aiomqtt.Client | None = None
        self._connection_tasks: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"Bus({self.address}, fleet={self.fleet!r}, name={self.name!r})"

    async def __aenter__(self) -> Self:
        first_connection = asyncio.create_task(self.connected.wait())
        self._supervisor = asyncio.create_task(self._supervise(), name=f"bus {self.name}")
        self._supervisor.add_done_callback(self._ended)
        try:
            await asyncio.wait({first_connection, self._supervisor}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._stop()
            raise
        finally:
            first_connection.cancel()
        if self._supervisor.done():
            await self._supervisor
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await self._outbox.until_empty()
                await self._forget_session()
        except TimeoutError:
            _log.warning("closed with unsent messages", bus=self.name, unsent=len(self._outbox))
        finally:
            await self._stop()

    # Sending

    async def publish(self, topic: Topic, body: Message, **names: str) -> None:
        """Send a message and return when the broker has acknowledged it, over as many connections as that takes.

        A connection that is lost in between makes it go out again, so receivers may see it twice. The sender's own
        placeholder need not be named. Raises OutboxFull, MessageRefused (reason "size"), BusError where the bus is
        closed first, and TypeError or ValueError for a body or names that do not belong on the topic.
        """
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(topic, body, names, [acknowledged])
        await acknowledged

    def post(self, topic: Topic, body: Message, *, perishable: bool = False, **names: str) -> int:
        """Queue a message and go on; returns its size in bytes. While it waits, a newer state replaces an older one.

        perishable: what the broker does not get over this connection is forgotten, and counted as unsent; for what its
        sender makes anew, such as a task, whose remaining time would be wrong by the next connection.
        Raises as `publish` does.
        """
        return self._put(topic, body, names, [], perishable=perishable)

    async def until_sent(self) -> None:
        """Wait until the broker has acknowledged everything that was given to this bus."""
        await self._outbox.until_empty()

    def _put(
        self,
        topic: Topic,
        body: Message,
        names: dict[str, str],
        waiters: list[asyncio.Future[None]],
        *,
        perishable: bool = False,
    ) -> int:
        if self._closing:
            raise BusError(f"the bus of {self.name} is closed")
        if type(body) not in topic.bodies:
            allowed = " or ".join(kind.__name__ for kind in topic.bodies)
            raise TypeError(f"topic {topic.name} carries {allowed}, not {type(body).__name__}")
        if names.setdefault(topic.sender, self.name) != self.name:
            raise ValueError(f"{self.name} cannot send as {names[topic.sender]}: receivers would refuse it")
        address = topic.address(self.fleet, **names)
        envelope = self._envelope(body, next(self._sequence))
        payload = _encoded(envelope)
        if self.tap is not None:
            self.tap.said(topic, address, envelope, payload)
        if (topic.qos == 0 or perishable) and self._client is None:
            # Now or never: kept for the next connection it would be stale.
            self.counters[f"unsent.{topic.name}"] += 1
            for waiter in waiters:
                waiter.set_result(None)
            return len(payload)
        self._outbox.put(Outgoing(topic, address, payload, waiters, perishable))
        self._send_waiting()
        return len(payload)

    def _envelope(self, body: Message, sequence: int) -> Envelope[Message]:
        return Envelope(SCHEMA_VERSION, self.name, self.boot_id, sequence, time.time(), body)

    def _send_waiting(self) -> None:
        """Start as many sends as the connection may have in flight; they reach the wire in the outbox's order."""
        while self._client is not None and self._outbox.on_their_way < _IN_FLIGHT_LIMIT:
            message = self._outbox.take()
            if message is None:
                break
            self._start(self._send(self._client, message))

    async def _send(self, client: aiomqtt.Client, message: Outgoing) -> None:
        topic = message.topic
        try:
            # No timeout: a dead broker ends this task by way of the supervisor, which knows sooner.
            await client.publish(message.address, message.payload, topic.qos, topic.retained, timeout=math.inf)
        except aiomqtt.MqttError:
            # The supervisor sees the same loss; until it has acted, the message counts as on its way.
            return
        self._outbox.acknowledge(message)
        self.counters["published"] += 1
        self._send_waiting()

    # Receiving

    def subscribe(
        self,
        topic: Topic,
        *,
        limit: int = 256,
        on_overflow: Callable[[Received], None] | None = None,
        **names: str,
    ) -> Subscription:
        """Receive a topic, narrowed by the names that are given; before or after the connection stands.

        Where two subscriptions of one bus overlap, the broker may deliver a message to each of them twice.
        """
        subscription = Subscription(
            topic=topic,
            address_filter=topic.filter(self.fleet, **names),
            names=names,
            limit=limit,
            on_overflow=on_overflow,
            counters=self.counters,
        )
        self._inbox.add(subscription)
        if self._client is not None:
            self._start(self._subscribe_late(self._client, subscription))
        return subscription

    async def _subscribe_late(self, client: aiomqtt.Client, subscription: Subscription) -> None:
        try:
            await subscribe_all(client, [subscription])
        except aiomqtt.MqttError as error:
            # Either the connection is lost, and the next one subscribes again, or the broker says no.
            _log.error("not subscribed", bus=self.name, address=subscription.address_filter, why=str(error))

    def _on_message(self, message: aiomqtt.Message) -> None:
        if self.tap is not None:
            self.tap.heard(message.topic.value, message.payload)
        self._inbox.take(message.topic.value, message.payload, retained=bool(message.retain))

    # The connection

    async def _supervise(self) -> None:
        failures = 0
        ever_connected = False
        while not self._closing:
            connected_at_s = math.inf
            try:
                if not ever_connected:
                    await self._forget_earlier_life()
                async with connected(self._new_client(self._client_id)) as client:
                    await self._subscribe_everything(client)
                    if self._closing:
                        # Python 3.11's wait_for, inside aiomqtt, forgets a cancellation that comes with its result.
                        return
                    connected_at_s = time.monotonic()
                    self.counters["reconnects"] += ever_connected
                    ever_connected = True
                    self._connection_made(client)
                    await until_lost(client)
            except aiomqtt.MqttError as error:
                if not ever_connected:
                    raise await explained(error, self._endpoint) from None
                lost = connected_at_s < math.inf
                why = "connection lost" if lost else f"no connection: {error}"
                _log.warning(f"{why}; trying again", bus=self.name, broker=str(self.address))
            finally:
                self._connection_lost()
            failures = 0 if time.monotonic() - connected_at_s > _STEADY_AFTER_S else failures + 1
            await asyncio.sleep(_backoff_s(failures))

    async def _forget_earlier_life(self) -> None:
        """Have the broker drop what it keeps for a life of this name that ended without a word.

        Nobody will read that, and it would keep every message to this name once for each such life.
        """
        if self._endpoint.credentials is not None:
            earlier = self._client_id
        elif (boot_id := await self._boot_id_in_last_will()) is not None:
            earlier = self._one_life(boot_id)
        else:
            return
        async with connected(self._new_client(earlier, clean_session=True)):
            pass

    async def _boot_id_in_last_will(self) -> str | None:
        """Of the last life of this name where the broker told its end; None where it ended otherwise, or goes on."""
        if (will := self._encoded_will()) is None or not will.retain:
            return None
        told: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def hear(message: aiomqtt.Message) -> None:
            with contextlib.suppress(MessageRefused):
                envelope = read(message.topic.value, message.payload, retained=True).envelope
                if not told.done():
                    told.set_result(envelope.boot_id if envelope.sequence == _WILL_SEQUENCE else None)

        # Before the first message of this life takes its place.
        look = self._new_client(f"{self._client_id}.look", clean_session=True, on_message=hear)
        async with connected(look) as client:
            await client.subscribe(will.topic, qos=0)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(told, _RETAINED_WAIT_S)
        return None

    @property
    def _client_id(self) -> str:
        # The broker keeps what arrives in a short absence for the same life of this process, not for its next. A
        # secured broker takes a certificate's name as the client id whatever is said here, so that is what is said.
        return self._one_life(self.boot_id) if self._endpoint.credentials is None else self.name

    def _one_life(self, boot_id: str) -> str:
        return f"{self.fleet}.{self.name}.{boot_id}"

    def _new_client(
        self,
        identifier: str,
        *,
        clean_session: bool = False,
        on_message: Callable[[aiomqtt.Message], None] | None = None,
    ) -> aiomqtt.Client:
        return new_client(
            self._endpoint,
            identifier=identifier,
            clean_session=clean_session,
            on_message=on_message or self._on_message,
            keepalive_s=self._keepalive_s,
            timeout_s=self._timeout_s,
            in_flight_limit=_IN_FLIGHT_LIMIT,
            will=None if clean_session else self._encoded_will(),
        )

    def _encoded_will(self) -> aiomqtt.Will | None:
        if self._will is None:
            return None
        topic, body = self._will
        address = topic.address(self.fleet, **{topic.sender: self.name})
        return aiomqtt.Will(address, _encoded(self._envelope(body, _WILL_SEQUENCE)), topic.qos, topic.retained)

    async def _subscribe_everything(self, client: aiomqtt.Client) -> None:
        subscribed = 0
        # More may be added while the broker answers.
        while new := self._inbox.subscriptions[subscribed:]:
            await subscribe_all(client, new)
            subscribed += len(new)

    def _connection_made(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.disconnected.clear()
        self.connected.set()
        self._send_waiting()

    def _connection_lost(self) -> None:
        self._client = None
        self.connected.clear()
        self.disconnected.set()
        for task in self._connection_tasks:
            task.cancel()
        for forgotten in self._outbox.connection_lost():
            self.counters[f"unsent.{forgotten.topic.name}"] += 1

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """Run something that ends with the connection at the latest."""
        task = asyncio.create_task(work)
        self._connection_tasks.add(task)
        task.add_done_callback(self._connection_tasks.discard)

    async def _forget_session(self) -> None:
        """Leave nothing at the broker that would go on collecting messages for us."""
        filters = {subscription.address_filter for subscription in self._inbox.subscriptions}
        if self._client is not None and filters:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.unsubscribe(list(filters))

    async def _stop(self) -> None:
        self._closing = True
        assert self._supervisor is not None
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})

    def _ended(self, supervisor: asyncio.Task[None]) -> None:
        """Whoever still waits for a message or an acknowledgement is told that none will come."""
        error = None if supervisor.cancelled() else supervisor.exception()
        self._closing = True
        self._inbox.end(error)
        closed = BusError(f"the bus of {self.name} was closed before the broker had the message")
        self._outbox.abandon(error if isinstance(error, Exception) else closed)


def _encoded(envelope: Envelope[Message]) -> bytes:
    payload = codec.encode(envelope)
    if len(payload) > codec.MAX_MESSAGE_BYTES:
        raise MessageRefused("size", f"{len(payload)} bytes to send, {codec.MAX_MESSAGE_BYTES} are allowed")
    return payload


def _backoff_s(failures: int) -> float:
    """Half of it random, so that a fleet does not come back in one burst."""
    longest_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10))
    return random.uniform(longest_s / 2, longest_s)
