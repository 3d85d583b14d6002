"""Whether a broker can be used, asked before anything depends on it: at a service's start, and by `roadside check`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import structlog

from .access_rules import CHECK_PREFIX
from .connection import (
    Endpoint,
    certificate_refusal,
    connected,
    explain,
    explained,
    is_login_refused,
    new_client,
    said_nothing,
)
from .errors import BrokerError

_ATTEMPT_TIMEOUT_S = 5.0
_RETRY_S = 1.0
_PINGS = 5

log = structlog.get_logger(__name__)


async def until_reachable(
    url: str, *, wait_s: float, stop: asyncio.Event, tls: str | Path | None = None, identity: str = ""
) -> bool:
    """Wait until a client can log in to the broker; False where `stop` was set before.

    wait_s: for how long to try; 0 does not try at all and leaves the first connection to whoever makes it. tls,
    identity: the folder of certificates, and whose is shown. Raises BrokerError when the time is over, and at once
    where the broker refuses the login, which waiting does not mend.
    """
    if wait_s <= 0:
        return True
    endpoint = Endpoint.parse(url, tls, identity)
    give_up_at_s = time.monotonic() + wait_s
    said = False
    while not stop.is_set():
        try:
            async with connected(_client(endpoint, lambda message: None)):
                return True
        except aiomqtt.MqttError as error:
            silent = said_nothing(error)
            failure = (await certificate_refusal(endpoint) if silent else None) or error
            if is_login_refused(failure) or time.monotonic() + _RETRY_S > give_up_at_s:
                raise explain(failure, endpoint.address) from None
            if not said:
                log.warning("waiting for the broker", at_most_s=wait_s, why=str(explain(failure, endpoint.address)))
                said = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _RETRY_S)
    return False


async def round_trip_ms(url: str, *, tls: str | Path | None = None, identity: str = "") -> float:
    """Best of a few QoS 1 round trips through the broker, in milliseconds. Raises BrokerError.

    tls, identity: as in `until_reachable`; a process of that identity would lose its own connection.
    """
    endpoint = Endpoint.parse(url, tls, identity)
    address = endpoint.address
    arrived: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()
    topic = f"{CHECK_PREFIX}/{identity or secrets.token_hex(8)}"
    best_ms = float("inf")
    try:
        async with asyncio.timeout(2 * _ATTEMPT_TIMEOUT_S), connected(_client(endpoint, arrived.put_nowait)) as client:
            await client.subscribe(topic, qos=1)
            for number in range(_PINGS):
                sent_s = time.monotonic()
                await client.publish(topic, str(number), qos=1)
                await arrived.get()
                best_ms = min(best_ms, (time.monotonic() - sent_s) * 1000)
    except aiomqtt.MqttError as error:
        raise await explained(error, endpoint) from None
    except TimeoutError:
        raise BrokerError(f"{address} accepts a login but delivers nothing: look at its access rules") from None
    return best_ms


def _client(endpoint: Endpoint, on_message: Callable[[aiomqtt.Message], None]) -> aiomqtt.Client:
    return new_client(
        endpoint,
        identifier=f"check-{secrets.token_hex(8)}",
        on_message=on_message,
        keepalive_s=10,
        timeout_s=_ATTEMPT_TIMEOUT_S,
        in_flight_limit=_PINGS,
        clean_session=True,
    )
