"""An edge node's configuration: the keys of its TOML file and the flags of `roadside edge`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..models.modes import EdgeMode
from ..models.serving import NodeConfiguration


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
