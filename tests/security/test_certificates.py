"""Who is let in at all, and whom a member of the fleet takes for its broker."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest
import trustme
from roadside.bus import topics
from roadside.bus.access_rules import access_list
from roadside.bus.broker import Broker
from roadside.bus.certificates import Authority, Issued
from roadside.bus.connection import CertificateRefused, Endpoint, certificate_refusal
from roadside.bus.errors import BrokerError, ConfigurationError
from roadside.bus.messages import NodeState
from roadside.bus.secured_fleet import SecuredFleet, read_register
from roadside.bus.tls import Credentials, new_context
from roadside.bus.transport import Bus
from roadside.bus.waiting import round_trip_ms, until_reachable

FLEET = "guarded"
PATIENCE_S = 20.0
DAY = datetime.timedelta(days=1)


def keep(folder: Path, name: str, issued: Issued, authority: bytes) -> Path:
    """A folder as a process of the fleet has it."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(authority)
    (folder / f"{name}.crt").write_bytes(issued.certificate)
    (folder / f"{name}.key").write_bytes(issued.key)
    (folder / f"{name}.key").chmod(0o600)
    return folder


def nobody(secured: SecuredFleet, folder: Path) -> ssl.SSLContext:
    return new_context(secured.folder / "ca.crt")


def other_fleet(secured: SecuredFleet, folder: Path) -> ssl.SSLContext:
    """Same names, same tools, another authority."""
    issued = Authority.create(FLEET).issue_identity("edge-1", DAY)
    return Credentials(keep(folder, "edge-1", issued, _ca(secured)), "edge-1").context()


def foreign_authority(secured: SecuredFleet, folder: Path) -> ssl.SSLContext:
    context = new_context(secured.folder / "ca.crt")
    trustme.CA().issue_cert("edge-1", common_name="edge-1").configure_cert(context)
    return context


def run_out(secured: SecuredFleet, folder: Path) -> ssl.SSLContext:
    issued = _authority(secured).issue_identity("edge-1", -datetime.timedelta(hours=1))
    return Credentials(keep(folder, "edge-1", issued, _ca(secured)), "edge-1").context()


def the_brokers_own(secured: SecuredFleet, folder: Path) -> ssl.SSLContext:
    """Of the right authority, but good for something else."""
    issued = _authority(secured).issue_broker(["edge-1"], DAY)
    return Credentials(keep(folder, "edge-1", issued, _ca(secured)), "edge-1").context()


def _authority(secured: SecuredFleet) -> Authority:
    return Authority.read(_ca(secured), (secured.folder / "ca.key").read_bytes())


def _ca(secured: SecuredFleet) -> bytes:
    return (secured.folder / "ca.crt").read_bytes()


OUTSIDERS: dict[str, tuple[Callable[[SecuredFleet, Path], ssl.SSLContext], str]] = {
    "no certificate": (nobody, "certificate required"),
    "another fleet's": (other_fleet, "unknown ca"),
    "a foreign authority's": (foreign_authority, "unknown ca"),
    "one that has run out": (run_out, "certificate expired"),
    "a broker's": (the_brokers_own, "unsupported certificate"),
}


