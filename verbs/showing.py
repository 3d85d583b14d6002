"""`roadside ui`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..bus.defaults import DEFAULT_BROKER, DEFAULT_FLEET, DEFAULT_WATCHER
from .options import BrokerUrl, FleetName, IdentityName, TlsFolder, WithParent, run_process

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside ui --broker mqtt://127.0.0.1:1883 --fleet demo")
def ui(
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    identity: IdentityName = None,
    fleet: FleetName = None,
    host: Annotated[str, typer.Option(help="Address to serve at; others than this machine's own see it all.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0 takes a free one [default: 8088, a free one where that is taken]"),
    ] = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Show a fleet in the browser, live: what vehicles see and are told, the nodes' load, every decision.

    Only listens; it goes on while there is no broker, and shows when there is one.
    """
    import time

    from ..ui.fleet_view import FleetView
    from ..ui.listening import PAGE_NAME
    from ..ui.serving import PageOptions, serve_page

    options = PageOptions(
        broker=broker or DEFAULT_BROKER,
        fleet=fleet or DEFAULT_FLEET,
        tls=tls,
        name=identity or (DEFAULT_WATCHER if tls is not None else PAGE_NAME),
        host=host,
        port=port,
    )
    if not options.is_local:
        typer.echo(
            f"warning: whoever can reach {host} sees the fleet's pictures, places and answers; there is no login."
            " Serve it at 127.0.0.1, behind a proxy or an SSH tunnel that has one",
            err=True,
        )

    async def serve(stop: Any) -> None:
        await serve_page(options, FleetView(time.monotonic()), stop)

    run_process("ui", serve, exit_with_parent)
