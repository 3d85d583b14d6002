"""Verbs that run one process of a fleet each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    BrokerUrl,
    ConfigFile,
    FleetName,
    FramesPerTask,
    IdentityName,
    Json,
    KeepFramesRule,
    LogLevelName,
    MetricsAt,
    Model,
    ModeName,
    NodeName,
    PlaceName,
    PolicyName,
    PolicyWeightsFile,
    Theta,
    TlsFolder,
    VehicleModel,
    VideoSource,
    WaitForBroker,
    WithParent,
    log_level_named,
    own_model_loader,
    place_named,
    run_node,
    run_process,
)

verbs = typer.Typer()

FrameAge = Annotated[
    str | None,
    typer.Option("--frame-retention", help="Older frames are deleted: 90s, 30min, 7d ... [default: 24h]"),
]
FrameBytes = Annotated[
    str | None,
    typer.Option("--frame-limit", help="More than this, and the oldest frames give way: 500MB ... [default: 1GB]"),
]


@verbs.command(epilog="Example:  roadside broker --port 1883")
def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 1883,
    tls: TlsFolder = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Run a broker in the foreground: mosquitto where it is on PATH, else amqtt. For this machine only."""
    from ..bus.broker import Broker

    async def serve(stop: Any) -> None:
        async with Broker(port=port, tls=tls) as running:
            typer.echo(f"{running.kind} listens at {running.url}; Ctrl-C stops it", err=True)
            await stop.wait()

    run_process("broker", serve, exit_with_parent)


