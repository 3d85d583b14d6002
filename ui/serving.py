"""Serve the live page: one web server, one subscriber, as many browsers as come.

The page is for whoever can reach it: there is no login, so it stays on this machine unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI, Response
from nicegui import ui
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..bus.connection import BrokerAddress
from ..bus.errors import ConfigurationError
from ..bus.process import READY
from ..bus.topics import checked_name
from .fleet_view import FleetView
from .listening import CLOSED, PAGE_NAME, listen
from .page import Page
from .vehicle_cards import PICTURES_PATH

DEFAULT_PORT = 8088

# How long browsers may take to hear of the end.
_GOODBYE_S = 1
# A page that was away for longer is loaded anew; until then what it missed is kept for it. A third of it is how late
# a browser on a busy machine may answer.
_RECONNECT_S = 30.0
_KEPT_MESSAGES = 100
# The page's own scripts, styles and pictures, nothing from anywhere else; Vue compiles templates in the browser.
_CONTENT_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; frame-ancestors 'none'"
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PageOptions:
    """broker: URL; tls, name: as in Bus. host: address to listen on.

    port: 0 takes a free one, and None does where the usual one is taken.
    """

    broker: str
    fleet: str
    tls: str | Path | None = None
    name: str = PAGE_NAME
    host: str = "127.0.0.1"
    port: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


async def serve_page(options: PageOptions, view: FleetView, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Logs the page's address once it is served.

    Raises ConfigurationError where broker URL, fleet, host or port cannot be used; an absent broker is waited for.
    """
    address = BrokerAddress.parse(options.broker)
    checked_name(options.fleet)
    listening = _listening_socket(options.host, options.port)
    with contextlib.closing(listening):
        server = _Server(
            uvicorn.Config(
                _application(options, view, str(address)),
                log_config=None,
                access_log=False,
                loop="none",
                timeout_graceful_shutdown=_GOODBYE_S,
            )
        )
        hearing = asyncio.create_task(
            listen(view, broker=options.broker, fleet=options.fleet, tls=options.tls, name=options.name)
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        stopping = asyncio.create_task(stop.wait())
        log.info(READY, url=url_of(listening))
        try:
            await asyncio.wait({hearing, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await serving
            if hearing.done():
                hearing.result()
        finally:
            for task in (hearing, stopping):
                task.cancel()
            await asyncio.wait({hearing, stopping})
            log.info(CLOSED, heard=view.heard, missed=view.missed)


def url_of(listening: socket.socket) -> str:
    """Where a browser of this machine finds what listens there."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _listening_socket(host: str, port: int | None) -> socket.socket:
    if port is None:
        try:
            return _listening_socket(host, DEFAULT_PORT)
        except ConfigurationError:
            port = 0
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve the page at {host}:{port} ({error.strerror}): give another --port, or 0 for a free one"
        ) from None
    return listening


class _Server(uvicorn.Server):
    """Leaves the signals to the process that it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _application(options: PageOptions, view: FleetView, broker: str) -> ASGIApp:
    application = FastAPI(openapi_url=None)

    @application.get(f"{PICTURES_PATH}/{{vehicle}}/{{version}}")
    def picture(vehicle: str, version: int) -> Response:
        """A vehicle's newest readable picture; by the version a browser knows that there is another."""
        kept = view.pictures.get(vehicle)
        if kept is None or not kept.thumbnail:
            return Response(status_code=404)
        return Response(kept.thumbnail, media_type="image/jpeg")

    @ui.page("/")
    def page() -> None:
        Page(view, fleet=options.fleet, broker=broker)

    ui.run_with(
        application,
        title="roadside",
        favicon="🚗",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT_S,
        message_history_length=_KEPT_MESSAGES,
        show_welcome_message=False,
    )
    guarded = _WithHeaders(application)
    if not options.is_local:
        return guarded
    # A page of some other site must not reach this one under a name of its own that resolves to this machine.
    return TrustedHostMiddleware(guarded, allowed_hosts=["127.0.0.1", "localhost", "[::1]", options.host])


class _WithHeaders:
    """Says to browsers what they may do with the page, and that nothing of it is to be kept on disk."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _CONTENT_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if scope["path"] == "/" or scope["path"].startswith(PICTURES_PATH):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._application(scope, receive, send_with_headers)
