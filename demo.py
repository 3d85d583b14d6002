"""`roadside demo`: broker, vehicles, edges and a cloud as processes of this machine, one drive, one report."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .bus import topics
from .bus.access_rules import IdentityRole
from .bus.broker import Broker, find_mosquitto
from .bus.defaults import DEFAULT_WATCHER, MESSAGES_VARIABLE, VIDEO_VARIABLE
from .bus.errors import ConfigurationError
from .bus.places import Place
from .bus.process import READY
from .bus.shaping_proxy import ShapingProxy
from .bus.transport import Bus, Subscription
from .datasets.link_traces import parse_link
from .datasets.sources import without_password
from .fleet import Fleet
from .learner_node.configuration import LEARNABLE
from .models.modes import EDGE_MODES, EdgeMode
from .policy.base import Policy
from .policy.registry import DEFAULT_POLICY, PolicyOptions, make_policy
from .qos.report import summarise
from .qos.retention import KeepFrames
from .qos.run import BrokerKind, RunDirectory
from .qos.watch import outcome_line
from .vehicle_node.scenes import check_source
from .vehicle_node.schedule import arrivals

_START_TIMEOUT_S = 120.0
_FLEET = "demo"
_LEARNER = "learner-1"
_ONLOOKER = "demo"
_EXPLORE_SHARE = 0.05
_PAGE = "page"
# As a duration: a day, which is longer than anybody watches.
UNTIL_STOPPED_S = 86_400.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The flags of `roadside demo`. duration_s: for how long tasks are created; speed: log seconds per second.

    log, video: what the vehicles see, one of the two; the bundled log where neither is given. A video is a file or the
    URL of a live camera.
    policy_weights: a file of weights for it; None: those that ship.
    learn: whether a learner takes part; the vehicles follow it, and explore for its sake.
    mode: how edges decode where a cloud is at hand; theta: confidence at which their exits speak.
    vehicle_model: of each vehicle's own, "bundled" for the bundled one; None: their narrators alone.
    link: between each vehicle and the broker, as datasets/link_traces.py reads it; None: this machine's loopback.
    frames_per_task: how many frames a vehicle sends with a question.
    frame_interval_s: between two frames that a vehicle publishes for people; 0: none. keep_frames: which the run keeps.
    record_messages: whether the processes keep what `roadside replay` needs, the vehicles' pictures included.
    secure: whether the broker lets in only who has a certificate, each to do what its role may.
    """

    log: Path | None = None
    video: str | None = None
    model: str | None = None
    vehicles: Annotated[int, Meta(ge=1, le=64)] = 2
    edges: Annotated[int, Meta(ge=0, le=64)] = 2
    clouds: Annotated[int, Meta(ge=0, le=64)] = 1
    policy: str = DEFAULT_POLICY
    policy_weights: Path | None = None
    learn: bool = False
    place: Place | None = None
    mode: EdgeMode = "ce"
    theta: Annotated[float, Meta(ge=0, le=10)] | None = None
    vehicle_model: str | None = None
    broker: str | None = None
    link: str | None = None
    duration_s: Annotated[float, Meta(ge=1)] = 30.0
    rate_hz: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    speed: Annotated[float, Meta(ge=0.1, le=100)] = 4.0
    seed: int = 0
    frames_per_task: Annotated[int, Meta(ge=1, le=2)] = 1
    frame_interval_s: Annotated[float, Meta(ge=0)] = 2.0
    keep_frames: KeepFrames = "none"
    record_messages: bool = False
    secure: bool = False
    run: Path | None = None


def check_options(options: DemoOptions) -> None:
    """Raise ConfigurationError where log, video, policy, place or link cannot be used; starts nothing."""
    _check_place(options)
    _check_secure(options)
    if options.link is not None:
        parse_link(options.link)
    check_source(options.log, options.video)
    _make_policy(options)


