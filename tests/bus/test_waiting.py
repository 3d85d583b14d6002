"""A process that is started before its broker, and a broker that is tried before anything depends on it."""

from __future__ import annotations

import asyncio
import math

import pytest
from roadside.bus.broker import Broker, free_port
from roadside.bus.errors import BrokerError
from roadside.bus.waiting import round_trip_ms, until_reachable


async def test_a_broker_that_comes_later_is_waited_for():
    port = free_port()
    waiting = asyncio.create_task(until_reachable(f"mqtt://127.0.0.1:{port}", wait_s=math.inf, stop=asyncio.Event()))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    async with Broker(port=port) as broker:
        if broker.kind == "amqtt":
            pytest.skip("amqtt's password is made when it starts")
        assert await asyncio.wait_for(waiting, 20)


async def test_when_the_time_is_over_it_says_what_is_wrong():
    port = free_port()
    with pytest.raises(BrokerError, match=f"nothing listens at mqtt://127.0.0.1:{port}"):
        await asyncio.wait_for(until_reachable(f"mqtt://127.0.0.1:{port}", wait_s=1.5, stop=asyncio.Event()), 20)


async def test_being_stopped_ends_the_waiting():
    stop = asyncio.Event()
    waiting = asyncio.create_task(until_reachable(f"mqtt://127.0.0.1:{free_port()}", wait_s=math.inf, stop=stop))
    await asyncio.sleep(0.2)
    stop.set()
    assert await asyncio.wait_for(waiting, 10) is False


async def test_a_refused_login_is_not_waited_for():
    async with Broker(prefer="amqtt") as broker:
        url = f"mqtt://roadside:wrong@127.0.0.1:{broker.port}"
        with pytest.raises(BrokerError, match="user name or password"):
            await asyncio.wait_for(until_reachable(url, wait_s=math.inf, stop=asyncio.Event()), 60)


async def test_a_round_trip_is_timed(broker):
    assert 0 < await round_trip_ms(broker.url) < 10_000


async def test_a_round_trip_to_nobody_says_why():
    with pytest.raises(BrokerError, match="nothing listens"):
        await round_trip_ms(f"mqtt://127.0.0.1:{free_port()}")
