"""The same answers for real: broker, edges and cloud as processes, a shaped link between edge and cloud.

An edge that is behind the shaping proxy answers scene after scene in each mode; what it computed and waited for is laid
beside the virtual clock with this machine's stage times. Another edge, straight at the broker, asks for every token,
which tells what the bus and the codec add to a token's round trip.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bus import topics
from ..bus.broker import Broker
from ..bus.errors import FleetError
from ..bus.kinds import EXPLAIN
from ..bus.link import LinkShape
from ..bus.messages import ContextChunk, Result, Task, TokenReply
from ..bus.shaping_proxy import ShapingProxy
from ..bus.transport import Bus, Subscription
from ..datasets.link_traces import parse_link
from ..fleet import Fleet
from ..models.context_codec import ContextPacker
from ..models.modes import EdgeMode
from ..qos.run import RunDirectory
from .collab_cells import HEADLINE
from .collab_clock import VirtualLink
from .collab_contenders import Contender, replay
from .collab_goals import goal
from .collab_profiles import Profile
from .collab_replay import Replayed
from .collab_traces import TracedScene

_FLEET = "collab"
_CLOUD, _NEAR = "cloud", "edge-near"
_MODES: tuple[EdgeMode, ...] = ("ce", "ce-optimistic", "through")
_START_TIMEOUT_S = 120.0
_PATIENCE_S = 30.0
_DEADLINE_MS = 20_000.0
# The first answers pay for lazy initialisation.
_WARM_UP = 5
# Above 1 no exit is sure, and every token is asked for.
_NEVER_SURE = (1.1, 1.1)
_AGREEMENT_LIMIT = 0.15
_BUS_SHARE_LIMIT = 0.25
_PAPER_TOKEN_MS = 28.0
_MESSAGES = 300
_MESSAGE_PAUSE_S = 0.004
_MESSAGE_HIDDEN_SIZE = 192


@dataclass(frozen=True, slots=True)
class RealRun:
    """answers: by mode, of each scene. round_trips: of single tokens, on loopback. message_ms: CPU time to send one."""

    answers: dict[EdgeMode, list[RealAnswer]]
    round_trips: list[RoundTrip]
    message_ms: float
    broker: str

    @property
    def bus_ms(self) -> float:
        """Half of the tokens' round trips had more of the bus in them, and half less."""
        return statistics.median(each.bus_ms for each in self.round_trips)


@dataclass(frozen=True, slots=True)
class RealAnswer:
    """cloud_ms: of the cloud's computing in its replies, queue included."""

    result: Result
    cloud_ms: float
    replies: int

    @property
    def edge_ms(self) -> float:
        return self.result.timing.inference_ms

    @property
    def total_ms(self) -> float:
        """From the accepted task to the answer, without what the vehicle's own messages take."""
        return self.edge_ms + self.result.timing.context_ms


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A token's, on the mean of one answer. waited_ms: by the edge; cloud_ms: of that in the cloud, queue included."""

    waited_ms: float
    cloud_ms: float

    @property
    def bus_ms(self) -> float:
        """What bus, codec and the ways between threads take."""
        return self.waited_ms - self.cloud_ms


