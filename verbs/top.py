"""The verb that shows a fleet on a terminal while it lives."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..bus.defaults import DEFAULT_BROKER, DEFAULT_FLEET, DEFAULT_WATCHER
from .options import BrokerUrl, FleetName, IdentityName, TlsFolder, run_process

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside top --broker mqtt://10.0.0.5:1883;  roadside top --once | grep mute")
def top(
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    identity: IdentityName = None,
    fleet: FleetName = None,
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two screens.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Listen for --listen seconds, print one screen, end.")] = False,
    listen: Annotated[
        float, typer.Option(min=0.1, max=60, help="With --once: how long; states come at least once a second.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each screen.")] = False,
) -> None:
    """Show nodes and vehicles on this terminal, as they are now and were in the last minute, until stopped.

    On a terminal p pauses and q ends; elsewhere a screen is printed after the other, without colours.
    """
    from .terminal import show_fleet

    async def serve(stop: Any) -> None:
        await show_fleet(
            broker or DEFAULT_BROKER,
            fleet or DEFAULT_FLEET,
            interval_s=interval,
            once_after_s=listen if once else None,
            as_json=as_json,
            stop=stop,
            tls=tls,
            name=identity or (DEFAULT_WATCHER if tls is not None else "top"),
        )

    run_process("top", serve, False)
