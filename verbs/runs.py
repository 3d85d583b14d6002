"""Verbs about whole runs: make one, watch one, sum one up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..bus.defaults import DEFAULT_BROKER, DEFAULT_FLEET, DEFAULT_WATCHER
from ..bus.errors import ConfigurationError
from .options import (
    BrokerUrl,
    FleetName,
    FramesPerTask,
    IdentityName,
    Json,
    KeepFramesRule,
    LinkSpec,
    Model,
    ModeName,
    PlaceName,
    PolicyName,
    PolicyWeightsFile,
    Theta,
    TlsFolder,
    VehicleModel,
    VideoSource,
    place_named,
    print_report,
    run_process,
)

if TYPE_CHECKING:
    from ..qos.run import RunDirectory

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside demo --vehicles 3 --policy random --duration 20")
def demo(
    log: Annotated[Path | None, typer.Option(help="Folder of a driving log [default: the bundled one]")] = None,
    video: VideoSource = None,
    model: Model = None,
    vehicles: Annotated[int, typer.Option(min=1, max=64)] = 2,
    edges: Annotated[int, typer.Option(min=0, max=64)] = 2,
    clouds: Annotated[int, typer.Option(min=0, max=64)] = 1,
    policy: PolicyName = None,
    policy_weights: PolicyWeightsFile = None,
    learn: Annotated[
        bool,
        typer.Option("--learn", help="Also run a learner that the vehicles follow; with --policy ddpg or bandit."),
    ] = False,
    place: PlaceName = None,
    mode: ModeName = None,
    theta: Theta = None,
    vehicle_model: VehicleModel = None,
    broker: Annotated[
        str | None, typer.Option(help="URL of a running broker [default: mosquitto, else amqtt, started here]")
    ] = None,
    link: LinkSpec = None,
    duration: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds for which tasks are created [default: 30; with --ui until Ctrl-C]"),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Mean tasks per second and vehicle.")] = 1.0,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="Log seconds per second.")] = 4.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same tasks.")] = 0,
    frames_per_task: FramesPerTask = None,
    frame_interval: Annotated[
        float, typer.Option(min=0, help="Seconds between two frames for people, for each vehicle; 0: none.")
    ] = 2.0,
    keep_frames: KeepFramesRule = None,
    record_messages: Annotated[
        bool,
        typer.Option("--record-messages", help="Keep what `roadside replay` needs, the vehicles' pictures included."),
    ] = False,
    secure: Annotated[
        bool,
        typer.Option("--secure", help="Over mutual TLS, each process with a certificate that is good for this run."),
    ] = False,
    ui: Annotated[
        bool,
        typer.Option("--ui", help="Also serve a live page for the browser; drive until Ctrl-C or --duration."),
    ] = False,
    run: Annotated[Path | None, typer.Option(help="Folder for the run [default: a new one in runs/]")] = None,
    as_json: Json = False,
) -> None:
    """Drive a replayed log through vehicles, edges and a cloud on this machine, and report what happened."""
    from rich.console import Console

    from ..bus.process import run_until_stopped
    from ..demo import UNTIL_STOPPED_S, DemoOptions, run_demo
    from ..policy.registry import DEFAULT_POLICY
    from ..qos.retention import keep_frames_named

    options = DemoOptions(
        log=log,
        video=video,
        model=model,
        vehicles=vehicles,
        edges=edges,
        clouds=clouds,
        policy=policy or ("ddpg" if learn else DEFAULT_POLICY),
        policy_weights=policy_weights,
        learn=learn,
        place=place_named(place),
        theta=theta,
        vehicle_model=vehicle_model,
        mode=mode or "ce",  # pyright: ignore[reportArgumentType]
        broker=broker,
        link=link,
        duration_s=duration or (UNTIL_STOPPED_S if ui else DemoOptions().duration_s),
        rate_hz=rate,
        speed=speed,
        seed=seed,
        frames_per_task=frames_per_task or 1,
        frame_interval_s=frame_interval,
        keep_frames=keep_frames_named(keep_frames or "none"),
        record_messages=record_messages,
        secure=secure,
        run=run,
    )
    finished: list[Any] = []

    async def drive(stop: Any) -> None:
        finished.append(await run_demo(options, Console(stderr=True), stop, with_page=ui))

    run_until_stopped(drive)
    directory, summary = finished[0]
    print_report(directory, summary, as_json)


@verbs.command(epilog="Example:  roadside watch --broker mqtt://127.0.0.1:1883 --explain")
def watch(
    broker: BrokerUrl = None,
    tls: TlsFolder = None,
    identity: IdentityName = None,
    fleet: FleetName = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show what the policy saw, and why.")] = False,
    vehicle: Annotated[list[str] | None, typer.Option(help="Only this vehicle's; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only tasks of this kind; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print a line for every answer and every member that comes or goes, until stopped."""
    from ..qos.fleet_events import Selection
    from ..qos.fleet_events import watch as watch_fleet

    selection = Selection.of(vehicle or (), kind or ())

    def show(event: Any) -> None:
        typer.echo(json.dumps(event.fields) if as_json else event.line)

    async def serve(stop: Any) -> None:
        await watch_fleet(
            broker or DEFAULT_BROKER,
            fleet or DEFAULT_FLEET,
            selection=selection,
            explain=explain,
            show=show,
            stop=stop,
            tls=tls,
            name=identity or (DEFAULT_WATCHER if tls is not None else "watch"),
        )

    run_process("watch", serve, False)


