"""The process of a learner: outcomes in, weights out; all computing on a thread of its own.

outcomes -> checked, timed by our own clock -> waiting -> a round of the trainer -> PolicyWeights, retained
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from ..bus import topics
from ..bus.errors import MessageRefused
from ..bus.history import NO_HISTORY, History
from ..bus.messages import PolicyWeights
from ..bus.metrics import metrics_served
from ..bus.process import READY, Health
from ..bus.subscription import Received, Subscription
from ..bus.transport import Bus
from ..policy.utility import UtilityModel
from .configuration import LearnerConfiguration
from .outcomes import experience_from
from .trainer import Heard, Round, Trainer

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = structlog.get_logger()

_QUEUE_LIMIT = 4096
# Heard and not yet learnt from, should a round take very long.
_WAITING_LIMIT = 16_384
_RETAINED_WITHIN_S = 0.5  # how long a broker may take to send what it has of this learner


async def run(configuration: LearnerConfiguration, stop: asyncio.Event) -> None:
    """Learn until `stop` is set; what is under way is finished first.

    Raises ConfigurationError, before anything is published, where folder or weights cannot be used.
    """
    async with Bus(
        url=configuration.broker, fleet=configuration.fleet, name=configuration.name, tls=configuration.tls
    ) as bus:
        history = History.of_process(configuration.name)
        history.begin()
        await Learner(configuration, bus, history).run(stop)


class Learner:
    """`counters`: heard, learnt, left_out.<reason>, updates, promoted, rolled_back, weights_published."""

    def __init__(self, configuration: LearnerConfiguration, bus: Bus, history: History = NO_HISTORY) -> None:
        self._configuration = configuration
        self._history = history
        self._bus = bus
        self._health = Health()
        self._utility = UtilityModel()
        self._waiting: deque[Heard] = deque()
        self.counters: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        outcomes = self._bus.subscribe(topics.OUTCOME, limit=_QUEUE_LIMIT, on_overflow=self._overflowed)
        own = self._bus.subscribe(topics.POLICY, limit=1, learner=self._configuration.name)
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="trainer") as thread:
            retained = await _retained(own)
            trainer = await loop.run_in_executor(thread, Trainer, self._configuration, retained)
            background = [
                asyncio.create_task(self._health.watch_event_loop()),
                asyncio.create_task(self._listen(outcomes)),
                asyncio.create_task(self._watch_own(own)),
            ]
            try:
                async with metrics_served(self._configuration.metrics, self._families):
                    self._publish(await loop.run_in_executor(thread, trainer.publication))
                    await outcomes.active.wait()
                    log.info(READY, learner=self._configuration.name, policy=self._configuration.policy)
                    while not stop.is_set():
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(stop.wait(), self._configuration.round_interval_s)
                        heard = [self._waiting.popleft() for _ in range(len(self._waiting))]
                        done = await loop.run_in_executor(thread, trainer.round, heard, time.monotonic(), stop.is_set)
                        self._finish(done)
                    await loop.run_in_executor(thread, trainer.close)
            finally:
                for task in background:
                    task.cancel()

    async def _listen(self, outcomes: Subscription) -> None:
        async for received in outcomes:
            self._hear(received, time.monotonic())

    async def _watch_own(self, own: Subscription) -> None:
        """Two learners of one name would undo each other's work without a word."""
        async for received in own:
            if received.envelope.boot_id != self._bus.boot_id:
                self.counters["published_by_another"] += 1
                log.error("another process publishes under this learner's name: give one of them another --name")

    def _hear(self, received: Received, now_s: float) -> None:
        outcome, vehicle = received.body, received.names["vehicle"]
        self.counters["heard"] += 1
        try:
            experience = experience_from(outcome, self._utility, now_s)
        except MessageRefused as refusal:
            self.counters[f"left_out.{refusal.reason}"] += 1
            log.debug("outcome left out", vehicle=vehicle, task_id=outcome.task_id, why=str(refusal))
            return
        if len(self._waiting) == _WAITING_LIMIT:
            self._waiting.popleft()
            self.counters["left_out.too many"] += 1
        self._waiting.append(Heard(vehicle, outcome.task_id, experience, outcome.decision.weights))

    def _overflowed(self, received: Received) -> None:
        self.counters["left_out.too many"] += 1

    def _finish(self, done: Round) -> None:
        self.counters["learnt"] += done.new
        self.counters["left_out.known or late"] += done.left_out
        self.counters["updates"] += done.updates
        log.debug("round", new=done.new, updates=done.updates, loss=done.loss, waiting=len(self._waiting))
        if done.loss is not None and not math.isfinite(done.loss):
            self.counters["begun_anew"] += 1
            log.warning("learning came to what is no number; it begins anew from the weights that are served")
        if (verdict := done.verdict) is not None:
            log.info("review", verdict=verdict.action, why=verdict.reason)
        if done.publication is not None and verdict is not None:
            self.counters[verdict.action.replace(" ", "_")] += 1
            self._publish(done.publication)

    def _publish(self, weights: PolicyWeights) -> None:
        self.counters["weights_published"] += 1
        log.info("publishes", policy=weights.policy, version=weights.version, note=weights.note)
        self._history.note("weights.published", policy=weights.policy, version=weights.version, why=weights.note)
        self._bus.post(topics.POLICY, weights)

    def _families(self) -> Iterator[Metric]:
        from ..bus.metric_families import counter_families, health_families

        health = self._health
        yield from health_families(health.uptime_s, health.event_loop_lag_ms, health.memory_bytes)
        yield from counter_families({**self.counters, **self._bus.counters})


async def _retained(own: Subscription) -> PolicyWeights | None:
    """What the broker has of this learner: it comes with the subscription or not at all."""
    await own.active.wait()
    try:
        return (await asyncio.wait_for(anext(own), _RETAINED_WITHIN_S)).body
    except TimeoutError:
        return None