def run_real(scenes: Sequence[TracedScene], advance: Callable[[int], None]) -> RealRun:
    """Start everything, let each edge answer every scene, and stop everything. advance: told of answers.

    Raises FleetError where a process fails, or does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", configuration={}, seed=0, argv=[])
        return asyncio.run(_run(scenes, run, advance))


async def _run(scenes: Sequence[TracedScene], run: RunDirectory, advance: Callable[[int], None]) -> RealRun:
    async with (
        Broker(directory=run.path / "broker") as broker,
        ShapingProxy(broker.url, parse_link(HEADLINE)) as proxy,
        Fleet(run, broker.url) as fleet,
        Bus(url=broker.url, fleet=_FLEET, name="bench") as bus,
    ):
        await fleet.start(_CLOUD, "cloud", "--name", _CLOUD, "--fleet", _FLEET)
        edges: dict[EdgeMode, str] = {mode: f"edge-{mode}" for mode in _MODES}
        for mode, name in edges.items():
            await _start_edge(fleet, run, name, mode, proxy.url)
        await _start_edge(fleet, run, _NEAR, "ce", broker.url)
        asker = _Asker(bus)
        await fleet.ready([_CLOUD, *edges.values(), _NEAR], timeout_s=_START_TIMEOUT_S)
        await asker.until_collaborating([*edges.values(), _NEAR])
        answers: dict[EdgeMode, list[RealAnswer]] = {mode: [] for mode in _MODES}
        warm_up = scenes[:_WARM_UP]
        for scene in [*warm_up, *scenes]:
            for mode, name in edges.items():
                answers[mode].append(await asker.ask(name, scene, scene.model.thresholds))
            advance(1)
        round_trips = [await asker.round_trip(scene) for scene in [*warm_up, *scenes]]
        timed: dict[EdgeMode, list[RealAnswer]] = {mode: each[len(warm_up) :] for mode, each in answers.items()}
        return RealRun(timed, round_trips[len(warm_up) :], await _message_ms(bus), broker.kind)


async def _message_ms(bus: Bus) -> float:
    """CPU time of this process for one chunk of context, from the packing to the broker's acknowledgement.

    In a node the event loop spends it while the inference thread computes, and Python runs one of them at a time.
    """
    packer = ContextPacker("float16")
    hidden = np.zeros((1, _MESSAGE_HIDDEN_SIZE), dtype=np.float32)
    began_s = time.process_time()
    for _ in range(_MESSAGES):
        fields: dict[str, Any] = {**packer.fields(packer.pack(hidden), with_channels=True)}
        # No session of anybody's: the cloud counts it as refused.
        chunk = ContextChunk(session="bench.1", rollback=0, position=0, **fields)
        bus.post(topics.CONTEXT, chunk, node=_CLOUD, edge=bus.name)
        await asyncio.sleep(_MESSAGE_PAUSE_S)
    return (time.process_time() - began_s) * 1000 / _MESSAGES


async def _start_edge(fleet: Fleet, run: RunDirectory, name: str, mode: EdgeMode, url: str) -> None:
    """draft: an edge that tells its vehicle drafts computes them while it would wait."""
    file = run.path / f"{name}.toml"
    file.write_text(f'fleet = "{_FLEET}"\nname = "{name}"\nmode = "{mode}"\ndraft = false\ncloud_timeout_ms = 5000.0\n')
    await fleet.start(name, "edge", "--config", str(file), broker_url=url)


class _Asker:
    """A vehicle that asks one question at a time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._states = bus.subscribe(topics.NODE_STATE)
        self._results = bus.subscribe(topics.RESULT, vehicle=bus.name)
        self._tokens = bus.subscribe(topics.TOKEN, limit=10_000)
        self._number = 0

    async def until_collaborating(self, edges: Sequence[str]) -> None:
        """Wait until each edge has a cloud to ask."""
        waiting = set(edges)
        async with _patience("no edge has found the cloud"):
            async for received in self._states:
                if "edge+cloud" in received.body.places:
                    waiting.discard(received.body.node)
                if not waiting:
                    return

    async def ask(self, edge: str, scene: TracedScene, thresholds: tuple[float, ...]) -> RealAnswer:
        """The final answer, with what the cloud has told the edge of its own time."""
        await _emptied(self._tokens)
        result = await self._result(edge, scene, thresholds)
        replies = [body for body in await _emptied(self._tokens) if isinstance(body, TokenReply)]
        return RealAnswer(result, sum(reply.queue_ms + reply.compute_ms for reply in replies), len(replies))

    async def _result(self, edge: str, scene: TracedScene, thresholds: tuple[float, ...]) -> Result:
        self._number += 1
        question = scene.question
        task = Task(
            task_id=f"task-{self._number}",
            attempt=1,
            kind=EXPLAIN.name,
            prompt=question.prompt,
            frames=question.frames,
            telemetry=question.telemetry,
            deadline_ms=_DEADLINE_MS,
            remaining_ms=_DEADLINE_MS,
            qos_floor=0.0,
            place="edge+cloud",
            max_tokens=question.max_tokens,
            exit_thresholds=thresholds,
        )
        await self._bus.publish(topics.TASK, task, node=edge)
        async with _patience(f"{edge} does not answer"):
            async for received in self._results:
                if received.body.task_id == task.task_id and received.body.final:
                    return received.body
        raise FleetError("the bench's subscription to results has ended")

    async def round_trip(self, scene: TracedScene) -> RoundTrip:
        """Of the tokens of one answer by the near edge, each asked for."""
        answer = await self.ask(_NEAR, scene, _NEVER_SURE)
        return RoundTrip(answer.result.timing.context_ms / answer.replies, answer.cloud_ms / answer.replies)


