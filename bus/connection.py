"""Where a broker is, how one MQTT client for it is made, and what to tell the user when it cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

import aiomqtt

from .errors import BrokerError, ConfigurationError
from .subscription import Subscription

DEFAULT_PORT = 1883

# Without it Nagle's algorithm and delayed acknowledgements add 40 ms to every QoS 1 round trip.
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)

# CONNACK codes, as MQTT 3.1.1 sends them and as paho translates them to MQTT 5's.
_BAD_CREDENTIALS = {4, 134}
_NOT_AUTHORISED = {5, 135}
_SUBSCRIPTION_REFUSED = 0x80

# paho also logs what it then reports; the supervisor of the connection is the one who tells the user.
_paho_log = logging.getLogger(f"{__name__}.paho")
_paho_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker's URL, taken apart. The password is kept out of repr, logs and error messages."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Read `mqtt://[user:password@]host[:port]`; ConfigurationError for anything else."""
        example = "write it as mqtt://host:1883 or mqtt://user:password@host:1883"
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"the broker URL has no usable port: {example}") from None
        if parts.scheme != "mqtt" or not parts.hostname:
            raise ConfigurationError(f"the broker URL does not begin with mqtt:// and a host: {example}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigurationError(f"the broker URL has something behind the port: {example}")
        return cls(
            host=parts.hostname,
            port=DEFAULT_PORT if port is None else port,
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
        )

    @property
    def url(self) -> str:
        """What `parse` reads, password included: for handing on to another process, never for showing."""
        if self.username is None:
            return str(self)
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        return str(self).replace("mqtt://", f"mqtt://{quote(self.username, safe='')}{password}@")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"


def new_client(
    address: BrokerAddress,
    *,
    identifier: str,
    on_message: Callable[[aiomqtt.Message], None],
    keepalive_s: int,
    timeout_s: float,
    in_flight_limit: int,
    clean_session: bool,
    will: aiomqtt.Will | None = None,
) -> aiomqtt.Client:
    """An MQTT 3.1.1 client, not yet connected, that hands each arriving message to `on_message` at once.

    timeout_s: how long the broker may take to answer CONNECT and SUBSCRIBE.
    """
    client = aiomqtt.Client(
        hostname=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        identifier=identifier,
        logger=_paho_log,
        queue_type=_queue_that_calls(on_message),
        protocol=aiomqtt.ProtocolVersion.V311,
        will=will,
        clean_session=clean_session,
        timeout=timeout_s,
        keepalive=keepalive_s,
        max_inflight_messages=in_flight_limit,
        socket_options=_SOCKET_OPTIONS,
    )
    # The bound above is ours and is meant: no warning each time half of it is used.
    client.pending_calls_threshold = 2 * in_flight_limit
    return client


def _queue_that_calls(on_message: Callable[[aiomqtt.Message], None]) -> type[asyncio.Queue[aiomqtt.Message]]:
    """A queue type for aiomqtt that keeps nothing.

    aiomqtt's own queue costs two tasks per message and can only drop the newest. Calling instead of queueing also
    means that a message stands in our queue before the broker is told that it arrived.
    """

    class CallingQueue(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            on_message(item)

    return CallingQueue


@contextlib.asynccontextmanager
async def connected(client: aiomqtt.Client) -> AsyncIterator[aiomqtt.Client]:
    """Connect, and disconnect in the end; raises aiomqtt.MqttError where that fails or does not last.

    Covers two gaps of aiomqtt 2.5, for which its own paho client has to be asked: it forgets a loss that follows the
    broker's acceptance at once, and it keeps the socket of an attempt that was not answered in time, with which a
    broker that wakes up late would let the old attempt take over the new one.
    """
    paho = client._client
    try:
        async with client:
            if not paho.is_connected():
                raise aiomqtt.MqttError("the broker accepted the connection and dropped it")
            yield client
    finally:
        # Where the socket is closed already, this does nothing.
        paho.disconnect()


async def until_lost(client: aiomqtt.Client) -> None:
    """Wait until a connected client loses its connection, then raise aiomqtt.MqttError."""
    # The queue above stays empty, so the only thing that this iteration can ever deliver is the loss.
    async for _ in client.messages:
        raise AssertionError("a message was queued that should have been handed over")


async def subscribe_all(client: aiomqtt.Client, subscriptions: list[Subscription]) -> None:
    """Subscribe in one packet. Raises aiomqtt.MqttError where the broker refuses one or does not answer."""
    filters = {subscription.address_filter: subscription.topic.qos for subscription in subscriptions}
    codes = await client.subscribe(list(filters.items()))
    for address_filter, code in zip(filters, codes, strict=True):
        if getattr(code, "value", code) >= _SUBSCRIPTION_REFUSED:
            raise aiomqtt.MqttError(f"the broker refuses the subscription to {address_filter}")
    for subscription in subscriptions:
        subscription.active.set()


def is_login_refused(error: aiomqtt.MqttError) -> bool:
    if not isinstance(error, aiomqtt.MqttCodeError):
        return False
    code = getattr(error.rc, "value", error.rc)
    return code in _BAD_CREDENTIALS or code in _NOT_AUTHORISED


def explain(error: aiomqtt.MqttError, address: BrokerAddress) -> BrokerError:
    """The one line for the user about a connection that did not come up."""
    # aiomqtt turns every OSError into a bare text, but Python keeps the original as the context.
    cause = error.__context__
    if isinstance(cause, socket.gaierror):
        return BrokerError(f"no host is called {address.host!r}: check the broker's URL")
    if isinstance(cause, ConnectionRefusedError):
        return BrokerError(
            f"nothing listens at {address}: start a broker there (`roadside broker --port {address.port}`)"
            " or give another URL"
        )
    if isinstance(cause, TimeoutError):
        return BrokerError(
            f"{address} does not answer as an MQTT broker: check the host, the port, and the firewall between"
        )
    if is_login_refused(error):
        return BrokerError(f"{address} refuses the user name or password: put the right ones into the broker's URL")
    return BrokerError(f"cannot use the broker at {address}: {error}")
