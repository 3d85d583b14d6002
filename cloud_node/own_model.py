"""A cloud node with the whole model in its own process, for tasks and for edges that ask it for single tokens."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from ..bus.history import History
from ..bus.transport import Bus
from ..models.answering import CloudAnswerer, UnsplitAnswerer, any_cloud_answerer
from ..models.inference_worker import InferenceWorker
from ..models.serving import serve
from .collaboration import ContextServer
from .configuration import CloudConfiguration
from .parts import Beginning, CloudParts
from .settings import CollaborationSettings, ContextSettings

_log = structlog.get_logger()


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
        parts=parts_of(answerer),
        model_hash=answerer.model_hash,
        compute=worker.run_urgently,
        slot_power_w=configuration.slot_power_w,
        settings=CollaborationSettings(
            contexts=contexts, grace_ms=configuration.context_grace_ms, max_batch=configuration.context_batch
        ),
        history=History.of_process(configuration.name),
    )


def parts_of(answerer: CloudAnswerer) -> CloudParts:
    """What a whole model's answerer has to give to edges: all of it."""
    whole = answerer.whole
    beginning = Beginning(
        first=whole.first,
        encode=lambda question: whole.encoder.encode(answerer.reader.read(question)),
        embed=whole.embed,
        end_token=answerer.reader.end_token,
    )
    return CloudParts(rest=whole.rest, head=whole.head, beginning=beginning)
