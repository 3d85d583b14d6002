"""The process of a cloud node: the whole model, for tasks of its own and for edges that ask it for single tokens."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

import structlog
from msgspec import Meta

from ..bus.transport import Bus
from ..models.answering import CloudAnswerer, UnsplitAnswerer, any_cloud_answerer
from ..models.inference_worker import InferenceWorker
from ..models.serving import NodeConfiguration, serve
from .collaboration import CollaborationSettings, ContextServer
from .contexts import ContextSettings

_log = structlog.get_logger()


class CloudConfiguration(NodeConfiguration, frozen=True, kw_only=True):
    """The keys of `roadside cloud`'s TOML file; see NodeConfiguration.

    context_ttl_s: an edge's context that is silent for so long is forgotten.
    context_budget_mb: memory for all contexts together; beyond it the least recently used one is forgotten.
    context_grace_ms: how long a request waits for context that is still on its way.
    """

    name: str = "cloud-1"
    slot_power_w: Annotated[float, Meta(ge=0)] = 60.0
    context_ttl_s: Annotated[float, Meta(gt=0, le=3600)] = ContextSettings().session_ttl_s
    context_budget_mb: Annotated[float, Meta(gt=0)] = ContextSettings().budget_bytes / 1e6
    context_grace_ms: Annotated[float, Meta(ge=0, le=10_000)] = CollaborationSettings().grace_ms


async def run(configuration: CloudConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raises ModelError or BrokerError before the first task where it cannot."""
    make_answerer = partial(any_cloud_answerer, configuration.model)
    await serve(configuration, "cloud", make_answerer, partial(_context_server, configuration), stop)


def _context_server(
    configuration: CloudConfiguration, bus: Bus, answerer: CloudAnswerer | UnsplitAnswerer, worker: InferenceWorker
) -> ContextServer | None:
    """None for a model that has no half to give to edges."""
    if isinstance(answerer, UnsplitAnswerer):
        _log.warning("no edge can ask this model for single tokens", model=answerer.model, reason=answerer.refusal)
        return None
    contexts = ContextSettings(
        session_ttl_s=configuration.context_ttl_s, budget_bytes=int(configuration.context_budget_mb * 1e6)
    )
    return ContextServer(
        bus=bus,
        name=configuration.name,
        rest=answerer.whole.rest,
        head=answerer.whole.head,
        model_hash=answerer.model_hash,
        compute=worker.run_urgently,
        slot_power_w=configuration.slot_power_w,
        settings=CollaborationSettings(contexts=contexts, grace_ms=configuration.context_grace_ms),
    )
