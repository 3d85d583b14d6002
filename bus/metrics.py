"""A process's metrics over HTTP, for Prometheus to scrape.

    async with node_metrics_served(configuration, server.state):
        await server.run(stop)

prometheus-client's own server answers in threads; what it answers is read in the event loop that owns the state, so
that no reader meets a half-changed one. A loop that is blocked for longer than the patience below gives no answer,
which Prometheus shows as a target that is down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import structlog

from .configuration import MemberConfiguration
from .errors import ConfigurationError
from .latencies import LatencyHistogram
from .messages import NodeState

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LOOPBACK = "127.0.0.1"

_LOOP_PATIENCE_S = 5.0
_LAST_PORT = 65_535

log = structlog.get_logger(__name__)


def parse_listen_address(text: str | int) -> tuple[str, int]:
    """Read `PORT` (on this machine only), `HOST:PORT` or `[IPV6]:PORT`; ConfigurationError for anything else."""
    host, separator, port_text = str(text).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        port = int(port_text)
    except ValueError:
        port = -1
    if not 0 <= port <= _LAST_PORT or (separator and not host):
        raise ConfigurationError(
            f"cannot serve metrics at {str(text)!r}: write a port (9100; 0 takes a free one) or host:port"
        )
    return host or LOOPBACK, port


def node_metrics_served(
    configuration: MemberConfiguration,
    state: Callable[[], NodeState],
    *,
    gauges: Callable[[], Mapping[str, float]] = dict,
    latencies: LatencyHistogram | None = None,
) -> AbstractAsyncContextManager[None]:
    """Serve what a vehicle or node says of itself, where its configuration asks for that; see `metrics_served`.

    gauges: what the node has beyond its state, by the metric's name without `roadside_` ("context_bytes").
    """

    def families() -> Iterable[Metric]:
        from .metric_families import node_families

        return node_families(state(), fleet=configuration.fleet, gauges=gauges(), latencies=latencies)

    return metrics_served(configuration.metrics, families)


@contextlib.asynccontextmanager
async def metrics_served(address: str | int | None, families: Callable[[], Iterable[Metric]]) -> AsyncIterator[None]:
    """Serve `families()`, called in this event loop for every scrape, until the block ends. None: serve nothing.

    Says in the log at which URL. Raises ConfigurationError where the address is unusable or taken.
    """
    if address is None:
        yield
        return
    # Whoever is not scraped need not import it.
    from prometheus_client import CollectorRegistry, start_http_server

    host, port = parse_listen_address(address)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(asyncio.get_running_loop(), families))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve metrics at {host}:{port} ({error.strerror}): give another port, or 0 for a free one"
        ) from None
    log.info("serves metrics", url=f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics")
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


class _Collector:
    def __init__(self, loop: asyncio.AbstractEventLoop, families: Callable[[], Iterable[Metric]]) -> None:
        self._loop = loop
        self._families = families

    def collect(self) -> list[Metric]:
        """Called in a thread of the HTTP server."""
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(_LOOP_PATIENCE_S)

    async def _read(self) -> list[Metric]:
        return list(self._families())
