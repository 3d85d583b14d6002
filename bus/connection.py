"""Where a broker is, how one MQTT client for it is made, and what to tell the user when it cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiomqtt

from .errors import BrokerError, ConfigurationError
from .subscription import Subscription
from .tls import Credentials, new_context

DEFAULT_PORT = 1883
DEFAULT_SECURE_PORT = 8883

_SCHEMES = {"mqtt": False, "mqtts": True}

# Without it Nagle's algorithm and delayed acknowledgements add 40 ms to every QoS 1 round trip.
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)

# CONNACK codes, as MQTT 3.1.1 sends them and as paho translates them to MQTT 5's.
_BAD_CREDENTIALS = {4, 134}
_NOT_AUTHORISED = {5, 135}
_SUBSCRIPTION_REFUSED = 0x80

_ALERT_TIMEOUT_S = 1.0

# paho also logs what it then reports; the supervisor of the connection is the one who tells the user.
_paho_log = logging.getLogger(f"{__name__}.paho")
_paho_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker's URL, taken apart. The password is kept out of repr, logs and error messages.

    secure: whether it is spoken to over TLS.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    secure: bool = False

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Read `mqtt[s]://[user:password@]host[:port]`; ConfigurationError for anything else."""
        example = "write it as mqtt://host:1883 or mqtt://user:password@host:1883"
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"the broker URL has no usable port: {example}") from None
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ConfigurationError(f"the broker URL does not begin with mqtt:// and a host: {example}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigurationError(f"the broker URL has something behind the port: {example}")
        secure = _SCHEMES[parts.scheme]
        return cls(
            host=parts.hostname,
            port=(DEFAULT_SECURE_PORT if secure else DEFAULT_PORT) if port is None else port,
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            secure=secure,
        )

    @property
    def url(self) -> str:
        """What `parse` reads, password included: for handing on to another process, never for showing."""
        if self.username is None:
            return str(self)
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        return str(self).replace("://", f"://{quote(self.username, safe='')}{password}@", 1)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.secure else ''}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker, and who this process is there. credentials: where it shows a certificate."""

    address: BrokerAddress
    credentials: Credentials | None = None

    @classmethod
    def parse(cls, url: str, tls: str | Path | None, identity: str) -> Endpoint:
        """tls: a folder of certificates (tls.py), of which `identity`'s is shown; None: none.

        Raises ConfigurationError where URL or folder cannot be used, or do not go together.
        """
        address = BrokerAddress.parse(url)
        if tls is None:
            return cls(address)
        if not address.secure:
            raise ConfigurationError(
                f"a certificate is not shown to {address}, which is not spoken to over TLS: write its URL as"
                f" mqtts://{address.host}:{DEFAULT_SECURE_PORT}, or leave out --tls (ROADSIDE_TLS)"
            )
        return cls(address, Credentials(Path(tls), identity))

    def tls_context(self) -> ssl.SSLContext | None:
        """For one connection; None where it is not encrypted."""
        if self.credentials is not None:
            return self.credentials.context()
        return new_context() if self.address.secure else None


def new_client(
    endpoint: Endpoint,
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
    address = endpoint.address
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
        tls_context=endpoint.tls_context(),
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

    Covers three gaps of aiomqtt 2.5, for which its own paho client has to be asked: it forgets a loss that follows the
    broker's acceptance at once; it does not hear of one that comes before, and waits for the rest of its time; and it
    keeps the socket of an attempt that was not answered in time, with which a broker that wakes up late would let the
    old attempt take over the new one.
    """
    paho = client._client
    _hear_of_early_losses(client)
    try:
        async with client:
            if not paho.is_connected():
                raise aiomqtt.MqttError("the broker accepted the connection and dropped it")
            yield client
    finally:
        # Where the socket is closed already, this does nothing.
        paho.disconnect()


class ClosedEarly(aiomqtt.MqttError):
    """The connection was ended before the broker had accepted it."""


def _hear_of_early_losses(client: aiomqtt.Client) -> None:
    loop, paho = asyncio.get_running_loop(), client._client
    on_disconnect, accepted = paho.on_disconnect, client._connected

    def tell() -> None:
        if not accepted.done():
            accepted.set_exception(ClosedEarly("the connection was closed before the broker had accepted it"))

    def on_any_disconnect(*arguments: Any) -> None:
        if on_disconnect is not None:
            on_disconnect(*arguments)
        loop.call_soon_threadsafe(tell)

    paho.on_disconnect = on_any_disconnect


