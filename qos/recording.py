"""The process of a recorder: one run's ledger, and metrics of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..bus import topics
from ..bus.configuration import MemberConfiguration
from ..bus.metrics import metrics_served
from ..bus.process import Health
from ..bus.transport import Bus
from .recorder import record
from .retention import FrameRetention, parse_retention
from .run import RunDirectory

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_TOPIC_NAMES = {topic.name for topic in topics.TOPICS}


class RecorderConfiguration(MemberConfiguration, frozen=True, kw_only=True):
    """The keys of the table [recorder] in a fleet's file, and of a recorder's own.

    keep_frames: "none", "sampled" (the frames for people) or "tasks" (what nodes were asked about).
    frame_retention: older frames are deleted: "90s", "30min", "7d". frame_limit: more than this, and the oldest give
        way: "500MB".
    """

    name: str = "recorder"
    keep_frames: str = "none"
    frame_retention: str = "24h"
    frame_limit: str = "1GB"

    def __post_init__(self) -> None:
        # A rule that cannot be meant is refused before a run is begun.
        _ = self.retention

    @property
    def retention(self) -> FrameRetention:
        """Raises ConfigurationError where one of the three is not what retention.py reads."""
        return parse_retention(self.keep_frames, self.frame_retention, self.frame_limit)


async def run_recorder(configuration: RecorderConfiguration, run: RunDirectory, stop: asyncio.Event) -> None:
    """Record until `stop` is set.

    Raises as `record` does, and ConfigurationError where metrics cannot be served.
    """
    counters: Counter[str] = Counter()
    health = Health()
    async with Bus(
        url=configuration.broker, fleet=configuration.fleet, name=configuration.name, tls=configuration.tls
    ) as bus:
        watching = asyncio.create_task(health.watch_event_loop())
        try:
            async with metrics_served(configuration.metrics, lambda: _families(health, counters, bus.counters)):
                await record(bus, run, stop, configuration.retention, counters)
        finally:
            watching.cancel()


def _families(health: Health, counters: Counter[str], bus_counters: Counter[str]) -> Iterator[Metric]:
    from ..bus.metric_families import counter_families, health_families

    yield from health_families(health.uptime_s, health.event_loop_lag_ms, health.memory_bytes)
    named = {f"recorded.{key}" if key in _TOPIC_NAMES else key: count for key, count in counters.items()}
    yield from counter_families({**named, **bus_counters})