async def run_demo(
    options: DemoOptions, console: Console, stop: asyncio.Event, *, with_page: bool = False
) -> tuple[RunDirectory, dict[str, Any]]:
    """Run the fleet until its vehicles have finished, or `stop` is set; returns the run and its summary.

    with_page: also serve the live page, for as long as the fleet runs, and print its address.
    Nothing is started before log or video, policy and link are known to be usable.
    """
    _check_place(options)
    _check_secure(options)
    link = parse_link(options.link) if options.link is not None else None
    # On a thread: a camera takes its time to show something.
    await asyncio.to_thread(check_source, options.log, options.video)
    policy = _make_policy(options).name
    vehicles = _names("vehicle", options.vehicles)
    nodes: dict[str, IdentityRole] = dict.fromkeys(_names("edge", options.edges), "edge")
    nodes |= dict.fromkeys(_names("cloud", options.clouds), "cloud")
    planned = _planned(options, vehicles)
    run = RunDirectory.create(
        options.run,
        configuration=_plain(options) | {"policy": policy},
        seed=options.seed,
        argv=[without_password(word) for word in sys.argv],
    )
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(_progress(console))
        status = progress.add_task("starting the broker", total=None)
        learners = [_LEARNER] if options.learn else []
        tls = _certificates(run, nodes, vehicles, learners, stack) if options.secure else None
        broker_url, broker_kind = await _broker(options, tls, run, stack)
        run.note_broker(broker_kind)
        # In this process, which has little else to do: a process for each link would cost more than the bytes.
        # Entered before the fleet, so that the links stand until its last process has ended.
        links = await stack.enter_async_context(AsyncExitStack())
        fleet = await stack.enter_async_context(Fleet(run, broker_url, tls))

        if with_page:
            progress.update(status, description="starting the live page")
            progress.console.print(f"live page: {await _page(fleet, run)}", style="bold", highlight=False)
        progress.update(status, description=f"starting the nodes ({broker_kind})")
        keep = ("--keep-frames", options.keep_frames)
        await fleet.start("recorder", "record", str(run.path), "--fleet", _FLEET, *keep)
        model = ("--model", options.model) if options.model else ()
        mode = {"edge": ("--mode", options.mode)}
        recording = {MESSAGES_VARIABLE: str(run.messages_path)} if options.record_messages else {}
        for name, role in nodes.items():
            flags = ("--name", name, "--fleet", _FLEET, *model, *mode.get(role, ()))
            await fleet.start(name, role, *flags, variables=recording)
        for name in learners:
            start = ("--start", str(options.policy_weights)) if options.policy_weights is not None else ()
            flags = ("--name", name, "--fleet", _FLEET, "--policy", policy, "--folder", str(run.path / name), *start)
            await fleet.start(name, "learner", *flags)
        await fleet.ready(["recorder", *nodes, *learners], timeout_s=_START_TIMEOUT_S)

        bus = await stack.enter_async_context(Bus(url=broker_url, fleet=_FLEET, name=_ONLOOKER, tls=tls))
        outcomes = bus.subscribe(topics.OUTCOME, limit=1024)
        showing = asyncio.create_task(_show(outcomes, progress, status))
        stack.callback(showing.cancel)
        progress.update(status, description="driving", total=planned)
        video = {VIDEO_VARIABLE: options.video} if options.video is not None else {}
        for number, name in enumerate(vehicles):
            flags = {
                "name": name,
                "fleet": _FLEET,
                "journal": run.journal_path(name),
                "policy": policy,
                "policy-weights": options.policy_weights,
                "policy-from": _LEARNER if options.learn else None,
                "explore-share": _EXPLORE_SHARE if options.learn else None,
                "place": options.place,
                "theta": options.theta,
                "vehicle-model": options.vehicle_model,
                "seed": options.seed,
                "speed": options.speed,
                "rate-hz": options.rate_hz,
                "duration": options.duration_s,
                "log": options.log,
                "frames-per-task": options.frames_per_task,
                "frame-interval": options.frame_interval_s,
                # Spread over the log, so that a fleet sees more of it than one vehicle would.
                "start-share": number / len(vehicles),
            }
            words = [word for flag, value in flags.items() if value is not None for word in (f"--{flag}", str(value))]
            # Each vehicle has a radio of its own, and a recorded link begins with its drive.
            url = broker_url
            if link is not None:
                url = (await links.enter_async_context(ShapingProxy(url, link, seed=options.seed + number))).url
            await fleet.start(name, "vehicle", *words, broker_url=url, variables=video | recording)
        await _vehicles_finished(fleet, vehicles, [*nodes, *learners], stop, progress.console)
        progress.update(status, description="collecting")
        await fleet.stop([*nodes, *learners])
        await fleet.stop(["recorder"])
    run.finish()
    summary = summarise(run)
    run.write_report(summary)
    return run, summary


def _planned(options: DemoOptions, vehicles: list[str]) -> int | None:
    """How many tasks the drive will have; None where it goes on until it is stopped."""
    if options.duration_s >= UNTIL_STOPPED_S:
        return None
    return sum(
        1
        for name in vehicles
        for _ in arrivals(seed=options.seed, vehicle=name, rate_hz=options.rate_hz, duration_s=options.duration_s)
    )


