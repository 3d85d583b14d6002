"""containers/: nothing here can build an image, so what its files say is held against the program and a real broker."""

from __future__ import annotations

import fnmatch
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from roadside.bus import defaults
from roadside.bus.broker import find_mosquitto, free_port
from roadside.bus.codec import MAX_MESSAGE_BYTES
from roadside.bus.errors import BrokerError
from roadside.bus.waiting import round_trip_ms

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containers"
OPEN: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SECURED: dict[str, Any] = yaml.safe_load((FOLDER / "compose.secure.yaml").read_text())
OURS = {name: service for name, service in OPEN["services"].items() if service["image"] == "roadside"}
CERTIFICATES = "./certificates/"


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(source, target) for source, target, *_ in (each.split(":") for each in service.get("volumes", ()))]


def flag(service: dict[str, Any], name: str) -> str | None:
    words = service["command"]
    return words[words.index(name) + 1] if name in words else None


def test_the_fleet_has_every_role():
    verbs = [service["command"][0] for service in OURS.values()]
    assert sorted(verbs) == ["cloud", "edge", "edge", "record", "report", "top", "vehicle"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_verb_with_flags_that_it_has(parse_command: Callable[[list[str]], str], name: str):
    service = OURS[name]
    verb = parse_command(list(service["command"]))
    if flag(service, "--name") is not None:
        assert flag(service, "--name") == name
    known = {value for key, value in vars(defaults).items() if key.endswith("_VARIABLE")}
    variables = {*service["environment"], *SECURED["services"].get(name, {}).get("environment", {})}
    assert {each for each in variables if each.startswith("ROADSIDE_")} <= known
    # Whoever waits for it to be healthy asks where it serves metrics.
    if "healthcheck" in service:
        assert f"127.0.0.1:{flag(service, '--metrics')}/metrics" in service["healthcheck"]["test"][-1]
    else:
        assert verb in ("vehicle", "top", "report")


def test_who_waits_for_whom_exists_and_says_whether_it_is_healthy():
    services = OPEN["services"]
    for service in services.values():
        waited_for = service.get("depends_on") or {}
        for other, how in dict(waited_for).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in services[other]


def test_every_volume_is_declared_and_every_file_is_there():
    for service in OPEN["services"].values():
        for source, _ in mounts(service):
            assert (FOLDER / source).exists() if source.startswith(".") else source in OPEN["volumes"]
    # Nothing but the address of the image's own folder is written to.
    assert {target for service in OURS.values() for _, target in mounts(service)} == {"/data"}
    assert all("ports" not in service for service in OPEN["services"].values()), "an open broker is published"


def test_the_image_has_what_it_installs():
    text = (FOLDER / "Containerfile").read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists()
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    python = re.search(r"python:(\d+\.\d+)-slim", text)
    assert python is not None
    assert f">={python[1]}" == project["project"]["requires-python"]
    assert re.search(r"^USER roadside$", text, re.MULTILINE)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    packaged = {package.split(".")[1] for package in project["tool"]["setuptools"]["packages"] if "." in package}
    for needed in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "cli.py", *packaged):
        assert not any(fnmatch.fnmatch(needed, pattern) for pattern in ignored), needed
    # Keys must not end up in an image.
    assert "containers/certificates" in ignored


@contextmanager
def mosquitto(configuration: Path, port: int) -> Iterator[None]:
    with (configuration.parent / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([str(find_mosquitto()), "-c", str(configuration)], stdout=log, stderr=log)
    try:
        while True:
            assert process.poll() is None, (configuration.parent / "mosquitto.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def port() -> int:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed (`apt-get install mosquitto`): containers' brokers are not tested")
    return free_port()


@pytest.mark.timeout(60)
async def test_the_open_broker_starts(tmp_path: Path, port: int):
    text = (FOLDER / "mosquitto.conf").read_text()
    assert "\nlistener 1883\n" in text
    assert int(re.findall(r"^max_packet_size (\d+)", text, re.MULTILINE)[0]) >= MAX_MESSAGE_BYTES + 64 * 1024
    (source, target), *_ = mounts(OPEN["services"]["broker"])
    assert (FOLDER / source).name == "mosquitto.conf"
    assert OPEN["services"]["broker"]["command"] == ["mosquitto", "-c", target]
    configuration = tmp_path / "mosquitto.conf"
    # Started by root it would give up its rights, and could not read this folder.
    configuration.write_text(text.replace("\nlistener 1883\n", f"\nlistener {port} 127.0.0.1\n") + "user root\n")
    with mosquitto(configuration, port):
        assert await round_trip_ms(f"mqtt://127.0.0.1:{port}") > 0


def make_certificates(folder: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "roadside.cli", "secure", "certificates", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(120)
async def test_the_secured_fleet_finds_its_certificates_and_strangers_do_not_get_in(tmp_path: Path, port: int):
    pytest.importorskip("cryptography")
    made = re.search(r"roadside secure containers/certificates (.*)", (ROOT / "docs" / "containers.md").read_text())
    assert made is not None
    arguments = made[1].replace("/mosquitto/broker", str(tmp_path / "certificates" / "broker")).split()
    listening = ["--broker-host", "127.0.0.1", "--port", str(port)]
    make_certificates(tmp_path, [*arguments, *listening])
    for name, service in SECURED["services"].items():
        for source, target in mounts(service):
            assert source.startswith(CERTIFICATES)
            assert (tmp_path / source).exists(), f"{name} mounts {source}, which `roadside secure` does not make"
            assert name == "broker" or target == f"/certificates/{Path(source).name}"
        # Of its own identity, and of no other.
        identity = {"top": defaults.DEFAULT_WATCHER}.get(name, name)
        keys = {Path(source).name for source, _ in mounts(service) if source.endswith(".key")}
        assert keys == (set() if name == "broker" else {f"{identity}.key"})
    assert {name for name in OURS if name != "report"} | {"broker"} == set(SECURED["services"])
    command = SECURED["services"]["broker"]["command"]
    ((_, target),) = mounts(SECURED["services"]["broker"])
    configuration = tmp_path / "certificates" / "broker" / Path(command[-1]).relative_to(target)
    configuration.write_text(configuration.read_text() + "user root\n")
    with mosquitto(configuration, port):
        url = f"mqtts://127.0.0.1:{port}"
        assert await round_trip_ms(url, tls=tmp_path / "certificates", identity="edge-1") > 0
        with pytest.raises(BrokerError):
            await round_trip_ms(f"mqtt://127.0.0.1:{port}")