class _Shown(Credentials):
    """A context that the test has made."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def context(self) -> ssl.SSLContext:
        return self._context


@pytest.mark.parametrize("who", OUTSIDERS)
async def test_an_outsider_says_nothing_and_hears_nothing(guarded, tmp_path: Path, who: str):
    make, alert = OUTSIDERS[who]
    context = make(guarded.secured, tmp_path / "outsider")
    async with guarded.bus("vehicle-1") as vehicle, guarded.bus("edge-1") as edge:
        states = vehicle.subscribe(topics.NODE_STATE)
        await states.active.wait()
        with pytest.raises(aiomqtt.MqttError):
            async with guarded.client("edge-1", context=context, timeout_s=0.7) as outsider:
                await outsider.say(topics.NODE_STATE.address(FLEET, node="edge-1"), b"let in")
        # It was for its certificate, not for the network's sake: the same way works with the right one.
        assert str(await certificate_refusal(Endpoint(guarded.address, _Shown(context)))) == alert
        await edge.publish(topics.NODE_STATE, NodeState(node="edge-1", role="edge", alive=True))
        async with asyncio.timeout(PATIENCE_S):
            while (await anext(states)).body.node != "edge-1":
                pass
        assert vehicle.counters["refused.schema"] == 0


async def test_who_is_refused_is_told_why_and_waits_for_nothing(guarded, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("roadside.bus.waiting._ATTEMPT_TIMEOUT_S", 1.0)
    issued = _authority(guarded.secured).issue_identity("edge-1", -datetime.timedelta(hours=1))
    folder = keep(tmp_path / "late", "edge-1", issued, _ca(guarded.secured))
    with pytest.raises(BrokerError, match=r"refuses this process's certificate \(certificate expired\).*--renew"):
        async with Bus(url=guarded.broker.url, fleet=FLEET, name="edge-1", tls=folder, timeout_s=1.0):
            pass
    waiting = until_reachable(guarded.broker.url, wait_s=3600.0, stop=asyncio.Event(), tls=folder, identity="edge-1")
    with pytest.raises(BrokerError, match="certificate expired"):
        await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_member_reaches_its_broker_and_only_over_tls(guarded):
    assert await round_trip_ms(guarded.broker.url, tls=guarded.folder, identity="watcher-1") > 0
    with pytest.raises(ConfigurationError, match=r"mqtts://127\.0\.0\.1:8883"):
        Bus(url=f"mqtt://127.0.0.1:{guarded.broker.port}", fleet=FLEET, name="edge-1", tls=guarded.folder)
    with pytest.raises(BrokerError):
        async with Bus(url=f"mqtt://127.0.0.1:{guarded.broker.port}", fleet=FLEET, name="edge-1", timeout_s=1.0):
            pass
    with pytest.raises(ConfigurationError, match=r"no edge-9\.crt .*--add ROLE edge-9"):
        guarded.bus("edge-9")


async def test_older_tls_is_not_spoken(guarded):
    context = Credentials(guarded.folder, "edge-1").context()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        await asyncio.open_connection(guarded.address.host, guarded.address.port, ssl=context)


@asynccontextmanager
async def posing_as_broker(context: ssl.SSLContext) -> AsyncIterator[str]:
    """Somebody who answers where a broker is expected. Yields the URL."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("the handshake succeeded, and a certificate was shown to an impostor")

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("impostor", ["a foreign authority", "a vehicle of the fleet", "another broker of the fleet"])
async def test_an_impostor_is_not_taken_for_the_broker(guarded, tmp_path: Path, impostor: str):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if impostor == "a foreign authority":
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        why = "self-signed|local issuer"
    elif impostor == "a vehicle of the fleet":
        context.load_cert_chain(guarded.folder / "vehicle-2.crt", guarded.folder / "vehicle-2.key")
        why = "[Pp]urpose"
    else:
        issued = _authority(guarded.secured).issue_broker(["elsewhere.example"], DAY)
        folder = keep(tmp_path / "elsewhere", "broker", issued, _ca(guarded.secured))
        context.load_cert_chain(folder / "broker.crt", folder / "broker.key")
        why = "IP address mismatch"
    async with posing_as_broker(context) as url:
        with pytest.raises(BrokerError, match=f"not to be trusted here .*({why})"):
            async with Bus(url=url, fleet=FLEET, name="edge-1", tls=guarded.folder, timeout_s=2.0):
                pass


async def test_who_is_revoked_is_heard_no_more_at_once_and_never_let_in_again(guarded):
    outcome = topics.OUTCOME.address(FLEET, vehicle="leaver")
    shown = Credentials(guarded.folder, "leaver").context()
    async with guarded.client("recorder") as recorder:
        await recorder.mqtt.subscribe(outcome, qos=1)
        async with guarded.client("leaver", context=shown) as leaver:
            await leaver.say(outcome, b"before")
            guarded.secured.revoke("leaver")
            assert not (guarded.folder / "leaver.key").exists()
            _reload(guarded.broker)
            # Until the broker has read its files anew, which nothing tells: the list lets this name do nothing now.
            async with asyncio.timeout(PATIENCE_S):
                while await certificate_refusal(Endpoint(guarded.address, _Shown(shown))) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await leaver.say(outcome, b"after")
        await recorder.catch_up()
        assert [payload for _, payload in recorder.heard] == [b"before"]
    refusal = await certificate_refusal(Endpoint(guarded.address, _Shown(shown)))
    assert isinstance(refusal, CertificateRefused)
    assert str(refusal) == "certificate revoked"
    # Everybody else goes on.
    assert await round_trip_ms(guarded.broker.url, tls=guarded.folder, identity="vehicle-2") > 0