async def _emptied(subscription: Subscription) -> list[Any]:
    """What has arrived; replies come before the answer that is made of them."""
    return [(await anext(subscription)).body for _ in range(len(subscription))]


@asynccontextmanager
async def _patience(trouble: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            yield
    except TimeoutError:
        raise FleetError(f"{trouble} within {_PATIENCE_S:.0f} s: is the machine overloaded?") from None


def compare(real: RealRun, scenes: Sequence[TracedScene], profile: Profile) -> list[dict[str, Any]]:
    """A line for each mode. profile: of this machine.

    What the bus costs is laid on the virtual clock: of the edge's time for each message, and as a longer round trip.
    Ratios are medians over the scenes, because somebody else's work on the machine makes single answers many times as
    long. "At its pace": with what edge and cloud themselves computed in each answer, so that only link, bus and overlap
    are compared; on a machine that does nothing else the two ratios are alike.
    """
    shape = parse_link(HEADLINE)
    assert isinstance(shape.round_trip, float), "the headline's link is no recording"
    # The edge's own part of a round trip, a question sent and a reply read, is in the profile.
    on_the_way_ms = max(0.0, real.bus_ms - 2 * real.message_ms)
    link = replace(shape, round_trip=shape.round_trip + on_the_way_ms)
    profile = replace(profile, message_ms=real.message_ms)
    return [_line(mode, results, scenes, profile, link) for mode, results in real.answers.items()]


def _line(
    mode: EdgeMode, answers: Sequence[RealAnswer], scenes: Sequence[TracedScene], profile: Profile, link: LinkShape
) -> dict[str, Any]:
    contender = Contender(mode, mode, scenes[0].model.thresholds)

    def virtually(scene: TracedScene, profile: Profile) -> Replayed:
        return replay(contender, scene, profile, VirtualLink(link), max_tokens=scene.question.max_tokens)

    virtual = [virtually(scene, profile) for scene in scenes]
    paced = [
        virtually(scene, _at_its_pace(profile, answer, each))
        for scene, answer, each in zip(scenes, answers, virtual, strict=True)
    ]
    said = [scene.model.words(each.generation.tokens) for scene, each in zip(scenes, virtual, strict=True)]
    return {
        "mode": mode,
        "real_ms": statistics.median(answer.total_ms for answer in answers),
        "virtual_ms": statistics.median(each.total_ms for each in virtual),
        "real / virtual": _median_ratio(answers, virtual),
        "real / virtual at its pace": _median_ratio(answers, paced),
        "real_edge_ms": statistics.median(answer.edge_ms for answer in answers),
        "virtual_edge_ms": statistics.median(each.edge_ms for each in virtual),
        "same_words": statistics.fmean(
            answer.result.text == words for answer, words in zip(answers, said, strict=True)
        ),
        "answers": len(answers),
    }


def _at_its_pace(profile: Profile, answer: RealAnswer, virtual: Replayed) -> Profile:
    """The profile, were edge and cloud as slow as they were in this answer."""
    cloud = answer.cloud_ms / virtual.cloud_ms if virtual.cloud_ms and answer.replies else 1.0
    return profile.paced(edge=answer.edge_ms / virtual.edge_ms, cloud=cloud)


def _median_ratio(answers: Sequence[RealAnswer], virtual: Sequence[Replayed]) -> float:
    return statistics.median(answer.total_ms / each.total_ms for answer, each in zip(answers, virtual, strict=True))


def real_goals(real: RealRun, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether clock and processes agree, and what the bus adds to a token."""
    bus_ms = real.bus_ms
    own_ms = statistics.median(each.waited_ms for each in real.round_trips)
    share = f"bus and codec in a token's round trip at {_PAPER_TOKEN_MS:g} ms in the cloud ({bus_ms / own_ms:.0%} here)"
    return [
        *(_agreement(kind, lines) for kind in ("real / virtual", "real / virtual at its pace")),
        goal(share, bus_ms / (bus_ms + _PAPER_TOKEN_MS), "at most", _BUS_SHARE_LIMIT),
    ]


def _agreement(kind: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    farthest = max(lines, key=lambda line: abs(line[kind] - 1))
    return goal(f"{kind}, off by ({farthest['mode']})", abs(farthest[kind] - 1), "at most", _AGREEMENT_LIMIT)
