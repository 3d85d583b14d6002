"""docs/mosquitto-lan.conf, started as it stands but for its port and the place of its passwords."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from roadside.bus.broker import find_mosquitto
from roadside.bus.codec import MAX_MESSAGE_BYTES
from roadside.bus.errors import BrokerError
from roadside.bus.waiting import round_trip_ms

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "mosquitto-lan.conf"
PORT = 21883


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    program, passwd = find_mosquitto(), shutil.which("mosquitto_passwd")
    if program is None or passwd is None:
        pytest.skip("mosquitto is not installed (`apt-get install mosquitto`): its example is not tested")
    passwords = tmp_path / "passwords"
    subprocess.run([passwd, "-b", "-c", str(passwords), "roadside", "s3cret"], check=True)
    text = EXAMPLE.read_text()
    for as_it_stands, here in {
        "\nlistener 1883\n": f"\nlistener {PORT} 127.0.0.1\n",
        "/etc/mosquitto/roadside.passwd\n\n": f"{passwords}\n\n",
    }.items():
        assert as_it_stands in text
        text = text.replace(as_it_stands, here)
    configuration = tmp_path / "mosquitto.conf"
    # Started by root it would give up its rights, and could not read this folder.
    configuration.write_text(f"{text}\nuser root\n")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(configuration)], stderr=log, stdout=log)
    time.sleep(0.5)
    assert process.poll() is None, (tmp_path / "log").read_text()
    yield PORT
    process.terminate()
    process.wait(10)


async def test_who_knows_the_password_is_served_and_nobody_else(mosquitto):
    assert await round_trip_ms(f"mqtt://roadside:s3cret@127.0.0.1:{mosquitto}") > 0
    for stranger in ("", "roadside:guess@"):
        with pytest.raises(BrokerError, match="user name or password"):
            await round_trip_ms(f"mqtt://{stranger}127.0.0.1:{mosquitto}")


def test_it_takes_the_largest_message_with_its_address_and_never_waits_for_company():
    settings = dict(line.split(maxsplit=1) for line in EXAMPLE.read_text().splitlines() if line and line[0] != "#")
    assert settings["set_tcp_nodelay"] == "true"
    assert int(settings["max_packet_size"]) >= MAX_MESSAGE_BYTES + 64 * 1024