async def test_who_is_added_or_renewed_needs_a_reload_at_most(guarded):
    guarded.secured.add("vehicle-3", "vehicle", days=1)
    _reload(guarded.broker)
    old = (guarded.folder / "vehicle-2.crt").read_bytes()
    guarded.secured.renew("vehicle-2", days=1)
    assert (guarded.folder / "vehicle-2.crt").read_bytes() != old
    for name in ("vehicle-3", "vehicle-2"):
        async with guarded.client("watcher-1") as watcher:
            address = topics.OUTCOME.address(FLEET, vehicle=name)
            await watcher.mqtt.subscribe(address, qos=1)
            async with asyncio.timeout(PATIENCE_S), guarded.client(name) as vehicle:
                while not watcher.heard:
                    await vehicle.say(address, b"here I am")
                    await watcher.catch_up()


def _reload(broker: Broker) -> None:
    os.kill(broker.pid, signal.SIGHUP)


def test_a_folder_is_never_overwritten_and_its_keys_are_the_owners_alone(tmp_path: Path):
    folder = tmp_path / "fleet"
    made = SecuredFleet.create(folder, fleet="f", members=[("car", "vehicle"), ("kerb", "edge")], hosts=["broker.lan"])
    for path in folder.rglob("*"):
        secret = path.suffix in (".key", ".list")
        assert path.is_dir() or path.stat().st_mode & 0o777 == (0o600 if secret else 0o644), path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "PRIVATE" not in (folder / "fleet.json").read_text()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match="nothing is overwritten"):
        SecuredFleet.create(folder, fleet="f", members=[("car", "vehicle")])
    for name in ("car", "ca", "broker", "../car", "a/b", ""):
        with pytest.raises(ConfigurationError):
            made.add(name, "vehicle")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_name_is_never_used_again(tmp_path: Path):
    made = SecuredFleet.create(tmp_path / "fleet", fleet="f", members=[("car", "vehicle")])
    made.renew("car")
    made.revoke("car")
    again = SecuredFleet.open(tmp_path / "fleet")
    assert len(again.register.revoked_serials) == 2
    with pytest.raises(ConfigurationError, match="used before"):
        again.add("car", "vehicle")
    with pytest.raises(ConfigurationError, match="no identity 'car'"):
        again.renew("car")
    assert "car" not in (tmp_path / "fleet" / "broker" / "access.list").read_text()
    assert read_register(tmp_path / "fleet").members == []


def test_what_a_folder_without_its_authority_is_good_for(tmp_path: Path):
    made = SecuredFleet.create(tmp_path / "fleet", fleet="f", members=[("car", "vehicle")])
    made.forget_authority()
    Credentials(tmp_path / "fleet", "car")
    assert [each.name for each in read_register(tmp_path / "fleet").members] == ["car"]
    with pytest.raises(ConfigurationError, match="bring its authority's files"):
        SecuredFleet.open(tmp_path / "fleet")
    other = Authority.create("f")
    (tmp_path / "fleet" / "ca.key").write_bytes(other.key)
    with pytest.raises(ConfigurationError, match="not the key of"):
        SecuredFleet.open(tmp_path / "fleet")


async def test_files_that_are_being_replaced_do_not_end_a_process(tmp_path: Path):
    made = SecuredFleet.create(tmp_path / "fleet", fleet="f", members=[("car", "vehicle"), ("bus", "vehicle")])
    credentials = Credentials(tmp_path / "fleet", "car")
    before = credentials.context()
    (tmp_path / "fleet" / "car.key").write_bytes((tmp_path / "fleet" / "bus.key").read_bytes())
    assert credentials.context() is before
    made.renew("car")
    assert credentials.context() is not before


def test_names_cannot_smuggle_rules_into_the_access_list():
    for name in ("car\nuser edge-1", "car +", "#", "%u"):
        with pytest.raises(ConfigurationError):
            access_list("f", [(name, "vehicle")])
