"""The command line, from the making of certificates to a fleet of processes that runs on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from roadside.bus.broker import Broker, find_mosquitto
from roadside.bus.errors import BrokerError, ConfigurationError
from roadside.bus.transport import Bus
from roadside.cli import app
from roadside.demo import DemoOptions, check_options
from roadside.fleet_check import check_file
from roadside.qos.report import summarise
from roadside.qos.run import RunDirectory
from typer.testing import CliRunner

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")

needs_mosquitto = pytest.mark.skipif(
    find_mosquitto() is None, reason="mosquitto is not installed (`apt-get install mosquitto`): no fleet is secured"
)


def roadside(*arguments: str, cwd: Path) -> str:
    """What a process of its own prints."""
    done = subprocess.run([*ROADSIDE, *arguments], capture_output=True, text=True, cwd=cwd, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def secure(*arguments: str) -> str:
    """What `roadside secure certificates ...` prints, or what it refuses to do."""
    result = CliRunner().invoke(app, ["secure", "certificates", *arguments])
    return result.output if result.exception is None else str(result.exception)


def holds_a_key(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def demo(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    summary = json.loads(roadside("demo", "--secure", "--json", "--run", "run", *arguments, cwd=tmp_path))
    assert holds_a_key(tmp_path / "run") == []
    assert not (tmp_path / "run" / "secured").exists()
    assert "require_certificate true" in (tmp_path / "run" / "broker" / "mosquitto.conf").read_text()
    assert (summary["broker"], summary["tasks"]["lost"]) == ("mosquitto", 0)
    return summary


def test_a_fleet_is_secured_from_its_file_and_runs(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text(
        '[fleet]\nname = "crossing-7"\ntls = "certificates"\n'
        '[[vehicle]]\nname = "bus"\nplace = "vehicle"\nduration_s = 2\nrate_hz = 4\n'
    )
    said = secure("--config", "fleet.toml")
    assert "fleet crossing-7: vehicle bus, recorder recorder, watcher watcher-1" in said
    report = check_file(Path("fleet.toml"))
    assert report.ok
    assert report.notes == ()
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed (`apt-get install mosquitto`): the secured fleet is not run")
    roadside("fleet", "fleet.toml", "--run", "run", cwd=tmp_path)
    summary = summarise(RunDirectory.open(tmp_path / "run"))
    assert summary["tasks"]["created"] == summary["tasks"]["result"] > 0
    assert summary["tasks"]["lost"] == 0
    assert holds_a_key(tmp_path / "run") == []


def test_a_member_without_its_certificate_is_found_before_it_is_started(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text(
        '[fleet]\nbroker = "mqtt://h"\ntls = "certificates"\n[[edge]]\nname = "kerb"\n'
    )
    secure("--vehicles", "2")
    report = check_file(Path("fleet.toml"))
    (problem,) = map(str, report.problems)
    assert "write its URL as mqtts://" in problem
    assert [str(note) for note in report.notes] == [
        "kerb: no certificate for it in certificates: it cannot run on this machine"
    ]
    with pytest.raises(ConfigurationError, match=r"no kerb\.crt in certificates: `roadside secure certificates --add"):
        Bus(url="mqtts://h", fleet="demo", name="kerb", tls="certificates")


def test_the_folder_is_changed_and_shown_and_never_made_twice(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secure("--vehicles", "car,bus", "--edges", "1", "--broker-host", "broker.lan", "--installed-at", "/etc/mosquitto/f")
    configuration = (tmp_path / "certificates" / "broker" / "mosquitto.conf").read_text()
    assert "acl_file /etc/mosquitto/f/access.list" in configuration
    assert "nothing is overwritten" in secure("--vehicles", "car")
    assert "there is no role 'truck'" in secure("--add", "truck", "lorry")
    assert "one thing at a time" in secure("--renew", "car", "--revoke", "car")
    assert "systemctl reload" in secure("--add", "learner", "learner-1")
    assert "systemctl reload" in secure("--revoke", "bus")
    shown = secure()
    assert "broker.lan" in shown
    assert "revoked" in shown
    rules = (tmp_path / "certificates" / "broker" / "access.list").read_text()
    assert "user learner-1\ntopic read roadside/v1/demo/vehicle/+/outcome" in rules
    assert "user bus" not in rules


@needs_mosquitto
def test_the_demo_over_mutual_tls_leaves_no_key_behind(tmp_path: Path):
    summary = demo(tmp_path, "--edges", "0", "--clouds", "0", "--vehicles", "1", "--duration", "3", "--rate", "2")
    assert summary["placements"]["vehicle"] > 0


@needs_mosquitto
@pytest.mark.slow
def test_edges_and_clouds_answer_over_mutual_tls(tmp_path: Path):
    """Every topic of collaborative decoding, under the access rules, with a learner beside it."""
    arguments = ("--edges", "1", "--vehicles", "1", "--place", "edge+cloud", "--theta", "1.1", "--duration", "40")
    summary = demo(tmp_path, *arguments, "--rate", "0.5")
    assert summary["placements"]["edge+cloud"] > 0
    assert summary["context"]["cloud_requests"] > 0


async def test_without_mosquitto_there_is_no_security_and_that_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("roadside.demo.find_mosquitto", lambda: None)
    with pytest.raises(ConfigurationError, match="amqtt has no access rules: install it"):
        check_options(DemoOptions(secure=True))
    with pytest.raises(ConfigurationError, match="leave out --broker"):
        check_options(DemoOptions(secure=True, broker="mqtt://127.0.0.1"))
    with pytest.raises(BrokerError, match="a secured fleet needs mosquitto"):
        await Broker(prefer="amqtt", tls=tmp_path).start()
