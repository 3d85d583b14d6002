"""`roadside link`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..bus.defaults import DEFAULT_BROKER
from .options import LinkSpec, WithParent, run_process

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside link --to mqtt://10.0.0.5:1883 --port 1884 --link 10Mbps,40ms")
def link(
    to: Annotated[str, typer.Option(help="URL of the broker at the other end; user and password are not needed.")] = (
        DEFAULT_BROKER
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen on this machine; 0: a free one.")] = 1884,
    link: LinkSpec = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same jitter.")] = 0,
    exit_with_parent: WithParent = False,
) -> None:
    """Put a link between processes of this machine and a broker: whoever uses its port is slowed down together."""
    from ..bus.link import LinkShape
    from ..bus.shaping_proxy import LOOPBACK, ShapingProxy
    from ..datasets.link_traces import parse_link

    shape = parse_link(link) if link is not None else LinkShape()

    async def serve(stop: Any) -> None:
        async with ShapingProxy(to, shape, seed=seed, port=port) as proxy:
            typer.echo(f"mqtt://{LOOPBACK}:{proxy.port} is the broker behind the link; Ctrl-C ends it", err=True)
            await stop.wait()
            typer.echo(
                f"{proxy.counters['uplink_bytes']:,} bytes went up, {proxy.counters['downlink_bytes']:,} down", err=True
            )

    run_process("link", serve, exit_with_parent)
