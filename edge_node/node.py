"""The process of an edge node: the edge partition of the model, by itself or together with a cloud."""

from __future__ import annotations

import asyncio
from functools import partial

from ..bus.history import History
from ..bus.transport import Bus
from ..models.answering import EdgeAnswerer, edge_answerer
from ..models.inference_worker import InferenceWorker
from ..models.serving import serve
from .cloud_line import CloudLine
from .cloud_session import CloudTerms, SessionSettings
from .configuration import EdgeConfiguration


async def run(configuration: EdgeConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raises ModelError or BrokerError before the first task where it cannot."""
    collaboration = configuration.collaboration
    make_answerer = partial(edge_answerer, configuration.model, collaboration=collaboration)
    make_companion = partial(_cloud_line, configuration) if collaboration.mode != "standalone" else None
    await serve(configuration, "edge", make_answerer, make_companion, stop)


def _cloud_line(
    configuration: EdgeConfiguration, bus: Bus, answerer: EdgeAnswerer, worker: InferenceWorker
) -> CloudLine:
    del worker  # an edge asks; it has nothing to compute for others
    return CloudLine(
        bus=bus,
        terms=CloudTerms(
            model_hash=answerer.model_hash,
            first_exit_layer=answerer.partition.first.end_layer,
            hidden_size=answerer.partition.first.hidden_size,
        ),
        settings=SessionSettings(
            timeout_ms=configuration.cloud_timeout_ms,
            chunk_bytes=configuration.chunk_bytes,
            context_dtype=configuration.context_dtype,
        ),
        preferred=configuration.cloud,
        history=History.of_process(configuration.name),
    )