@verbs.command(
    epilog="Example:  roadside vehicle --name vehicle-1 --broker mqtt://10.0.0.5:1883 --policy greedy-utility;  "
    "roadside vehicle --vehicle-model bundled --place vehicle"
)
def vehicle(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    fleet: FleetName = None,
    log: Annotated[Path | None, typer.Option(help="Folder of a driving log [default: the bundled one]")] = None,
    video: VideoSource = None,
    journal: Annotated[Path | None, typer.Option(help="SQLite file of the vehicle's own record.")] = None,
    policy: PolicyName = None,
    policy_weights: PolicyWeightsFile = None,
    policy_from: Annotated[
        str | None,
        typer.Option(metavar="LEARNER", help="Whose weights it takes over while it drives [default: the first heard]"),
    ] = None,
    explore_share: Annotated[
        float | None, typer.Option(help="Of decisions, drawn evenly for a learner's sake [default: 0]")
    ] = None,
    place: PlaceName = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same tasks.")] = None,
    speed: Annotated[float | None, typer.Option(help="Log seconds per second.")] = None,
    rate_hz: Annotated[float | None, typer.Option(help="Mean tasks per second.")] = None,
    start: Annotated[float | None, typer.Option(help="Where in the log to begin, in seconds.")] = None,
    start_share: Annotated[
        float | None, typer.Option(help="Where in the log to begin, from 0 (its first clip) to 1 (its end).")
    ] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds for which tasks are created.")] = None,
    theta: Theta = None,
    vehicle_model: VehicleModel = None,
    frames_per_task: FramesPerTask = None,
    frame_interval: Annotated[
        float | None, typer.Option(help="Seconds between two frames for people; 0: none [default].")
    ] = None,
    wait_for_broker: WaitForBroker = None,
    metrics: MetricsAt = None,
    log_level: LogLevelName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Replay a log or follow a camera as one vehicle: ask, place, and never leave the driver without an answer."""
    from ..vehicle_node.configuration import VehicleConfiguration
    from ..vehicle_node.node import run

    async def drive(configuration: VehicleConfiguration, stop: Any) -> None:
        await run(configuration, stop, own_model_loader(configuration.vehicle_model))

    flags = {
        "name": name,
        "broker": broker,
        "tls": tls,
        "fleet": fleet,
        "log": log,
        "video": video,
        "journal": journal,
        "policy": policy,
        "policy_weights": policy_weights,
        "policy_from": policy_from,
        "explore_share": explore_share,
        "place": place_named(place),
        "seed": seed,
        "speed": speed,
        "rate_hz": rate_hz,
        "start_s": start,
        "start_share": start_share,
        "theta": theta,
        "vehicle_model": vehicle_model,
        "frames_per_task": frames_per_task,
        "frame_interval_s": frame_interval,
        "duration_s": duration,
        "wait_for_broker_s": wait_for_broker,
        "metrics": metrics,
        "log_level": log_level,
    }
    run_node("vehicle", VehicleConfiguration, drive, config, flags, exit_with_parent)


@verbs.command(epilog="Example:  roadside edge --name edge-1 --broker mqtt://10.0.0.5:1883")
def edge(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    fleet: FleetName = None,
    model: Model = None,
    mode: ModeName = None,
    wait_for_broker: WaitForBroker = None,
    metrics: MetricsAt = None,
    log_level: LogLevelName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Serve as a roadside edge node: early exits of the model's first layers, alone or together with a cloud."""
    from ..edge_node.configuration import EdgeConfiguration
    from ..edge_node.node import run

    flags = {
        "name": name,
        "broker": broker,
        "tls": tls,
        "fleet": fleet,
        "model": model,
        "mode": mode,
        "wait_for_broker_s": wait_for_broker,
        "metrics": metrics,
        "log_level": log_level,
    }
    run_node("edge", EdgeConfiguration, run, config, flags, exit_with_parent)


@verbs.command(
    epilog="Example:  roadside cloud --name cloud-1 --broker mqtt://10.0.0.5:1883;  "
    "roadside cloud --backend openai --url http://10.0.0.9:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct "
    "--examples-log bdd-x --quality 0.8"
)
def cloud(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    fleet: FleetName = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A folder or Hugging Face id [default: the bundled model]; with --url the server's name for it.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="transformers: a model in this process [default]; openai: a server that speaks its API."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="That server, up to /v1: http://host:8000/v1")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="The environment's variable that holds the server's API key.")
    ] = None,
    parallel_requests: Annotated[
        int | None, typer.Option(help="Questions that the server is asked at once [default: 8]")
    ] = None,
    examples_log: Annotated[
        Path | None, typer.Option(help="Driving log whose training split gives examples [default: no examples]")
    ] = None,
    examples: Annotated[int | None, typer.Option(help="Examples that go with a question [default: 4]")] = None,
    quality: Annotated[
        float | None,
        typer.Option(help="The server's model's measured success rate; without it vehicles ask others first."),
    ] = None,
    wait_for_broker: WaitForBroker = None,
    metrics: MetricsAt = None,
    log_level: LogLevelName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Serve as a cloud node: the whole model, here or on an OpenAI-compatible server."""
    from ..cloud_node.configuration import CloudConfiguration
    from ..cloud_node.node import run

    flags = {
        "name": name,
        "broker": broker,
        "tls": tls,
        "fleet": fleet,
        "model": model,
        "backend": backend,
        "url": url,
        "api_key_env": api_key_env,
        "parallel_requests": parallel_requests,
        "examples_log": examples_log,
        "examples": examples,
        "quality": quality,
        "wait_for_broker_s": wait_for_broker,
        "metrics": metrics,
        "log_level": log_level,
    }
    run_node("cloud", CloudConfiguration, run, config, flags, exit_with_parent)


@verbs.command(epilog="Example:  roadside learner --name learner-1 --broker mqtt://10.0.0.5:1883 --policy ddpg")
def learner(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    fleet: FleetName = None,
    policy: Annotated[str | None, typer.Option(help="ddpg [default] or bandit: whose weights are learnt.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="What it has learnt, to go on from [default: a folder with its name]")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to begin with where that folder is empty [default: those that ship]")
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    wait_for_broker: WaitForBroker = None,
    metrics: MetricsAt = None,
    log_level: LogLevelName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Learn from every task that a fleet ends, and publish weights that prove better; take them back if they fail.

    Vehicles with the same --policy take them over while they drive. Started again, it goes on from its folder.
    """
    from ..learner_node.configuration import LearnerConfiguration
    from ..learner_node.node import run

    flags = {
        "name": name,
        "broker": broker,
        "tls": tls,
        "fleet": fleet,
        "policy": policy,
        "folder": folder,
        "start": start,
        "seed": seed,
        "wait_for_broker_s": wait_for_broker,
        "metrics": metrics,
        "log_level": log_level,
    }
    run_node("learner", LearnerConfiguration, run, config, flags, exit_with_parent)


@verbs.command("fleet", epilog="Example:  roadside fleet fleet.toml")
def run_whole_fleet(
    file: Annotated[Path, typer.Argument(help="TOML file of a fleet; docs/running-a-fleet.md has one.")],
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    run: Annotated[Path | None, typer.Option(help="Folder for the run [default: a new one in runs/]")] = None,
    log_level: LogLevelName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Run every member of a fleet's file on this machine, until stopped or until the last vehicle has finished."""
    from ..fleet_run import FleetOptions, run_fleet

    finished: list[Any] = []

    async def serve(stop: Any) -> None:
        options = FleetOptions(file=file, broker=broker, tls=tls, run=run)
        finished.append(await run_fleet(options, lambda line: typer.echo(line, err=True), stop))

    run_process("fleet", serve, exit_with_parent, log_level_named(log_level))
    typer.echo(f"{finished[0].path}; try: roadside report {finished[0].path}")


@verbs.command(epilog="Example:  roadside check fleet.toml --connect")
def check(
    file: Annotated[Path, typer.Argument(help="TOML file of one process or of a fleet.")],
    connect: Annotated[bool, typer.Option("--connect", help="Also try the broker, and time it.")] = False,
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    identity: IdentityName = None,
    as_json: Json = False,
) -> None:
    """Say what a TOML file would run and what in it cannot be used; starts nothing. Exit status 2 for a bad one."""
    from ..fleet_check import check_file
    from .checking import print_check, try_broker

    report = check_file(file, broker, tls)
    tried = try_broker(report.broker_url, report.tls, identity) if connect and report.ok else None
    print_check(report, tried, as_json)
    if not report.ok or (tried is not None and tried.error):
        raise typer.Exit(2)


@verbs.command(epilog="Example:  roadside record runs/today --broker mqtt://10.0.0.5:1883")
def record(
    run: Annotated[Path, typer.Argument(help="Folder of the run; made where it does not exist.")],
    config: ConfigFile = None,
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    fleet: FleetName = None,
    keep_frames: KeepFramesRule = None,
    frame_retention: FrameAge = None,
    frame_limit: FrameBytes = None,
    identity: Annotated[
        str | None, typer.Option("--identity", metavar="NAME", help="Its name on the bus [default: recorder]")
    ] = None,
    wait_for_broker: WaitForBroker = None,
    metrics: MetricsAt = None,
    log_level: LogLevelName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Write what happens in a fleet into a run's ledger, until stopped; frames only where --keep-frames says so."""
    from ..qos.recording import RecorderConfiguration, run_recorder
    from ..qos.run import RunDirectory

    async def serve(configuration: RecorderConfiguration, stop: Any) -> None:
        # The demo makes its run and ends it; on its own, the recorder does both.
        own = not run.exists()
        if own:
            directory = RunDirectory.create(run, configuration={"fleet": configuration.fleet}, seed=0, argv=sys.argv)
        else:
            directory = RunDirectory.open(run)
        await run_recorder(configuration, directory, stop)
        if own:
            directory.finish()

    flags = {
        "name": identity,
        "broker": broker,
        "tls": tls,
        "fleet": fleet,
        "keep_frames": keep_frames,
        "frame_retention": frame_retention,
        "frame_limit": frame_limit,
        "wait_for_broker_s": wait_for_broker,
        "metrics": metrics,
        "log_level": log_level,
    }
    run_node("recorder", RecorderConfiguration, serve, config, flags, exit_with_parent)