async def _page(fleet: Fleet, run: RunDirectory) -> str:
    """Start the live page; returns its address, which it tells in its log."""
    await fleet.start(_PAGE, "ui", "--fleet", _FLEET)
    await fleet.ready([_PAGE], timeout_s=_START_TIMEOUT_S)
    said = [json.loads(line) for line in run.log_path(_PAGE).read_text().splitlines() if line.startswith("{")]
    return next(line["url"] for line in said if line.get("event") == READY)


def _make_policy(options: DemoOptions) -> Policy:
    if options.learn and (options.policy not in LEARNABLE or options.place is not None):
        raise ConfigurationError(f"a learner needs vehicles with --policy {' or '.join(LEARNABLE)} and without --place")
    return make_policy(options.policy, PolicyOptions(place=options.place, weights=options.policy_weights))


def _check_place(options: DemoOptions) -> None:
    """ConfigurationError where nobody of the fleet would answer at the place, or in the mode, that is asked for."""
    needed = {"edge": options.edges, "cloud": options.clouds, "edge+cloud": min(options.edges, options.clouds)}
    if options.place is not None and needed.get(options.place, 1) < 1:
        raise ConfigurationError(f"nobody would answer at {options.place}: give the fleet more --edges or --clouds")
    if options.mode not in EDGE_MODES:
        raise ConfigurationError(f"no decoding mode {options.mode!r}; there are {', '.join(EDGE_MODES)}")
    if options.place == "edge+cloud" and options.mode == "standalone":
        raise ConfigurationError("edges in mode standalone ask no cloud: leave out --mode, or give --place edge")


def _check_secure(options: DemoOptions) -> None:
    if not options.secure:
        return
    if options.broker is not None:
        raise ConfigurationError("--secure starts a broker of its own: leave out --broker")
    if find_mosquitto() is None:
        raise ConfigurationError(
            "--secure needs mosquitto, as amqtt has no access rules: install it (`apt-get install mosquitto`)"
        )


def _certificates(
    run: RunDirectory, nodes: dict[str, IdentityRole], vehicles: list[str], learners: list[str], stack: AsyncExitStack
) -> Path:
    """An authority for this run alone, and what it vouches for: gone when the run is over."""
    from .bus.secured_fleet import SecuredFleet

    roles: dict[str, IdentityRole] = {**nodes, "recorder": "recorder", _ONLOOKER: "watcher", DEFAULT_WATCHER: "watcher"}
    roles.update((name, "vehicle") for name in vehicles)
    roles.update((name, "learner") for name in learners)
    folder = run.path / "secured"
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    secured = SecuredFleet.create(folder, fleet=_FLEET, members=list(roles.items()), days=1)
    # Nobody else can join, then, whoever gets to read the folder.
    secured.forget_authority()
    return folder


async def _broker(
    options: DemoOptions, tls: Path | None, run: RunDirectory, stack: AsyncExitStack
) -> tuple[str, BrokerKind]:
    if options.broker:
        return options.broker, "external"
    broker = await stack.enter_async_context(Broker(directory=run.path / "broker", tls=tls))
    return broker.url, broker.kind


async def _vehicles_finished(
    fleet: Fleet, vehicles: list[str], nodes: list[str], stop: asyncio.Event, console: Console
) -> None:
    """Wait for the vehicles to end by themselves; when told to stop, let them finish what they have begun.

    A node that dies is what the fleet is built to survive; without its recorder a run is worth nothing.
    """
    alive = list(nodes)
    finished = asyncio.create_task(fleet.finished(vehicles))
    stopped = asyncio.create_task(stop.wait())
    try:
        while not finished.done() and not stopped.done():
            fleet.check(["recorder"])
            for name in fleet.ended(alive):
                alive.remove(name)
                console.print(f"{name} is no more; the fleet goes on without it", style="red", highlight=False)
            await asyncio.wait({finished, stopped}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            await fleet.stop(vehicles)
        await finished
    finally:
        finished.cancel()
        stopped.cancel()


async def _show(outcomes: Subscription, progress: Progress, status: Any) -> None:
    async for received in outcomes:
        progress.advance(status)
        # Without markup: what stands in an answer's brackets is the answer's.
        line = outcome_line(received.names["vehicle"], received.body)
        progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _names(role: str, count: int) -> list[str]:
    return [f"{role}-{number}" for number in range(1, count + 1)]


def _plain(options: DemoOptions) -> dict[str, Any]:
    return {
        name: without_password(str(value)) if isinstance(value, Path | str) else value
        for name, value in asdict(options).items()
    }