@verbs.command(epilog="Example:  roadside report runs/20260101-120000-abcd --html report.html")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page that explains the run, or both, to anybody.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="What differs in RUN2, and whether that is more than chance.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write RUN's tasks, decisions, tokens, states as tables.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sum up a run: placements, latency, quality, energy. Works while the run goes on, and on what is left of one."""
    from ..qos.run import RunDirectory

    directory = RunDirectory.open(run)
    if parquet is not None:
        from ..qos.exports.parquet import write_parquet

        rows = ", ".join(f"{name} {count:,}" for name, count in write_parquet(directory, parquet).items())
        typer.echo(f"wrote {parquet}: rows of {rows}", err=True)
    if compare is not None:
        _compare(directory, RunDirectory.open(compare), html, as_json)
        return
    from ..qos.report import summarise

    if html is not None:
        from ..qos.html_report.page import write_report

        typer.echo(f"wrote {write_report(directory, html)}", err=True)
    print_report(directory, summarise(directory), as_json)


def _compare(first: RunDirectory, second: RunDirectory, html: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from ..qos.comparison import as_json as comparison_as_json
    from ..qos.comparison import compare
    from ..qos.comparison_table import comparison_table
    from ..qos.evidence import read_evidence

    runs = read_evidence(first), read_evidence(second)
    comparison = compare(*runs)
    if html is not None:
        from ..qos.html_report.comparison_page import write_comparison

        typer.echo(f"wrote {write_comparison(comparison, runs, html)}", err=True)
    if as_json:
        typer.echo(json.dumps(comparison_as_json(comparison)))
    else:
        Console().print(comparison_table(comparison))


@verbs.command(epilog="Example:  roadside sweep --example > sweep.toml; roadside sweep sweep.toml")
def sweep(
    file: Annotated[Path | None, typer.Argument(help="TOML file of the demo's settings; lists are axes.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write and to go on with [default: FILE's name .csv]")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write [default: beside the CSV]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what has a row already.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a file to start from.")] = False,
    as_json: Json = False,
) -> None:
    """Run the demo with every combination of settings: one CSV row a run, means and intervals over the seeds.

    Ctrl-C finishes the present run; the same command goes on with what is left.
    """
    from rich.console import Console

    from ..benchmarks.sweep import SweepOptions, run_sweep
    from ..benchmarks.sweep_plan import EXAMPLE
    from ..benchmarks.sweep_plot import plot_sweep
    from ..benchmarks.sweep_summary import groups_of, summary_of, summary_table

    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    if file is None:
        raise ConfigurationError("give the sweep's file: begin with `roadside sweep --example > sweep.toml`")
    options = SweepOptions(file=file, out=out, force=force, retry_failed=retry_failed)
    finished: list[Any] = []

    async def serve(stop: Any) -> None:
        finished.append(await run_sweep(options, Console(stderr=True), stop))

    run_process("sweep", serve, False)
    result = finished[0]
    groups = groups_of(result.plan, result.table)
    picture: Path | None = None
    try:
        picture = plot_sweep(groups, plot or result.table.path.with_suffix(".png"))
    except ModuleNotFoundError:
        typer.echo("no plot: it needs matplotlib; pip install 'roadside[train]'", err=True)
    if as_json:
        typer.echo(json.dumps(summary_of(result, picture)))
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(summary_table(groups))
        counts = ", ".join(f"{count} {what}" for what, count in result.runs.items())
        typer.echo(
            f"{counts}; every figure of every run is in {result.table.path}" + (f", {picture}" if picture else "")
        )
    if result.runs["failed"]:
        raise typer.Exit(1)
