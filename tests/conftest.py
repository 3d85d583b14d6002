"""What every test folder shares: a live broker of each kind, and a fleet name of its own for each test."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from roadside.bus.broker import Broker, BrokerKind, find_mosquitto

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_MOSQUITTO = "mosquitto is not installed (`apt-get install mosquitto`): only amqtt is tested"


def pytest_configure() -> None:
    if any(Path(folder).resolve() == ROOT for folder in sys.path):
        raise pytest.UsageError(
            "the repository root is on sys.path, where its folder datasets/ shadows Hugging Face's package of that"
            " name: run `pytest`, not `python -m pytest`, and without the root in PYTHONPATH"
        )


@pytest.fixture(scope="session", params=["mosquitto", "amqtt"])
def broker_kind(request: pytest.FixtureRequest) -> BrokerKind:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip(WITHOUT_MOSQUITTO)
    return request.param


@pytest.fixture(scope="session")
def broker(broker_kind: BrokerKind) -> Iterator[Broker]:
    """A running broker, shared by all tests: one of each kind. Its retained messages stay, so use `fleet`."""
    yield from _running(broker_kind)


@pytest.fixture(scope="session")
def best_broker() -> Iterator[Broker]:
    """One running broker, of the kind that a user of this machine gets: for tests too slow to run with both."""
    yield from _running(None)


@pytest.fixture(autouse=True)
def _logs_as_at_first() -> Iterator[None]:
    """The command line, called in a test, sets up logging for its whole process, and for a stream that ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def fleet() -> str:
    """A fleet that no other test has left retained messages in."""
    return f"test-{uuid.uuid4().hex[:8]}"


def _running(kind: BrokerKind | None) -> Iterator[Broker]:
    # An event loop of its own: pytest-asyncio's end with each test.
    with asyncio.Runner() as runner:
        running = Broker(prefer=kind)
        runner.run(running.start())
        yield running
        runner.run(running.stop())
