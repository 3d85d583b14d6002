"""The process of an edge node: it answers with the early exits of the edge partition."""

from __future__ import annotations

import asyncio

from ..models.answering import edge_answerer
from ..models.serving import NodeConfiguration, serve


class EdgeConfiguration(NodeConfiguration, frozen=True, kw_only=True):
    """The keys of `roadside edge`'s TOML file; see NodeConfiguration."""

    name: str = "edge-1"
    slot_power_w: float = 50.0


async def run(configuration: EdgeConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raises ModelError or BrokerError before the first task where it cannot."""
    await serve(configuration, "edge", edge_answerer, stop)
