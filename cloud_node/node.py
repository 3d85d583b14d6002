"""The process of a cloud node: the whole model in it, or a server elsewhere that has a large one."""

from __future__ import annotations

import asyncio

from .configuration import CloudConfiguration


async def run(configuration: CloudConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises ModelError, BackendError, ConfigurationError or BrokerError before the first task where it cannot.
    """
    # Imported here: a gateway to a server needs no torch, and a model of one's own no HTTP.
    if configuration.backend == "openai":
        from .backends import gateway

        await gateway.run(configuration, stop)
    else:
        from . import own_model

        await own_model.run(configuration, stop)