async def until_lost(client: aiomqtt.Client) -> None:
    """Wait until a connected client loses its connection, then raise aiomqtt.MqttError."""
    # The queue above stays empty, so the only thing that this iteration can ever deliver is the loss.
    async for _ in client.messages:
        raise AssertionError("a message was queued that should have been handed over")


async def subscribe_all(client: aiomqtt.Client, subscriptions: list[Subscription]) -> None:
    """Subscribe in one packet. Raises aiomqtt.MqttError where the broker refuses one or does not answer.

    States are asked for with QoS 0 whatever they are sent with: the newest comes with every subscription anew, and a
    broker that kept all of them for whoever is away would fill up with the past of processes that never come back.
    """
    filters = {each.address_filter: 0 if each.topic.retained else each.topic.qos for each in subscriptions}
    codes = await client.subscribe(list(filters.items()))
    for address_filter, code in zip(filters, codes, strict=True):
        if getattr(code, "value", code) >= _SUBSCRIPTION_REFUSED:
            raise aiomqtt.MqttError(f"the broker refuses the subscription to {address_filter}")
    for subscription in subscriptions:
        subscription.active.set()


class CertificateRefused(aiomqtt.MqttError):
    """The broker ended the connection because of this process's certificate, or because it showed none."""


async def certificate_refusal(endpoint: Endpoint) -> CertificateRefused | None:
    """Whether a broker that did not answer has refused the certificate; None where it has not, or cannot be asked.

    In TLS 1.3 a client learns that only after its own side of the handshake, by an alert which paho does not tell.
    """
    context = endpoint.tls_context()
    if context is None:
        return None
    address = endpoint.address
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_ALERT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            await reader.read(1)
    except ssl.SSLCertVerificationError:
        # The broker's, not ours.
        return None
    except ssl.SSLError as error:
        return CertificateRefused(_said(error))
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            writer.close()
    return None


def _said(error: ssl.SSLError) -> str:
    """A TLS alert in words: "certificate revoked"."""
    return (error.reason or str(error)).lower().replace("_", " ").partition("alert ")[2] or str(error)


def is_login_refused(error: aiomqtt.MqttError) -> bool:
    """Whether the broker does not want this process; to try again does not help."""
    if isinstance(error, CertificateRefused):
        return True
    if not isinstance(error, aiomqtt.MqttCodeError):
        return False
    code = getattr(error.rc, "value", error.rc)
    return code in _BAD_CREDENTIALS or code in _NOT_AUTHORISED


def said_nothing(error: aiomqtt.MqttError) -> bool:
    """Whether the broker has neither accepted nor refused, in time or until the connection was closed."""
    return isinstance(error, ClosedEarly) or isinstance(error.__context__, TimeoutError)


async def explained(error: aiomqtt.MqttError, endpoint: Endpoint) -> BrokerError:
    """As `explain`, after having asked a broker that was silent whether it refuses the certificate."""
    refusal = await certificate_refusal(endpoint) if said_nothing(error) else None
    return explain(refusal or error, endpoint.address)


def explain(error: aiomqtt.MqttError, address: BrokerAddress) -> BrokerError:
    """The one line for the user about a connection that did not come up."""
    # aiomqtt turns every OSError into a bare text, but Python keeps the original as the context.
    cause = error.__context__
    if isinstance(error, CertificateRefused):
        return BrokerError(
            f"{address} refuses this process's certificate ({error}): show one of its fleet with --tls, renewed where"
            " it has run out (`roadside secure DIR --renew NAME`)"
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BrokerError(
            f"{address} shows a certificate that is not to be trusted here ({cause.verify_message}): give --tls its own"
            " fleet's folder, and the broker's URL a name that its certificate has"
        )
    if isinstance(cause, ssl.SSLError):
        return BrokerError(f"{address} does not speak TLS as it should ({cause.reason}): check the port and --tls")
    if isinstance(cause, socket.gaierror):
        return BrokerError(f"no host is called {address.host!r}: check the broker's URL")
    if isinstance(cause, ConnectionRefusedError):
        return BrokerError(
            f"nothing listens at {address}: start a broker there (`roadside broker --port {address.port}`)"
            " or give another URL"
        )
    if said_nothing(error):
        return BrokerError(
            f"{address} does not answer as an MQTT broker: check the host, the port, and the firewall between"
        )
    if is_login_refused(error):
        return BrokerError(f"{address} refuses the user name or password: put the right ones into the broker's URL")
    return BrokerError(f"cannot use the broker at {address}: {error}")
