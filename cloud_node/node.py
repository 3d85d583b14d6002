"""The process of a cloud node: it answers with the whole model."""

from __future__ import annotations

import asyncio
from functools import partial

from ..models.answering import cloud_answerer
from ..models.serving import NodeConfiguration, serve


class CloudConfiguration(NodeConfiguration, frozen=True, kw_only=True):
    """The keys of `roadside cloud`'s TOML file; see NodeConfiguration."""

    name: str = "cloud-1"
    slot_power_w: float = 60.0


async def run(configuration: CloudConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raises ModelError or BrokerError before the first task where it cannot."""
    await serve(configuration, "cloud", partial(cloud_answerer, configuration.model), None, stop)
