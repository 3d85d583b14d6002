"""The process of an edge node: the edge partition of the model, by itself or together with a cloud."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from msgspec import Meta

from ..bus.transport import Bus
from ..models.answering import EdgeAnswerer, edge_answerer
from ..models.inference_worker import InferenceWorker
from ..models.modes import EdgeMode
from ..models.serving import NodeConfiguration, serve
from .cloud_line import CloudLine
from .cloud_session import CloudTerms, SessionSettings


class EdgeConfiguration(NodeConfiguration, frozen=True, kw_only=True):
    """The keys of `roadside edge`'s TOML file; see NodeConfiguration.

    mode: "ce" also offers to answer together with a cloud (the place `edge+cloud`), "standalone" never does.
    draft: tell the vehicle what the edge would say alone, while the cloud is asked for the first time.
    cloud: the one cloud to ask; None: the one that would reply soonest.
    cloud_timeout_ms: a reply that takes longer makes the edge end the answer alone.
    chunk_bytes: the largest piece of context in one message; some brokers take no packet above 128 kB.
    """

    name: str = "edge-1"
    slot_power_w: Annotated[float, Meta(ge=0)] = 50.0
    parallel_tasks: Annotated[int, Meta(ge=1, le=64)] = 4
    mode: EdgeMode = "ce"
    draft: bool = True
    cloud: str | None = None
    cloud_timeout_ms: Annotated[float, Meta(gt=0, le=60_000)] = 400.0
    chunk_bytes: Annotated[int, Meta(ge=1024, le=4 * 1024 * 1024)] = 120_000


async def run(configuration: EdgeConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raises ModelError or BrokerError before the first task where it cannot."""
    collaborate = configuration.mode == "ce"
    make_answerer = partial(edge_answerer, configuration.model, collaborate=collaborate, draft=configuration.draft)
    make_companion = partial(_cloud_line, configuration) if collaborate else None
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
        settings=SessionSettings(timeout_ms=configuration.cloud_timeout_ms, chunk_bytes=configuration.chunk_bytes),
        preferred=configuration.cloud,
    )
