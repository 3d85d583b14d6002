"""Runs the steps of one answer on a node: computing on the inference thread, waiting on the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .companions import CloudSession
from .decoding import (
    Ask,
    Chose,
    CloudReply,
    Drafted,
    Poll,
    RollBack,
    Spoke,
    Steps,
    Upload,
    UploadPrompt,
    UploadTokens,
    Wait,
)
from .energy import EnergyMeter
from .inference_worker import Worker
from .questions import Answer


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of it. answer: None where it was broken off. computed_ms, energy_j: on this node; waited_ms: for the
    cloud."""

    answer: Answer | None
    computed_ms: float
    waited_ms: float
    energy_j: float


class _BrokenOff:
    """The steps were closed before their end."""


async def drive(
    steps: Steps[Answer],
    worker: Worker,
    *,
    meter: EnergyMeter,
    rank: int,
    cancelled: Callable[[], bool],
    session: CloudSession | None = None,
    watch: Callable[[Chose | Drafted | Spoke], None] | None = None,
    wait: Callable[[bool], None] = lambda waits: None,
) -> Worked:
    """Run to the end, or until `cancelled()` before the first token or after any.

    rank: in the worker's order. session: for modes that ask a cloud; to others it is silent. watch: is shown, on the
    inference thread, what is made on the way. wait: is told when waiting for the cloud begins and when it ends.
    Raises what the steps raise (MessageRefused for an unusable image).
    """
    computed_s = waited_s = energy_j = 0.0
    reply: CloudReply | None = None

    def advance() -> Wait | Spoke | Answer | _BrokenOff:
        nonlocal computed_s, energy_j
        if cancelled():
            # It may have waited for its turn, or for the cloud, until nobody waited for it any more.
            steps.close()
            return _BrokenOff()
        before = meter.now()
        try:
            return _advance(steps, reply, session, cancelled, lambda: worker.should_give_way(rank), watch)
        finally:
            after = meter.now()
            computed_s += after.at_s - before.at_s
            energy_j += meter.joules_between(before, after)

    while True:
        event = await worker.run(advance, rank=rank)
        reply = None
        match event:
            case Wait():
                started_s = time.perf_counter()
                wait(True)
                reply = await session.reply() if session is not None else None
                wait(False)
                waited_s += time.perf_counter() - started_s
            case Spoke():
                pass  # it gave way; its turn comes again behind what is more urgent
            case _:
                answer = event if isinstance(event, Answer) else None
                return Worked(answer, computed_s * 1000, waited_s * 1000, energy_j)


def _advance(
    steps: Steps[Answer],
    reply: CloudReply | None,
    session: CloudSession | None,
    cancelled: Callable[[], bool],
    should_give_way: Callable[[], bool],
    watch: Callable[[Chose | Drafted | Spoke], None] | None,
) -> Wait | Spoke | Answer | _BrokenOff:
    """On the inference thread: go on until something is wanted that only the event loop can do."""
    while True:
        try:
            event = steps.send(reply)
        except StopIteration as end:
            return end.value
        reply = None
        if watch is not None and isinstance(event, Chose | Drafted | Spoke):
            watch(event)
        match event:
            case Upload() | UploadTokens() | UploadPrompt() | RollBack() | Ask():
                if session is not None:
                    session.send(event)
            case Poll():
                reply = session.poll() if session is not None else None
            case Spoke():
                if cancelled():
                    steps.close()
                    return _BrokenOff()
                if should_give_way():
                    return event
            case Chose() | Drafted():
                pass
            case Wait():
                return event
