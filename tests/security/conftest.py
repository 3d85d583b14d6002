"""A secured fleet on a real mosquitto: one for all tests of a module, since what they do leaves nothing behind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest
from roadside.bus.access_rules import CHECK_PREFIX, IdentityRole
from roadside.bus.broker import Broker, find_mosquitto
from roadside.bus.connection import BrokerAddress
from roadside.bus.secured_fleet import SecuredFleet
from roadside.bus.tls import Credentials
from roadside.bus.transport import Bus

FLEET = "guarded"
MEMBERS: dict[str, IdentityRole] = {
    "vehicle-1": "vehicle",
    "vehicle-2": "vehicle",
    "edge-1": "edge",
    "edge-2": "edge",
    "cloud-1": "cloud",
    "learner-1": "learner",
    "recorder": "recorder",
    "watcher-1": "watcher",
    "leaver": "vehicle",
}
PATIENCE_S = 20.0


@dataclass
class Client:
    """A bare MQTT client, which says what it likes. heard: address and payload of all that it was sent, in order."""

    name: str
    mqtt: aiomqtt.Client
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def say(self, address: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Returns when the broker has dealt with it, whether or not it passed it on: it acknowledges both."""
        await self.mqtt.publish(address, payload, qos=qos, retain=retain)

    async def catch_up(self) -> None:
        """Hear all that the broker had for this client before now: what it sends to itself comes behind that."""
        mark = f"{CHECK_PREFIX}/{self.name}"
        await self.mqtt.subscribe(mark, qos=1)
        await self.mqtt.publish(mark, b"mark", qos=1)
        async with asyncio.timeout(PATIENCE_S):
            async for message in self.mqtt.messages:
                if message.topic.value == mark:
                    return
                assert isinstance(message.payload, bytes)
                self.heard.append((message.topic.value, message.payload))


@dataclass
class Guarded:
    """The fleet, its folder, and its broker."""

    secured: SecuredFleet
    broker: Broker

    @property
    def folder(self) -> Path:
        return self.secured.folder

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress.parse(self.broker.url)

    def bus(self, name: str) -> Bus:
        return Bus(url=self.broker.url, fleet=FLEET, name=name, tls=self.folder)

    @asynccontextmanager
    async def client(
        self,
        name: str,
        *,
        identifier: str = "",
        context: ssl.SSLContext | None = None,
        will: aiomqtt.Will | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> AsyncIterator[Client]:
        """As somebody of the fleet, unless `context` shows something else."""
        async with aiomqtt.Client(
            self.address.host,
            self.address.port,
            identifier=identifier or name,
            protocol=aiomqtt.ProtocolVersion.V311,
            tls_context=context or Credentials(self.folder, name).context(),
            timeout=timeout_s,
            will=will,
        ) as mqtt:
            yield Client(name, mqtt)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed (`apt-get install mosquitto`): no access rule is tested")
    folder = tmp_path_factory.mktemp("secured") / "fleet"
    secured = SecuredFleet.create(folder, fleet=FLEET, members=list(MEMBERS.items()), days=1)
    with asyncio.Runner() as runner:
        broker = Broker(tls=folder)
        runner.run(broker.start())
        yield Guarded(secured, broker)
        runner.run(broker.stop())
